"""Standard streams of a process: what containerd names in Create and Exec, opened for the worker.

containerd names each stream by a FIFO's path, or by a URI: ``fifo://``, ``file://`` (append) or ``binary://`` (a
logging program: containerd's docs, "Shim Authoring", Logging). The worker writes into these descriptors itself; only a
terminal is copied, since its other end must outlive any reader.
"""

import errno
import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import anyio

from shimd.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, from_os
from shimd.linux import fifo
from shimd.supervisor.task.logger import Logger
from shimd.supervisor.workers.jailers import Tasks

#: The kind of what is held open for a process that is not on record yet.
OPENED = "opened"
_CHUNK = 65536
#: Seconds to wait for somebody to read what a FIFO will bring.
_PATIENCE = 5.0
#: Seconds after a process's exit for the rest of its terminal's output to be read.
_DRAINING = 2.0
#: Seconds until a terminal that could not be read or written to is tried again.
_MOMENT = 0.001
#: The same for want of what there may be again: memory, room on a disk.
_PAUSE = 0.2
_SHORT = frozenset({errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True)
class Streams:
    """The streams as containerd names them; empty for none."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Keeps(Protocol):
    """Has descriptors outlive this process (:class:`shimd.supervisor.task.context.Context`)."""

    def keep(self, name: str, fds: Sequence[int]) -> None: ...

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool: ...

    def held(self, name: str, fds: Sequence[int]) -> None: ...

    def drop(self, name: str) -> None: ...


@dataclass(frozen=True)
class Kept:
    """What outlives this process of one process's streams: the write end of its stdin, and its terminal; and until it
    is on record that there is a process, all FIFOs, whose other ends take their being closed for the end."""

    keeper: Keeps
    process: str
    """The process's name among all of the node."""

    def name(self, kind: str) -> str:
        return f"{kind}:{self.process}"

    def keep(self, kind: str, *fds: int) -> None:
        self.keeper.keep(self.name(kind), fds)

    async def hold(self, kind: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        return await self.keeper.hold(self.name(kind), inputs, outputs)

    def held(self, kind: str, *fds: int) -> None:
        self.keeper.held(self.name(kind), fds)

    def drop(self, kind: str) -> None:
        self.keeper.drop(self.name(kind))


class Stdio:
    """The opened streams of one process. Use: ``open`` → pass ``fds`` to the worker → ``start`` → ``handed_over``, once
    the worker is on record → ``close``."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.fds: tuple[int, int, int] = (-1, -1, -1)
        self._worker_ends = ExitStack()
        self._stdin_writer: int | None = None
        self._console: Console | None = None
        self._logger: Logger | None = None

    @classmethod
    async def open(cls, streams: Streams, container: str, namespace: str, size: tuple[int, int], kept: Kept) -> "Stdio":
        """Open everything; ``size`` is the terminal's (rows, columns).

        :raises InvalidArgument: a stream cannot be opened; the message names it
        """
        self = cls(kept)
        try:
            await self._hold(streams)
            if streams.terminal:
                self._open_console(streams, size)
            else:
                stdin = self._open_stdin(streams.stdin)
                self.fds = (stdin, *await self._open_outputs(streams, container, namespace))
            self._kept.held(OPENED, *(self._console.fifos if self._console is not None else set(self.fds)))
        except BaseException:
            await self.close()
            raise
        return self

    @classmethod
    def resumed(cls, kept: Kept, take: Callable[[str], list[int] | None], logger: Sequence[int]) -> "Stdio":
        """Those that an earlier supervisor had opened for a process that runs.

        :param take: gives what was kept under a name
        :param logger: pid and start time of its logging program
        """
        self = cls(kept)
        if (stdin := take(kept.name("stdin"))) is not None:
            self._stdin_writer = stdin[0]
        if (console := take(kept.name("console"))) is not None:
            self._console = Console.resumed(console, kept)
        if logger:
            self._logger = Logger.found(*logger)
        return self

    @property
    def logger(self) -> tuple[int, ...]:
        """Pid and start time of the logging program; empty: there is none."""
        return () if self._logger is None else self._logger.identity

    def _own(self, fd: int) -> int:
        """Close ``fd`` once the worker has its duplicate."""
        self._worker_ends.callback(os.close, fd)
        return fd

    async def _hold(self, streams: Streams) -> None:
        """Have the FIFOs held open, once somebody is at the other end of the outputs, or nobody has come for a while.

        containerd opens its ends in threads, which may come after a fast app has gone: then the output is lost, and the
        reader waits for a writer for ever. (runc waits, too, without an end.)
        """
        pause = 0.001
        with ExitStack() as paths, anyio.move_on_after(_PATIENCE):
            inputs = _fifos(paths, streams.stdin)
            outputs = _fifos(paths, streams.stdout, "" if streams.terminal else streams.stderr)
            while (inputs or outputs) and not await self._kept.hold(OPENED, inputs, outputs):
                await anyio.sleep(pause)
                pause = min(2 * pause, 0.05)

    def _open_stdin(self, name: str) -> int:
        if not name:
            return self._own(os.open(os.devnull, os.O_RDONLY))
        with _naming("stdin", name):
            # A blocking open waits for a writer that may have gone; our own write end keeps the reader from an early
            # EOF.
            reader = self._own(os.open(_path(name), os.O_RDONLY | os.O_NONBLOCK))
            if stat.S_ISFIFO(os.fstat(reader).st_mode):
                self._stdin_writer = os.open(_path(name), os.O_WRONLY | os.O_NONBLOCK)
                self._kept.keep("stdin", self._stdin_writer)
            os.set_blocking(reader, True)
        return reader

    async def _open_outputs(self, streams: Streams, container: str, namespace: str) -> tuple[int, int]:
        if urlsplit(streams.stdout).scheme == "binary":
            self._logger = await Logger.start(streams.stdout, container, namespace)
            return self._own(self._logger.stdout), self._own(self._logger.stderr)
        stdout = self._own(open_output("stdout", streams.stdout))
        if streams.stderr == streams.stdout:
            return stdout, stdout
        return stdout, self._own(open_output("stderr", streams.stderr))

    def _open_console(self, streams: Streams, size: tuple[int, int]) -> None:
        self._console = Console.open(streams, size, self._kept)
        master, slave = os.openpty()
        self.fds = (self._own(slave),) * 3
        self._console.attach(master)

    def attach(self, master: int) -> None:
        """Take over the master side of a terminal that somebody else made, in place of our own."""
        assert self._console is not None
        self._console.attach(master)

    def start(self, tasks: Tasks) -> None:
        """Start copying, if there is a terminal; from now on it outlives us."""
        if self._console is not None:
            self._console.start(tasks)

    def handed_over(self) -> None:
        """The worker has its duplicates, and is on record: close ours."""
        self._kept.drop(OPENED)
        self._worker_ends.close()

    def close_stdin(self) -> None:
        """Let the process read the end of its input once containerd's writers are gone too (CloseIO)."""
        if self._stdin_writer is not None:
            self._kept.drop("stdin")
            os.close(self._stdin_writer)
            self._stdin_writer = None

    def resize(self, rows: int, columns: int) -> None:
        """:raises FailedPrecondition: the process has no terminal"""
        if self._console is None:
            raise FailedPrecondition("the process has no terminal to resize")
        self._console.resize(rows, columns)

    async def close(self) -> None:
        """After the process's exit: let what it wrote reach its readers, then close everything."""
        self.handed_over()
        self.close_stdin()
        if self._console is not None:
            await self._console.close()
        if self._logger is not None:
            await self._logger.close()


def open_output(stream: str, name: str) -> int:
    """Open an output that containerd names by path, ``fifo://`` or ``file://`` URI; ``/dev/null`` for an empty name.

    :raises InvalidArgument: the stream and its name, with the system's reason
    """
    if not name:
        return os.open(os.devnull, os.O_WRONLY)
    path = _path(name)
    with _naming(stream, name):
        if urlsplit(name).scheme == "file":
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        # Read-write: a reader that leaves, as containerd does in a restart, must not be the app's end (SIGPIPE).
        return os.open(path, os.O_RDWR if stat.S_ISFIFO(path.stat().st_mode) else os.O_WRONLY | os.O_APPEND)


def _fifos(closing: ExitStack, *names: str) -> list[int]:
    """Descriptors of the paths of those that are; all are open until ``closing``."""
    found = []
    for name in dict.fromkeys(names):
        if name and urlsplit(name).scheme in ("", "fifo") and (fd := fifo.find(_path(name))) is not None:
            closing.callback(os.close, fd)
            found.append(fd)
    return found


def _path(name: str) -> Path:
    uri = urlsplit(name)
    if uri.scheme not in ("", "fifo", "file"):
        raise InvalidArgument(f"log scheme {uri.scheme}:// of {name} is not known (fifo, file, binary)")
    return Path(uri.path)


@contextmanager
def _naming(stream: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = from_os(OSError(error.errno, error.strerror, f"{stream} {name}"))
        raise told if isinstance(told, ResourceExhausted) else InvalidArgument(str(told)) from error


class Console:
    """A pseudo-terminal whose master side is copied from and to containerd's FIFOs."""

    def __init__(self, size: tuple[int, int], kept: Kept) -> None:
        self._kept = kept
        self.master: int | None = None
        self._size = size
        self._input: int | None = None
        self._keep: int | None = None
        self._output: int | None = None
        self._drained = anyio.Event()
        self._input_scope = anyio.CancelScope()
        self._output_scope = anyio.CancelScope()
        self._started = False

    @classmethod
    def open(cls, streams: Streams, size: tuple[int, int], kept: Kept) -> "Console":
        """:raises InvalidArgument: as :meth:`Stdio.open`"""
        self = cls(size, kept)
        try:
            self._open_fifos(streams)
        except BaseException:
            self._close_fds()
            raise
        return self

    @classmethod
    def resumed(cls, fds: Sequence[int], kept: Kept) -> "Console":
        """One that an earlier supervisor had started; its descriptors are ours to close."""
        self = cls((0, 0), kept)
        self.master, self._output, *stdin = fds
        if stdin:
            self._input, self._keep = stdin
        return self

    @property
    def fifos(self) -> list[int]:
        """Its ends of containerd's."""
        return [fd for fd in (self._output, self._input, self._keep) if fd is not None]

    def attach(self, master: int) -> None:
        """From here on ``master`` is ours to close."""
        if self.master is not None:
            os.close(self.master)
        self.master = master
        os.set_blocking(master, False)
        self.resize(*self._size)

    def _open_fifos(self, streams: Streams) -> None:
        if streams.stdin:
            with _naming("stdin", streams.stdin):
                path = _path(streams.stdin)
                self._input = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                self._keep = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # else a read would see an EOF between writers
        self._output = open_output("stdout", streams.stdout)
        os.set_blocking(self._output, False)

    def resize(self, rows: int, columns: int) -> None:
        if rows and columns and self.master is not None:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def start(self, tasks: Tasks) -> None:
        assert self.master is not None and self._output is not None
        stdin = () if self._input is None or self._keep is None else (self._input, self._keep)
        self._kept.keep("console", self.master, self._output, *stdin)
        self._started = True
        tasks.start_soon(self._copy_output, self.master)
        if self._input is not None:
            tasks.start_soon(self._copy_input, self._input, self.master)

    async def _copy_output(self, master: int) -> None:
        assert self._output is not None
        try:
            with self._output_scope:
                await _copy(master, self._output)
        finally:
            self._kept.drop("console")  # the reader waits for this end before anybody thinks of Delete
            os.close(self._output)
            self._output = None
            self._drained.set()

    async def _copy_input(self, source: int, master: int) -> None:
        with self._input_scope:
            await _copy(source, master)

    async def close(self) -> None:
        self._input_scope.cancel()
        if self._started:
            with anyio.move_on_after(_DRAINING):  # nobody may be reading the FIFO any more
                await self._drained.wait()
            self._output_scope.cancel()  # what waits for a descriptor would wait for the next one of its number
            await self._drained.wait()
        self._close_fds()

    def _close_fds(self) -> None:
        self._kept.drop("console")
        for fd in (self.master, self._input, self._keep, self._output):
            if fd is not None:
                os.close(fd)
        self.master = self._input = self._keep = self._output = None


async def _copy(source: int, target: int) -> None:
    """Copy until the end of ``source``; both non-blocking.

    The kernel moves the bytes if one of both is a FIFO, so that none is ours when this process ends.
    """
    if stat.S_ISFIFO(os.fstat(source).st_mode) or stat.S_ISFIFO(os.fstat(target).st_mode):
        try:
            await _splice(source, target)
            return
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel whose terminals cannot do that
                return
    while data := await _read(source):
        while data:
            try:
                data = data[os.write(target, data) :]
            except BlockingIOError:
                await anyio.wait_writable(target)
            except OSError as error:
                if error.errno not in _SHORT:
                    return
                await anyio.sleep(_PAUSE)


async def _splice(source: int, target: int) -> None:
    """:raises OSError: EINVAL: it cannot be done with these two; else one of them is gone"""
    while True:
        try:
            await anyio.wait_readable(source)
            if os.splice(source, target, _CHUNK, flags=os.SPLICE_F_NONBLOCK) == 0:
                return
        except BlockingIOError:
            await anyio.wait_writable(target)
            await anyio.sleep(_MOMENT)  # whichever was not ready: it must not be asked again and again
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            await anyio.sleep(_PAUSE)


async def _read(fd: int) -> bytes:
    while True:
        try:
            await anyio.wait_readable(fd)
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in _SHORT:  # EIO: the last process has closed its side of the terminal
                return b""
            await anyio.sleep(_PAUSE)
