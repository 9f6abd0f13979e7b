"""The fork server: one warm, single-threaded process per engine, the parent of every worker of that engine.

It imports the engine once and never runs a guest, so that a fork is all an app's start costs. It depends on nothing but
its children: if the supervisor dies, apps go on, and their exit statuses wait here until a supervisor connects again,
lists them and tells the server to forget them. It leaves when it has neither a supervisor nor children.

It is the nearest subreaper, too (prctl(2)): what a worker that becomes ``runc`` leaves behind, a native container's
process, becomes its child, and is followed like a worker.

Run as ``python -I -m shimd.forkserver.main MODULE:CLASS VERSION [private]`` with a listening socket at ``LISTEN_FD``;
:mod:`shimd.protocol.fork_server` has the protocol.
"""

import contextlib
import errno
import gc
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, assert_never

from shimd.engine import Engine, RunsWithoutPython
from shimd.engines.registry import load_engine
from shimd.errors import Code, reason
from shimd.forkserver.zygote import Zygote
from shimd.linux import libc
from shimd.linux.namespaces import fork_into
from shimd.linux.zombies import first_zombie
from shimd.protocol.codec import NotAMessage
from shimd.protocol.constants import EXIT_FAILED, LISTEN_FD, VERSION
from shimd.protocol.fork_server import (
    Event,
    Exited,
    Failed,
    Follow,
    Forget,
    Hello,
    List,
    Listed,
    Request,
    Retire,
    Spawn,
    Spawned,
    decode_request,
)
from shimd.protocol.packets import receive, send
from shimd.worker import main as worker
from shimd.zygote import available

#: Seconds without a supervisor and without children after which the server leaves.
LINGER = float(os.environ.get("SHIMD_LINGER") or 5)
#: The same where exits are still to be told: a supervisor that is started again comes sooner, if any does.
KEEP_EXITS = float(os.environ.get("SHIMD_KEEP_EXITS") or 600)
#: Exit statuses of adopted processes that are kept for a request to follow them, which comes at once if at all.
STRAYS = 256
#: Without a zygote, for good or for now, workers are forked from here.
_PYTHON_CAN = (errno.ENOSYS, errno.ECHILD)


@dataclass
class Child:
    key: str
    pid: int
    start: int
    control: socket.socket
    pidfd: int
    status: int | None = None
    exited_at: int = 0

    def spawned(self) -> Spawned:
        return Spawned(self.key, self.pid, self.start)

    def exited(self) -> Exited:
        assert self.status is not None
        return Exited(self.key, self.pid, self.status, self.exited_at)


class ForkServer:
    """The poll loop and its table of children."""

    def __init__(
        self,
        engine: Engine[object],
        listener: socket.socket,
        hello: Hello,
        *,
        private: bool = False,
        zygote: Zygote | None = None,
    ) -> None:
        self._engine = engine
        self._hello = hello
        self._retired = False
        """Whether nobody is served any more but those who are children already."""
        self._private = private
        self._listener = listener
        self._supervisor: socket.socket | None = None
        self._children: dict[str, Child] = {}
        self._by_pidfd: dict[int, Child] = {}
        self._strays: dict[int, tuple[int, int]] = {}
        """Adopted processes that ended before anybody asked to follow them, the latest last: status and time."""
        self._zygote = zygote
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Loop until there is neither a supervisor nor a child, nor for long an exit that is still to be told.

        A private server leaves with its one supervisor, and takes its apps with it (``system_calls.of_host``).
        """
        while not (self._retired and not self._children):
            patience = self._patience()
            ready = self._poll.poll(None if patience is None else patience * 1000)
            if patience is not None and not ready:
                return
            listener = self._listener.fileno()
            # A new supervisor comes last: what the one before it has said holds.
            for fd in [fd for fd, _event in ready if fd != listener] or [listener]:
                self._dispatch(fd)
            self._bury_strays()

    def _patience(self) -> float | None:
        """Seconds to wait for a supervisor; ``None``: there is one, or an app."""
        if self._supervisor is not None:
            return None
        if self._private or not self._children:
            return LINGER
        return None if self._by_pidfd else KEEP_EXITS

    def _dispatch(self, fd: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif child := self._by_pidfd.get(fd):
            self._reap(child)
        elif self._supervisor is not None and fd == self._supervisor.fileno():
            self._request()

    def _accept(self) -> None:
        connection, _address = self._listener.accept()
        self._hang_up()  # the newest supervisor is the one that lives
        self._supervisor = connection
        self._poll.register(connection, select.POLLIN)
        self._tell(self._hello)

    def _hang_up(self) -> None:
        """Workers that it has not started would wait for it for ever; one that runs does not listen any more."""
        if self._supervisor is not None:
            self._poll.unregister(self._supervisor)
            self._supervisor.close()
            self._supervisor = None
            for child in self._children.values():
                with contextlib.suppress(OSError):
                    child.control.shutdown(socket.SHUT_WR)

    def _retire(self) -> None:
        """Serve nobody any more, and leave with the last worker."""
        self._retired = True
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _tell(self, message: Event, fds: Sequence[int] = ()) -> None:
        """Tell the supervisor, if there is one; what it misses it gets by ``list``."""
        if self._supervisor is None:
            return
        try:
            send(self._supervisor, message, fds)
        except OSError:
            self._hang_up()

    def _request(self) -> None:
        assert self._supervisor is not None
        try:
            packet = receive(self._supervisor, decode_request)
        except (OSError, NotAMessage):  # not one of our supervisors
            packet = None
        if packet is None:
            self._hang_up()
            return
        request, fds = packet
        try:
            self._do(request, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _do(self, request: Request, fds: list[int]) -> None:
        match request:
            case Hello():
                if request.version != VERSION:  # which neither of us could go on with
                    self._retire()
                    self._hang_up()
            case Spawn():
                self._spawn(request, fds)
            case Follow():
                self._follow(request.key, request.pid)
            case Forget():
                self._forget(request.key)
            case List():
                self._list()
            case Retire():
                self._retire()
            case _:
                assert_never(request)

    def _spawn(self, request: Spawn, fds: list[int]) -> None:
        key = request.key
        if self._retired:
            self._tell(Failed(key, Code.UNAVAILABLE, "the fork server takes no new workers any more"))
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            pid = self._fork(request, fds, theirs.fileno())
        except OSError as error:
            ours.close()
            self._tell(Failed(key, _code(error), f"fork: {reason(error)}"))
            return
        finally:
            theirs.close()
        self._watch(Child(key, pid, start_time(pid), ours, os.pidfd_open(pid)))

    def _fork(self, request: Spawn, fds: list[int], control: int) -> int:
        if not request.python:
            return self._fork_by_zygote([*fds, control], request.pidns, request.cgroup)
        pid = fork_into(request.pidns, request.cgroup)
        if pid == 0:
            self._become_worker(fds, control)
        return pid

    def _fork_by_zygote(self, fds: list[int], pidns: str | None, cgroup: str | None) -> int:
        if self._zygote is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        try:
            return self._zygote.spawn(fds, pidns, cgroup)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                self._zygote = None
            raise

    def _watch(self, child: Child) -> None:
        self._children[child.key] = self._by_pidfd[child.pidfd] = child
        self._poll.register(child.pidfd, select.POLLIN)
        self._tell(child.spawned(), [child.control.fileno()])

    def _follow(self, key: str, pid: int) -> None:
        """Report an adopted process's exit as a worker's. Its control socket has no other end."""
        control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        other.close()
        ended = self._strays.pop(pid, None)
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            self._watch(Child(key, pid, start_time(pid), control, os.pidfd_open(pid)))
        except OSError as error:  # a child that is there now comes first: it may have an earlier one's number
            if ended is None:
                message = f"process {pid} is not a child of the fork server: {reason(error)}"
                self._tell(Failed(key, Code.INTERNAL, message))
            else:
                child = self._children[key] = Child(key, pid, 0, control, -1, *ended)
                self._tell(child.spawned(), [control.fileno()])
                self._tell(child.exited())
            control.close()

    def _bury_strays(self) -> None:
        """Wait for adopted processes that nobody follows (yet)."""
        while (pid := first_zombie()) is not None:
            if any(child.pid == pid for child in self._by_pidfd.values()):
                break  # one that is followed: its descriptor tells of it
            _pid, status = os.waitpid(pid, 0)
            self._strays[pid] = status, time.time_ns()
        while len(self._strays) > STRAYS:
            del self._strays[next(iter(self._strays))]

    def _become_worker(self, fds: list[int], control: int) -> NoReturn:
        """In the child: nothing of the server may stay reachable, whatever happens."""
        try:
            worker.main(self._engine, worker.take(fds, control))
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(2, f"shimd: worker failed: {error!r}\n".encode())
        finally:
            os._exit(EXIT_FAILED)

    def _reap(self, child: Child) -> None:
        _pid, status = os.waitpid(child.pid, 0)
        child.status, child.exited_at = status, time.time_ns()
        self._poll.unregister(child.pidfd)
        del self._by_pidfd[child.pidfd]
        os.close(child.pidfd)
        child.control.close()
        self._tell(child.exited())

    def _forget(self, key: str) -> None:
        child = self._children.get(key)
        if child is not None and child.status is not None:
            del self._children[key]

    def _list(self) -> None:
        for child in list(self._children.values()):
            if child.status is None:
                self._tell(child.spawned(), [child.control.fileno()])
            else:
                self._tell(child.exited())
        self._tell(Listed())


def _zygote(engine: Engine[object]) -> Zygote | None:
    """If the engine can do without Python, here."""
    if not isinstance(engine, RunsWithoutPython) or not available():
        return None
    command = engine.library()
    try:
        return Zygote(command) if command is not None else None
    except OSError as error:  # it may have told why
        sys.stderr.write(f"shimd: all workers run in Python: {reason(error)}\n")
        return None


def _code(error: OSError) -> Code:
    """The status code of a fork that failed."""
    if isinstance(error, BlockingIOError):
        return Code.RESOURCE_EXHAUSTED
    return Code.UNIMPLEMENTED if error.errno in _PYTHON_CAN else Code.INTERNAL


def start_time(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat``: with the pid it names a process for good (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def main() -> None:
    worker.prepare_signals()
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    engine = load_engine(sys.argv[1])
    engine.warm()
    listener = socket.socket(fileno=LISTEN_FD)
    listener.listen()  # once more, so that SO_PEERCRED tells our pid, not our parent's
    hello = Hello(VERSION, *sys.argv[1:3])
    server = ForkServer(engine, listener, hello, private="private" in sys.argv[3:], zygote=_zygote(engine))
    # What exists now is shared with every worker: keep the collector from writing to it.
    gc.collect()
    gc.freeze()
    gc.disable()
    server.serve()


if __name__ == "__main__":
    main()
