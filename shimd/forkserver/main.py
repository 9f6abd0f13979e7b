"""The fork server: one warm, single-threaded process per engine, the parent of every worker of that engine.

It imports the engine once and never runs a guest, so that a fork is all an app's start costs. It depends on nothing but
its children: if the supervisor dies, its workers stay, started or not, and so do their exit statuses, until a
supervisor connects again, lists them and says what to forget. It leaves when it has neither a supervisor nor children.

Nothing keeps it waiting, and what it is short of is the error of one request: its end would be the loss of every exit.

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
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, assert_never

from shimd import paths, release
from shimd.engine import Engine, PacksApplications, RunsWithoutPython
from shimd.engines.registry import load_engine
from shimd.errors import Code, from_os, reason
from shimd.forkserver.child import Child
from shimd.forkserver.connection import Connection, Full
from shimd.forkserver.zygote import Zygote
from shimd.linux import libc
from shimd.linux.limits import raise_descriptors, restore_descriptors
from shimd.linux.namespaces import fork_into
from shimd.linux.pidfd import status_of_child
from shimd.linux.zombies import first_zombie
from shimd.protocol.constants import EXIT_FAILED, LISTEN_FD, VERSION
from shimd.protocol.fork_server import (
    End,
    Event,
    Failed,
    Follow,
    Forget,
    Hello,
    List,
    Listed,
    Ping,
    Pong,
    Refused,
    Request,
    Retire,
    Spawn,
)
from shimd.protocol.noted_exits import NotedExits
from shimd.protocol.packets import LostDescriptors
from shimd.worker import main as worker
from shimd.zygote import available

#: Seconds without a supervisor and without children after which the server leaves.
LINGER = float(os.environ.get("SHIMD_LINGER") or 5)
#: The same where exits are still to be told, and after which workers that nobody has started end: a supervisor that is
#: started again comes sooner, if any does.
KEEP_EXITS = float(os.environ.get("SHIMD_KEEP_EXITS") or 600)
#: Exit statuses of adopted processes that are kept for a request to follow them, which comes at once if at all.
STRAYS = 256
#: Without a zygote, for good or for now, workers are forked from here.
_PYTHON_CAN = (errno.ENOSYS, errno.ECHILD)
#: Connections that have not said yet who they are; of more, the first is closed.
_GUESTS = 16
#: Seconds until what failed for want of something is tried again.
_SOON, _LATER = 0.1, 1.0


class ForkServer:
    """The loop and its table of children."""

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
        self._pidfd = os.pidfd_open(os.getpid())
        self._retired = False
        """Whether nobody is served any more but those who are children already."""
        self._private = private
        self._listener = listener
        path = listener.getsockname()
        self._noted = NotedExits(paths.noted_exits(Path(path)) if path and not private else None)
        self._hears = True
        """Whether connections are accepted."""
        self._guests: dict[int, Connection] = {}
        """Those that have not said yet who they are, the latest last."""
        self._supervisor: Connection | None = None
        self._since = time.monotonic()
        """When the last supervisor or child has gone."""
        self._gave_up = False
        """Whether workers that were not started have been ended since."""
        self._children: dict[str, Child] = {}
        self._living: dict[int, Child] = {}
        """By pidfd."""
        self._unwaited: list[Child] = []
        """Those that have ended, and cannot be waited for yet: somebody traces them (ptrace(2))."""
        self._strays: dict[int, tuple[int, int]] = {}
        """Adopted processes that ended before anybody asked to follow them, the latest last: status and time."""
        self._zygote = zygote
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)

    def serve(self) -> None:
        """Loop until there is neither a supervisor nor a child, nor for long an exit that is still to be told.

        A private server leaves with its one supervisor, and takes its apps with it (``system_calls.of_host``).
        """
        while not (self._retired and not self._children):
            patience = self._patience()
            ready = self._poll.poll(self._timeout(patience))
            now = time.time_ns()
            if patience is not None and not ready and self._patience() == 0:
                if self._private or not self._living:
                    return
                self._give_up()
            # Exits first, since that is their time; a new supervisor last: what the one before it has said holds.
            for fd in sorted((fd for fd, _event in ready), key=self._order):
                self._survive(self._dispatch, fd, now)
            self._survive(self._do_later)

    def _survive(self, action: Callable[..., None], *arguments: int) -> None:
        """Whatever goes wrong: the end of this process would be the loss of every exit."""
        try:
            action(*arguments)
        except Exception as error:
            with contextlib.suppress(OSError):
                os.write(2, f"shimd: fork server of {self._hello.engine}: {error!r}\n".encode())
            time.sleep(_SOON)

    def _patience(self) -> float | None:
        """Seconds left to wait for a supervisor; ``None``: there is one, or only apps that run."""
        if self._supervisor is not None or (self._gave_up and self._living):
            return None
        patience = LINGER if self._private or not self._children else KEEP_EXITS
        return max(0.0, self._since + patience - time.monotonic())

    def _timeout(self, patience: float | None) -> float | None:
        waits = [] if patience is None else [patience]
        if self._unwaited or (self._supervisor is not None and self._supervisor.waits):
            waits.append(_SOON)
        if not self._hears:
            waits.append(_LATER)
        return min(waits, default=None)

    def _order(self, fd: int) -> int:
        if fd in self._living:
            return 0
        if self._supervisor is not None and fd == self._supervisor.fileno():
            return 1
        return 2 if fd in self._guests else 3

    def _dispatch(self, fd: int, now: int) -> None:
        if child := self._living.get(fd):
            self._has_ended(child, now)
        elif self._supervisor is not None and fd == self._supervisor.fileno():
            self._request()
        elif guest := self._guests.get(fd):
            self._introduce(guest)
        elif fd == self._listener.fileno():
            self._accept()

    def _do_later(self) -> None:
        """What could not be done before."""
        for child in [*self._unwaited]:
            self._reap(child)
        self._bury_strays()
        if self._supervisor is not None and self._supervisor.waits:
            try:
                self._supervisor.flush()
            except OSError:
                self._hang_up()
        if not self._hears:
            self._poll.register(self._listener, select.EPOLLIN)
            self._hears = True

    # Supervisors

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except ConnectionError:
            return
        except OSError:  # EMFILE, say: who has connected waits a little
            self._poll.unregister(self._listener)
            self._hears = False
            return
        guest = Connection(sock)
        try:
            if not guest.is_ours:
                raise PermissionError
            self._poll.register(guest, select.EPOLLIN)
            self._guests[guest.fileno()] = guest
            guest.tell(self._hello, lambda: [self._pidfd])
        except OSError:
            self._dismiss(guest)
        if len(self._guests) > _GUESTS:
            self._dismiss(next(iter(self._guests.values())))

    def _dismiss(self, guest: Connection) -> None:
        self._guests.pop(guest.fileno(), None)
        guest.close()  # and with its last descriptor it is polled no more

    def _introduce(self, guest: Connection) -> None:
        """Serve a supervisor, once it has said that it is one, unless another lives."""
        try:
            packet = guest.receive()
        except Full:
            return
        except LostDescriptors:  # a greeting has none
            packet = None
        for fd in packet[1] if packet is not None else ():
            os.close(fd)
        if packet is None or not isinstance(packet[0], Hello):
            self._dismiss(guest)
            return
        self._hear_out()
        if self._supervisor is not None:
            with contextlib.suppress(OSError):
                guest.tell(Refused())
            self._dismiss(guest)
            return
        self._supervisor = self._guests.pop(guest.fileno())
        self._gave_up = False
        self._do(packet[0], [])

    def _hear_out(self) -> None:
        """Do what a supervisor that has gone has asked for before."""
        while self._supervisor is not None and _has_hung_up(self._supervisor) and self._request():
            pass

    def _hang_up(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None
            self._since = time.monotonic()

    def _give_up(self) -> None:
        """Workers that nobody has started would wait for it for ever."""
        self._gave_up = True
        for child in self._living.values():
            child.give_up()

    def _retire(self) -> None:
        """Take nobody new any more, and leave with the last worker."""
        self._retired = True
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _tell(self, message: Event, fds: Callable[[], Sequence[int]] = tuple) -> None:
        """Tell the supervisor, if there is one; what it misses it gets by ``list``."""
        if self._supervisor is None:
            return
        try:
            self._supervisor.tell(message, fds)
        except OSError:
            self._hang_up()

    def _request(self) -> bool:
        """Do the next one; returns whether there may be another."""
        assert self._supervisor is not None
        try:
            packet = self._supervisor.receive()
        except Full:
            return False
        except LostDescriptors as lost:  # a spawn: others come without
            if isinstance(lost.message, Spawn):
                self._fail(lost.message.key, lost)
            return True
        if packet is None:
            self._hang_up()
            return False
        request, fds = packet
        try:
            self._do(request, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fail(self, key: str, error: OSError) -> None:
        told = from_os(error)
        code = Code.UNIMPLEMENTED if error.errno in _PYTHON_CAN else told.code
        self._tell(Failed(key, code, f"fork: {told}"))

    def _do(self, request: Request, fds: list[int]) -> None:
        match request:
            case Hello():
                if request.version != VERSION:  # who is newer has others started for its new apps
                    self._retire()
            case Spawn():
                self._spawn(request, fds)
            case Follow():
                self._follow(request.key, request.pid)
            case Forget():
                self._forget(request.key)
            case End():
                self._end(request.key)
            case List():
                self._list()
            case Ping():
                self._tell(Pong())
                if self._zygote is not None:
                    self._zygote.check()
            case Retire():
                self._retire()
            case _:
                assert_never(request)

    # Children

    def _spawn(self, request: Spawn, fds: list[int]) -> None:
        key = request.key
        if self._retired:
            self._tell(Failed(key, Code.UNAVAILABLE, "the fork server takes no new workers any more"))
            return
        if key in self._children:
            self._tell(Failed(key, Code.ALREADY_EXISTS, f"there is a worker {key} already"))
            return
        try:
            self._watch(self._born(request, fds))
        except OSError as error:
            self._fail(key, error)

    def _born(self, request: Spawn, fds: list[int]) -> Child:
        """:raises OSError: nothing is left of it"""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with theirs:
                pid = self._fork(request, fds, theirs.fileno())
            return self._known(request.key, pid, ours)
        except OSError:
            ours.close()
            raise

    def _known(self, key: str, pid: int, control: socket.socket) -> Child:
        try:
            return Child.of(key, pid, control)
        except OSError:  # it cannot be followed: it is killed, and waited for like a stray
            os.kill(pid, signal.SIGKILL)
            raise

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
                self._zygote.close()
                self._zygote = None
            raise

    def _watch(self, child: Child) -> None:
        """:raises OSError: it cannot be followed, and has been killed"""
        try:
            self._poll.register(child.pidfd, select.EPOLLIN)
        except OSError:
            child.kill()
            child.close()
            raise
        self._children[child.key] = self._living[child.pidfd] = child
        self._tell(child.spawned(), child.fds)

    def _follow(self, key: str, pid: int) -> None:
        """Report an adopted process's exit as a worker's. Its control socket has no other end."""
        ended = self._strays.pop(pid, None)
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError as error:  # a child that is there now comes first: it may have an earlier one's number
            if ended is None:
                message = f"process {pid} is not a child of the fork server: {reason(error)}"
                self._tell(Failed(key, Code.INTERNAL, message))
                return
            child = self._children[key] = Child(key, pid, 0, None, -1, *ended)
            self._tell(child.spawned())
            self._tell(child.exited())
            return
        try:
            control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            other.close()
            try:
                self._watch(Child.of(key, pid, control))
            except OSError:
                control.close()
                raise
        except OSError as error:
            self._fail(key, error)

    def _bury_strays(self) -> None:
        """Wait for adopted processes that nobody follows (yet), and for zygotes; each by its number."""
        while (pid := first_zombie()) is not None:
            if any(child.pid == pid for child in (*self._living.values(), *self._unwaited)):
                break  # one that is followed, and waited for where that is noted
            _pid, status = os.waitpid(pid, 0)
            self._strays[pid] = status, time.time_ns()
        while len(self._strays) > STRAYS:
            del self._strays[next(iter(self._strays))]

    def _become_worker(self, fds: list[int], control: int) -> NoReturn:
        """In the child: nothing of the server may stay reachable, whatever happens."""
        try:
            restore_descriptors()  # first: it may be we who have none left
            received = worker.take(fds, control)
            worker.main(self._engine, received)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(2, f"shimd: worker failed: {error!r}\n".encode())
        finally:
            os._exit(EXIT_FAILED)

    def _has_ended(self, child: Child, now: int) -> None:
        self._poll.unregister(child.pidfd)
        del self._living[child.pidfd]
        child.exited_at = now
        self._unwaited.append(child)
        self._reap(child)

    def _reap(self, child: Child) -> None:
        try:
            if (status := status_of_child(child.pid)) is None:
                return
            self._noted.note(child.pid, child.start, status, child.exited_at)  # first: then we may be killed
            os.waitpid(child.pid, 0)
        except ChildProcessError:  # nobody else may do that
            status = signal.SIGKILL
        self._unwaited.remove(child)
        child.status = status
        child.close()
        self._since = time.monotonic()
        if child.unwanted:
            self._forget(child.key)
        else:
            self._tell(child.exited())

    def _end(self, key: str) -> None:
        child = self._children.get(key)
        if child is not None:
            child.unwanted = True
            child.kill()
            self._forget(key)

    def _forget(self, key: str) -> None:
        child = self._children.get(key)
        if child is not None and child.status is not None:
            del self._children[key]
            self._noted.forget(child.pid, child.start)

    def _list(self) -> None:
        for child in [child for child in self._children.values() if not child.unwanted]:
            if child.status is None:
                self._tell(child.spawned(), child.fds)
            else:
                self._tell(child.exited())
        self._tell(Listed())


def _has_hung_up(connection: Connection) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


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


def main() -> None:
    worker.prepare_signals()
    raise_descriptors()
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    engine = load_engine(sys.argv[1])
    engine.warm()
    listener = socket.socket(fileno=LISTEN_FD)
    listener.listen()  # once more, so that SO_PEERCRED tells our pid, not our parent's
    hello = Hello(VERSION, sys.argv[1], sys.argv[2], release.own() if release.is_whole() else "")
    zygote = _zygote(engine)
    if zygote is None and isinstance(engine, PacksApplications):
        engine.load_part()
    server = ForkServer(engine, listener, hello, private="private" in sys.argv[3:], zygote=zygote)
    # What exists now is shared with every worker: keep the collector from writing to it.
    gc.collect()
    gc.freeze()
    gc.disable()
    server.serve()


if __name__ == "__main__":
    main()
