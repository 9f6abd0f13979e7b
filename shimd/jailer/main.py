"""The jailer: makes the jails of containers, one after the other, in a process of its own.

It goes into new namespaces, mounts there, hands descriptors of it all to the supervisor, and comes back. Nothing of a
jail is left in it, nor on the node: what nobody steps into is gone with its last descriptor. A worker then only has to
step in, so it needs neither the memory nor the time that making it takes.

Run as ``python -I -m shimd.jailer.main`` with a socket at ``LISTEN_FD``, whose end is its own; its protocol is
:mod:`shimd.protocol.jailer`. It works with single requests and may hang in one, on a volume that does not answer: the
supervisor has another then (:mod:`shimd.supervisor.workers.jailers`).
"""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from shimd.errors import Internal, ShimdError, from_os
from shimd.formats.digest import small_digest
from shimd.formats.magic import is_native
from shimd.isolation.namespaces import known
from shimd.jailer.jail import Jail, find_jail, make_jail
from shimd.linux import libc
from shimd.linux.memory_file import memory_file
from shimd.protocol.constants import LISTEN_FD
from shimd.protocol.jailer import Finished, Made, Make, decode_request
from shimd.protocol.packets import read_message, receive, send
from shimd.protocol.plans import JoinJail, decode_jail_plan
from shimd.protocol.worker import Error
from shimd.seal import seal

#: Namespaces that it goes to and comes back from; the mount namespace last.
_KINDS = ("network", "ipc", "uts", "time", "mount")


class Home:
    """The namespaces in which this process started."""

    def __init__(self) -> None:
        kinds = [(flag, f"/proc/self/ns/{name}") for flag, name in map(known, _KINDS)]
        # A kernel before 5.6 has no time namespaces.
        self._fds = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag) for flag, path in kinds if os.path.exists(path)]
        self._end = max(fd for fd, _flag in self._fds) + 1

    def go(self) -> None:
        """Or end, if there is no way back: the next jail must not be made from within this one."""
        try:
            for fd, flag in self._fds:
                libc.setns(fd, flag)
            os.chdir("/")
        except OSError:
            os._exit(1)

    def close_all_else(self) -> None:
        """Nothing of a request stays open, whatever became of it: a descriptor would hold a jail."""
        os.closerange(self._end, 1 << 30)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the supervisor's
    sock = socket.socket(fileno=LISTEN_FD)
    home = Home()
    seal("the jailer's start")
    with suppress(ConnectionError):  # the supervisor has ended in the middle of a request
        while _next(sock, home):
            home.close_all_else()


def _next(sock: socket.socket, home: Home) -> bool:
    """Do what is asked for next, if anything still is; what this process is short of is that request's error."""
    try:
        packet = receive(sock, decode_request)
        if packet is None:
            return False
        request, fds = packet
        if isinstance(request, Make):
            _answer(sock, home, request, fds)
    except ConnectionError:
        raise
    except OSError as error:
        told = from_os(error)
        send(sock, Error(int(told.code), str(told)))
    return True


def _answer(sock: socket.socket, home: Home, request: Make, fds: list[int]) -> None:
    held = False

    def hold(jail: Jail) -> None:
        nonlocal held
        held = True
        _hand_over(sock, jail, held)
        if receive(sock, decode_request) is None:
            os._exit(0)

    try:
        jail = _make(home, request, fds, hold)
    except ShimdError as error:
        send(sock, Error(int(error.code), str(error)))
        return
    if held:
        send(sock, Finished())
    else:
        _hand_over(sock, jail, held)


def _hand_over(sock: socket.socket, jail: Jail, held: bool) -> None:
    path, file, missing = jail.program
    program = [] if file is None else [file]
    calls = memory_file("shimd-calls", jail.calls.packed())
    made = Made(path, bool(program), missing, _digest(file), jail.listening, held)
    send(sock, made, [calls, *jail.fds, *program])


def _digest(file: int | None) -> str:
    """Of a program for an engine. On a volume that hangs this process may hang; the supervisor must not."""
    try:
        return "" if file is None or is_native(file) else small_digest(file)
    except OSError:  # who reads it next says what is wrong
        return ""


def _make(home: Home, request: Make, fds: list[int], hold: Callable[[Jail], None]) -> Jail:
    try:
        plan = read_message(fds[0], decode_jail_plan)
        if isinstance(plan, JoinJail):
            return find_jail(plan)
        try:
            return make_jail(plan, fds[1] if request.terminal else None, hold)
        finally:
            home.go()
    except ShimdError:
        raise
    except OSError as error:
        raise from_os(error) from error
    except Exception as error:  # a bug of ours must be seen by who waits for this app
        raise Internal(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
