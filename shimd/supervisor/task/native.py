"""A native container beside Wasm ones: ``runc`` (or another runtime with its command line) makes its processes.

Which they are is the one difference: streams, cgroup, states, signals, exits and events are every container's, and its
processes are followed by the fork server like workers (``shimd/worker/native.py``).
"""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from anyio.abc import SocketListener, SocketStream, UNIXSocketStream

from shimd import oci, paths
from shimd.cgroup.paths import is_systemd
from shimd.errors import Internal, InvalidArgument, ResourceExhausted, ShimdError, Unavailable, from_os
from shimd.linux import libc
from shimd.log import logger
from shimd.protocol.plans import NativeCommand
from shimd.supervisor import children
from shimd.supervisor.task.context import Context
from shimd.supervisor.task.options import Options
from shimd.supervisor.task.process import Process
from shimd.supervisor.threads import in_thread
from shimd.supervisor.workers.fork_client import Worker

_log = logger(__name__)
#: Seconds that the runtime may take, hooks included, unless SHIMD_RUNC_SECONDS says otherwise; and for a delete, less
#: than its caller may take.
_LIMIT, _DELETE_LIMIT = 120.0, 30.0
#: Seconds for a terminal that the runtime has made to arrive.
_TERMINAL = 10.0
#: Seconds until what there was no descriptor for is tried again.
_MOMENT = 0.05


class Native:
    """One container, by the command line that runc, crun and youki share."""

    def __init__(self, context: Context, id: str, bundle: Path, spec: oci.Spec, options: Options) -> None:
        self._context, self._id, self._bundle, self._spec = context, id, bundle, spec
        self._rootfs = str(bundle / spec["root"]["path"])
        program = shutil.which(options.runtime)
        if program is None:
            raise InvalidArgument(f"there is no {options.runtime} on this node to run a native program with")
        self._root = paths.native_root(context.namespace)
        self.state = self._root / id
        """The directory in which the runtime keeps what it knows of the container."""
        systemd = options.systemd or is_systemd(spec.get("linux", {}).get("cgroupsPath", ""))
        self._command = [program, "--root", str(self._root), *(["--systemd-cgroup"] if systemd else [])]

    async def create(self, process: Process, rootfs: list[oci.RootfsMount]) -> Worker:
        """Make the container's first process, which waits for :meth:`start`; ``process`` has its streams.

        :raises ShimdError: in the runtime's own words
        """
        await self._forget_any()
        return await self._make(process, rootfs, "create", "--bundle", str(self._bundle))

    async def start(self) -> None:
        with _scratch() as scratch:
            await self._run(scratch, "start", self._id)

    async def exec(self, process: Process) -> Worker:
        """Make and start a further process.

        :raises ShimdError: in the runtime's own words
        """
        with _scratch() as scratch:
            file = scratch / "process.json"
            file.write_text(json.dumps(process.spec))
            return await self._make(process, [], "exec", "--detach", "--process", str(file))

    async def delete(self, *, forget: bool) -> None:
        """Remove what the runtime keeps, and the root file system's mounts. Quietly, if there is nothing.

        :param forget: whether the runtime is asked to, which runs poststop hooks; else the launcher does both
        """
        if forget:
            try:
                await self._forget_any()
            except OSError as error:  # a container must be deletable, even if its runtime is gone from the node
                if isinstance(from_os(error), ResourceExhausted):
                    raise
                _log.error("container %s: its runtime cannot be asked to forget it: %s", self._id, from_os(error))
        await in_thread(partial(_unmount_all, self._rootfs), f"unmounting {self._rootfs}", shared=True)

    async def _forget_any(self) -> None:
        """A container of that name, perhaps of a daemon that died over it."""
        if not self.state.exists():
            return
        try:
            await children.run([*self._command, "delete", "--force", self._id], _environment(), _DELETE_LIMIT)
        except Unavailable as error:  # its processes are gone, its cgroup and its mounts are our affair
            _log.error("container %s: %s; what it keeps is removed without it", self._id, error)
            shutil.rmtree(self.state, ignore_errors=True)

    async def _make(self, process: Process, rootfs: list[oci.RootfsMount], *arguments: str) -> Worker:
        with _scratch() as scratch:
            pid_file, worker = scratch / "pid", None
            try:
                async with _console(process, scratch) as console:
                    words = [*arguments, "--pid-file", str(pid_file), *console, self._id]
                    command = [*self._with_log(scratch), *words]
                    plan = NativeCommand(str(self._bundle), command, self._rootfs, rootfs)
                    worker = await self._become(process, plan, scratch, pid_file)
                return worker  # noqa: RET504 — the console's end may fail, and then it is ended
            except BaseException:
                if worker is not None:
                    await worker.forks.end(worker)
                else:
                    _end_unfollowed(pid_file)
                raise

    async def _become(self, process: Process, plan: NativeCommand, scratch: Path, pid_file: Path) -> Worker:
        """Run the runtime, and follow what it leaves behind: with the same fork server, whose child that is."""
        assert process.stdio is not None
        forks = await self._context.forks()
        worker = await forks.spawn(self._key(f"{self._id}/{process.name}/runtime"), plan, process.stdio.fds)
        try:
            await _within_limit(worker, plan)
            if worker.status != 0:
                raise _failure(scratch, os.waitstatus_to_exitcode(worker.status or 0))
            return await forks.follow(self._key(f"{self._id}/{process.name}"), int(pid_file.read_text()))
        finally:
            await forks.end(worker)

    def _key(self, name: str) -> str:
        return f"{self._context.namespace}/{name}@{time.time_ns()}"

    def _with_log(self, scratch: Path) -> list[str]:
        program, *options = self._command
        return [program, "--log", str(scratch / "log"), "--log-format", "json", *options]

    async def _run(self, scratch: Path, *arguments: str) -> None:
        code = await children.run([*self._with_log(scratch), *arguments], _environment(), _limit())
        if code != 0:
            raise _failure(scratch, code)


async def _within_limit(worker: Worker, plan: NativeCommand) -> None:
    """Wait until a runtime has ended.

    :raises Unavailable: it takes too long
    """
    try:
        with anyio.fail_after(_limit()):
            await worker.becomes_another()
            await worker.exited.wait()
    except TimeoutError:
        raise Unavailable(f"{plan.command[0]} has not ended within {_limit():g} s, and was killed") from None


def _limit() -> float:
    return float(os.environ.get("SHIMD_RUNC_SECONDS") or _LIMIT)


def _environment() -> dict[str, str]:
    """The daemon's own path, and nothing else of its: NOTIFY_SOCKET, say, would be taken for the container's."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


@contextmanager
def _scratch() -> Iterator[Path]:
    paths.scratch_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    with TemporaryDirectory(dir=paths.scratch_dir()) as directory:
        yield Path(directory)


def _failure(scratch: Path, code: int) -> ShimdError:
    """The runtime's last error, from its log.

    :param code: of its exit; less than 0: the signal that has killed it
    """
    with suppress(OSError, ValueError, KeyError):
        lines = (scratch / "log").read_text().splitlines()
        errors = [entry for entry in map(json.loads, lines) if entry.get("level") in ("error", "fatal")]
        if errors:
            return Internal(str(errors[-1]["msg"]))
    if code < 0:
        return Unavailable(f"the native runtime was killed by signal {-code}: ask once more")
    return Internal("the native runtime failed and said nothing")


@asynccontextmanager
async def _console(process: Process, scratch: Path) -> AsyncIterator[list[str]]:
    """The runtime's arguments for a terminal, whose other end it sends over a socket (runc's docs/terminals.md)."""
    assert process.stdio is not None
    if not process.streams.terminal:
        yield []
        return
    path = scratch / "console.sock"
    async with await anyio.create_unix_listener(path) as listener:
        yield ["--console-socket", str(path)]
        try:
            with anyio.fail_after(_TERMINAL):
                async with await _accepted(listener) as stream:
                    assert isinstance(stream, UNIXSocketStream)
                    _name, fds = await stream.receive_fds(4096, 1)
        except TimeoutError:
            raise Unavailable("the native runtime has sent no terminal") from None
        if not fds:  # the kernel had no descriptor for us
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        os.set_inheritable(fds[0], False)
        process.stdio.attach(int(fds[0]))


async def _accepted(listener: SocketListener) -> SocketStream:
    """The runtime's connection; it waits while there is no descriptor for it."""
    while True:
        try:
            return await listener.accept()
        except (OSError, anyio.BrokenResourceError):  # anyio wraps what accept(2) says into the latter
            await anyio.sleep(_MOMENT)


def _end_unfollowed(pid_file: Path) -> None:
    """Kill the process that a runtime has left, if it has: nobody would ever learn of its end."""
    with suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _unmount_all(path: str) -> None:
    with suppress(OSError):  # EINVAL: nothing is mounted there any more
        for _layer in range(16):
            libc.umount(path)
