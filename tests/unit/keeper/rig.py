"""A keeper as a process of its own, and supervisors that say to it what they like."""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shimd.keeper import program
from shimd.linux.memory_file import memory_file
from shimd.protocol.keeper import MAX_SIZE, RESTARTS, VERSION, Kind, Packet, decode, encode, encode_command
from shimd.supervisor.recovery.keeper_link import launch

#: Seconds until what a test waits for counts as hanging.
PATIENCE = 20.0
#: Descriptors of a keeper: 0 to 2, where it listens, three to spare, and one connection.
_AT_FIRST = 8


class Supervisor:
    """A connection to a keeper; blocking."""

    def __init__(self, path: Path, hello: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        self.exits: dict[int, Packet] = {}
        """Told, and not asked for."""
        self.sock.connect(str(path))
        if hello:
            assert self.hello().kind is Kind.HELLO

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def hello(self, command: Sequence[int] = (), version: int = VERSION) -> Packet:
        self.say(Kind.HELLO, version, RESTARTS if command else 0, fds=command)
        return self.hear()[0]

    def say(self, kind: Kind, *numbers: int, id: int = 0, name: str = "", fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.sock, [encode(Packet(kind, id, numbers, name))], fds)

    def hear(self) -> tuple[Packet, list[int]]:
        """:raises EOFError: the keeper has ended the connection"""
        data, fds, _, _ = socket.recv_fds(self.sock, MAX_SIZE, 253)
        if not data:
            raise EOFError
        return decode(data), fds

    def expect(self, kind: Kind) -> Packet:
        packet, fds = self.hear()
        for fd in fds:
            os.close(fd)
        assert packet.kind is kind, packet
        return packet

    def list(self) -> tuple[dict[str, list[int]], list[Packet]]:
        """All names with their descriptors, and all exits; after that all that was sent before is done."""
        names: dict[str, list[int]] = {}
        exits: list[Packet] = []
        self.say(Kind.LIST)
        while True:
            packet, fds = self.hear()
            if packet.kind is Kind.LISTED:
                return names, exits
            if packet.kind is Kind.KEPT:
                names[packet.name] = fds
            else:
                exits.append(packet)

    def names(self) -> set[str]:
        names, _ = self.list()
        close(names)
        return set(names)

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, fds: Mapping[int, int] | None = None
    ) -> Packet:
        """What is answered to a request for a child."""
        file = command(argv, env or {}, list(fds or {}))
        self.say(Kind.SPAWN, id=7, fds=[file, *(fds or {}).values()])
        os.close(file)
        while (answer := self.hear()[0]).kind is Kind.EXITED:
            self.exits[answer.numbers[0]] = answer
        assert answer.id == 7
        return answer

    def exit_of(self, pid: int) -> Packet:
        """Wait until it is told."""
        while pid not in self.exits:
            packet = self.expect(Kind.EXITED)
            self.exits[packet.numbers[0]] = packet
        return self.exits.pop(pid)

    def run(self, script: str) -> tuple[int, int]:
        """Start a shell, by pid and start time."""
        answer = self.spawn(["/bin/sh", "-c", script])
        assert answer.kind is Kind.SPAWNED, answer
        return answer.numbers[0], answer.numbers[1]


class Process:
    """A keeper that runs, with a first connection, of nobody's, which keeps it from ending."""

    def __init__(self, directory: Path) -> None:
        found = program()
        assert found is not None
        self.path = directory / "keeper.sock"
        sock, self.pid = launch(self.path, found)
        self.first = sock
        until(lambda: self.open() == _AT_FIRST, "the keeper to be ready")
        self._status: int | None = None

    def connect(self, hello: bool = True) -> Supervisor:
        return Supervisor(self.path, hello)

    def ended(self) -> bool:
        """Whether it has; with 0."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status == 0

    def open(self) -> int:
        """The number of its descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def end(self) -> None:
        """With what it has started."""
        self.first.close()
        if not self.ended():
            for _ in range(10):  # who is started again and again
                for pid in self.children():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def command(argv: Sequence[str], env: Mapping[str, str], targets: Sequence[int]) -> int:
    return memory_file("command", encode_command(argv, env, targets))


def close(names: Mapping[str, Sequence[int]]) -> None:
    for fds in names.values():
        for fd in fds:
            os.close(fd)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """A zombie is none: a test's process has several supervisors' lives, and waits for nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
