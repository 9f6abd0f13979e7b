"""Carries out the strikes of a plan: somebody who plays that part at that moment is killed, held up or starved.

What lasts is always undone, also when the run is cancelled. A clock of the machine's is never changed: what a jump of
it does is not tried here, since a time namespace's offsets are fixed before its first process and are not those of the
clock that exits are told by. Nothing of shimd waits by that clock but Spin's cron trigger, which has to.
"""

import os
import resource
import signal
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import anyio

from shimd.linux.libc import mount, umount
from tests.chaos import kernel
from tests.chaos.place import Place, now
from tests.chaos.plan import LASTING, Strike
from tests.chaos.record import Struck
from tests.e2e import leftovers

_SIGNALS = {name: signal.Signals[f"SIG{name}"] for name in ("KILL", "TERM", "ABRT")}
_FILLING = 1 << 20


def victims(place: Place, part: str) -> list[int]:
    """Those who play it now, the oldest first. A jailer that has begun to be one is one."""
    if part == "app":
        return sorted(leftovers.processes_in(place.namespace))
    lines = leftovers.processes_of(place.containerd.directory)
    return sorted(pid for pid, line in lines.items() if kernel.role(pid, line) == part)


class Strikes:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._keeper_and_daemon = anyio.Lock()
        """Both at once is the end of all: one of them is killed only when the other has come back."""
        self._lasts: set[tuple[str, int]] = set()
        """What is being done to whom: a second time at once, it would take the first's limit for the one to restore."""

    async def fall(self, strike: Strike) -> None:
        if strike.part == "daemon" or (strike.part, strike.act) == ("keeper", "KILL"):
            async with self._keeper_and_daemon:
                await self._fall(strike)
        else:
            await self._fall(strike)

    async def _fall(self, strike: Strike) -> None:
        if strike.part == "node":
            await self._last(strike, 0, lambda: self._full_disk(strike))
            return
        found = victims(self._place, strike.part)
        if not found:
            return
        pid = found[int(strike.pick * len(found))]
        if (strike.part, strike.act) == ("keeper", "KILL"):
            await self._kill_keeper(strike, pid)
        elif strike.act == "UPGRADE":
            await self._upgrade(strike, pid)
        elif strike.act in LASTING:
            await self._last(strike, pid, lambda: self._lasting(strike, pid))
        else:
            self._kill(strike, pid)

    async def _kill_keeper(self, strike: Strike, pid: int) -> None:
        await self._place.shimd()
        self._kill(strike, pid)
        while victims(self._place, "keeper") in ([], [pid]):  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.1)
        await anyio.sleep(0.5)  # it is given all anew

    async def _upgrade(self, strike: Strike, pid: int) -> None:
        """To what it is already: ``tests/e2e/test_upgrade.py`` has two releases. What strikes meanwhile may make it
        fail, but not hang."""
        begin = now()
        with anyio.fail_after(self._place.patience):
            command = [f"{sysconfig.get_path('scripts')}/shimd", "upgrade", "--force", "--bin-dir", "/nonexistent"]
            await anyio.run_process(command, env=self._place.containerd.env, check=False)
        self._note(strike, pid, begin)

    def _kill(self, strike: Strike, pid: int) -> None:
        begin = now()
        with suppress(ProcessLookupError):
            os.kill(pid, _SIGNALS[strike.act])
        self._note(strike, pid, begin)

    def _note(self, strike: Strike, pid: int, begin: int) -> None:
        struck = Struck(strike.number, strike.part, strike.act, pid, begin, now())
        self._place.record.strikes.append(struck)

    async def _last(self, strike: Strike, pid: int, make: Callable[[], AbstractContextManager[None]]) -> None:
        begin, what = now(), (strike.act, pid)
        if what in self._lasts:
            return
        self._lasts.add(what)
        try:
            with make():
                await anyio.sleep(strike.seconds)
        except (ProcessLookupError, PermissionError):  # gone before it could be held up
            return
        finally:
            self._lasts.discard(what)
            self._note(strike, pid, begin)

    def _lasting(self, strike: Strike, pid: int) -> AbstractContextManager[None]:
        if strike.act == "STOP":
            return _stopped(pid)
        if strike.act == "NOFILE":
            return _few_descriptors(pid, strike.amount)
        return _little_memory(pid, 2 + 2 * strike.amount, self._place.namespace)

    @contextmanager
    def _full_disk(self, strike: Strike) -> Iterator[None]:
        """The one of shimd's own directories (``SmallDisk``), to its last byte."""
        path = self._place.containerd.directory / SmallDisk.NAME / f"filling-{strike.number}"
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(_FILLING)):
                pass
        try:
            yield
        finally:
            path.unlink()


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _few_descriptors(pid: int, left: int) -> Iterator[None]:
    """As many as it has, and a few."""
    try:
        has = max(int(entry) for entry in os.listdir(f"/proc/{pid}/fd")) + 1
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (has + left, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def _little_memory(pid: int, mebibytes: int, name: str) -> Iterator[None]:
    """A cgroup of its own, in which it, and what it forks without naming another, may have so much more."""
    hierarchy = next(path for path in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if path.is_dir())
    version1 = hierarchy.name == "memory"
    home = hierarchy / _memory_cgroup(pid, version1).lstrip("/")
    cgroup = hierarchy / f"{name}-little-{pid}"
    cgroup.mkdir()
    try:
        limit = cgroup / ("memory.limit_in_bytes" if version1 else "memory.max")
        limit.write_text(str(mebibytes << 20))
        (cgroup / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        while members := (cgroup / "cgroup.procs").read_text().split():
            for member in members:
                with suppress(ProcessLookupError):
                    (home / "cgroup.procs").write_text(member)
        cgroup.rmdir()


def _memory_cgroup(pid: int, version1: bool) -> str:
    try:
        lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return next(path for _, controllers, path in lines if ("memory" in controllers.split(",")) == version1)


class SmallDisk:
    """A file system in memory that has shimd's directories, and so little room that it can be filled at once."""

    NAME = "disk"
    _SIZE = "96m"

    def __init__(self, directory: Path) -> None:
        self.path = directory / self.NAME
        self.path.mkdir()
        mount("tmpfs", str(self.path), "tmpfs", 0, f"size={self._SIZE},mode=700")
        for name in ("shimd", "shimd-state", "shimd-cache"):
            (self.path / name).mkdir(mode=0o700)
            (directory / name).symlink_to(self.path / name)

    def close(self) -> None:
        umount(str(self.path))
