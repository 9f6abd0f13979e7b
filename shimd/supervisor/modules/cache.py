"""The cache of compiled modules: directories named by what they were made from, complete or not there at all.

The files of applications that are OCI artifacts are in it, too (``files`` for an engine).

Layout: ``<cache>/<engine>/<version>/<sha256 of the module>/artifact``, and ``…/tmp.*`` for what is being made. An
entry appears by a rename, after everything in it has reached the disk: a crash leaves a temporary directory, never
half an entry. Entries belong to root; compile workers write temporary directories only.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from shimd import paths
from shimd.errors import Internal, ShimdError, Unavailable, plain
from shimd.log import logger
from shimd.supervisor.modules import integrity
from shimd.supervisor.modules.integrity import Integrity, Record
from shimd.supervisor.modules.source import Source
from shimd.supervisor.modules.views import Views
from shimd.supervisor.threads import in_thread
from shimd.supervisor.workers.jailers import Tasks

_log = logger(__name__)
Make = Callable[[Source, Path], Awaitable[None]]
#: Asked when nobody waits for an entry any more: whether it is given up.
Drop = Callable[[], bool]
#: Age in seconds at which a temporary directory is nobody's.
_ABANDONED = 86400
#: Largest size of the cache, bytes, unless SHIMD_CACHE_SIZE says otherwise.
_DEFAULT_SIZE = 1 << 30
#: Seconds after which its disk is taken for one that hangs.
_DISK = 120.0
#: ENOSPC, in whoever's words.
_FULL = "no space left on device"


@dataclass
class _Job:
    """An entry that is being made, and those who wait for it."""

    drop: Drop
    is_code: bool
    done: anyio.Event = field(default_factory=anyio.Event)
    error: ShimdError | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    waiters: int = 0

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Somebody waits for it."""
        self.waiters += 1
        try:
            yield
        finally:
            self.waiters -= 1
            if not self.waiters and not self.done.is_set() and self.drop():
                self.scope.cancel()


class Cache:
    """The cache of one node, shared by all engines; several daemons may use one directory."""

    def __init__(self, directory: Path | None = None, size: int | None = None, tasks: Tasks | None = None) -> None:
        """:param tasks: what makes the entries, whatever becomes of those who ask for them. Without it, who asks first
        makes an entry, and ends that by being cancelled (``shimd run``)
        """
        self.directory = directory or paths.cache_dir()
        self._size = size or int(os.environ.get("SHIMD_CACHE_SIZE") or _DEFAULT_SIZE)
        self._tasks = tasks
        self._jobs: dict[tuple[str, Path], _Job] = {}
        self._views, self._integrity = Views(), Integrity()
        self.hits = self.misses = self.evictions = 0
        """Since this process began: programs that were there when they were asked for, those that had to be made, and
        what made room."""

    async def artifact(
        self,
        engine: str,
        version: str,
        source: Source,
        make: Make,
        asker: str = "",
        drop: Drop = lambda: False,
        *,
        is_code: bool = True,
    ) -> Path:
        """Returns what ``make`` made of a source, now if it is not there yet.

        ``make(source, path)`` is called once, however many ask at the same time, and its error is everybody's; whoever
        asks later has it tried again. If it is cancelled, another of those who wait takes over. Its source is
        opened anew: the caller may go away meanwhile.

        :param asker: whose error is nobody else's, since ``make`` depends on it
        :param is_code: whether it is believed only if it is what was put there; data may be too much to read
        :param drop: of the first who asks; whoever asks while it is being given up has it made anew
        :raises ShimdError: make's, or the disk's
        """
        entry = self.directory / engine / version / source.digest
        is_there = True
        while not await self._hit(entry, is_code=is_code):
            is_there = False
            if (job := self._jobs.get((asker, entry))) is None:
                job = await self._begin((asker, entry), source, make, _Job(drop, is_code))
            with job.awaited():
                await job.done.wait()
            if job.error is not None:
                raise job.error
        self.hits += is_code and is_there
        return entry / "artifact"

    async def _hit(self, entry: Path, *, is_code: bool) -> bool:
        """Returns whether the entry is there, and sound; notes its use for :meth:`prune`."""
        if not _touch(entry):
            return False
        if not is_code or await self._integrity.is_sound(entry):
            return True
        if os.path.lexists(entry):
            # Told in the daemon's log alone: what `shimd run` says on its stderr is the app's, and JSON.
            _log.info("%s is not what was put there: it is thrown away", entry)
            await self.discard(entry / "artifact")
        return False

    async def _begin(self, key: tuple[str, Path], source: Source, make: Make, job: _Job) -> _Job:
        # The caller may go away, and its descriptor's position is its own affair.
        own = source._replace(fd=os.open(f"/proc/self/fd/{source.fd}", os.O_RDONLY | os.O_CLOEXEC))
        self._jobs[key] = job
        self.misses += job.is_code
        if self._tasks is not None:
            self._tasks.start_soon(self._work, key, own, make)
        else:
            await self._work(key, own, make)
        return job

    async def _work(self, key: tuple[str, Path], source: Source, make: Make) -> None:
        job = self._jobs[key]
        try:
            with job.scope:
                await self._make(key[1], source, make, is_code=job.is_code)
        except Exception as error:
            job.error = self._told(plain(error) or Internal(f"compiling failed: {error!r}"))
            if plain(error) is None:
                raise
        finally:
            os.close(source.fd)
            del self._jobs[key]
            job.done.set()

    def _told(self, error: ShimdError) -> ShimdError:
        """With where there is no room: a compile worker sees the directory by another name."""
        is_full = _FULL in str(error).lower() and str(self.directory) not in str(error)
        return type(error)(f"{error} (modules are kept in {self.directory})") if is_full else error

    async def _make(self, entry: Path, source: Source, make: Make, *, is_code: bool) -> None:
        temporary = entry.parent / f"tmp.{secrets.token_hex(8)}"
        temporary.mkdir(parents=True, mode=0o755)
        try:
            await make(source, temporary / "artifact")
            publish = partial(_publish, temporary, entry, is_code)
            self._integrity.note(entry, await in_thread(publish, f"writing {entry}", limit=_DISK))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        try:
            await in_thread(self.prune, f"making room in {self.directory}", limit=_DISK, shared=True)
        except (ShimdError, OSError) as error:  # the entry is there
            _log.warning("the module cache may be too large: %s", error)

    def view(self, artifact: Path) -> int:
        """A descriptor of the directory that it is in, read-only where that can be had; the caller closes it.

        :raises DataLoss: it was removed meanwhile
        """
        return self._views.open(artifact.parent)

    async def discard(self, artifact: Path) -> None:
        """Forget an entry that does not load: the next who asks has it compiled again."""
        self._views.forget(artifact.parent)
        self._integrity.forget(artifact.parent)
        await in_thread(partial(_remove, artifact.parent), f"removing {artifact.parent}", limit=_DISK)

    def prune(self) -> None:
        """Remove what was used least recently until the cache fits; running apps keep what they have mapped.

        And what compilations left that a crash ended, when it is older than any compilation takes.
        """
        for path in self.directory.glob("*/*/tmp.*"):
            if _used_at(path) < time.time() - _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        entries = sorted(
            (_used_at(path), _size_of(path), path) for path in self.directory.glob("*/*/*") if path.name[:4] != "tmp."
        )
        total = sum(size for _time, size, _path in entries)
        for _time, size, path in entries[:-1]:  # never the newest: somebody is about to load it
            if total <= self._size:
                return
            if _in_use(path):
                continue
            shutil.rmtree(path, ignore_errors=True)
            self.evictions += 1
            total -= size

    def used(self) -> int:
        """Bytes in the cache."""
        return sum(_size_of(path) for path in self.directory.glob("*/*/*"))


def _touch(entry: Path) -> bool:
    """Returns whether the entry is there; notes its use."""
    try:
        os.utime(entry)
    except OSError as error:
        return error.errno == errno.EROFS and entry.is_dir()  # what is there can be used, if not noted
    return True


def _in_use(entry: Path) -> bool:
    """Returns whether an app has locked it: one that opens files of it as long as it lives, and has not just mapped
    it."""
    with suppress(OSError):
        fd = os.open(entry / "artifact", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def _remove(entry: Path) -> None:
    """Remove it, whatever it is: a disk that crashed may have made something else of it."""
    shutil.rmtree(entry, ignore_errors=True)
    with suppress(OSError):
        entry.unlink()


def _used_at(entry: Path) -> float:
    """The time of its last use. What went away meanwhile (another thread's or daemon's doing) was never used."""
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _size_of(entry: Path) -> int:
    """Bytes; as far as it is still there."""
    total = 0
    for directory, _below, files in os.walk(entry):
        for name in files:
            with suppress(OSError):
                total += os.stat(os.path.join(directory, name)).st_size
    return total


def _publish(temporary: Path, entry: Path, is_code: bool) -> Record | None:
    """Make what a compile worker wrote an entry: root's, on disk, under its final name, and with its digest.

    :returns: what it was then; ``None``: another daemon was first, which is as good
    :raises Unavailable: the worker has left what does not belong there, or nothing can be kept here
    """
    for path in [*temporary.rglob("*"), temporary]:
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise Unavailable(f"the compile worker left {path.name}, which is neither a file nor a directory")
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        os.chmod(path, 0o755 if stat.S_ISDIR(kind) else 0o644)
        _sync(path)
    if is_code:
        _sync(integrity.seal(temporary))
        _sync(temporary)
    try:
        os.rename(temporary, entry)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return None
    _sync(entry.parent)
    try:
        return integrity.record_of(entry)
    except ValueError as error:
        raise Unavailable(f"{error}, though it was made root's alone: the cache is in no file system for it") from None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
