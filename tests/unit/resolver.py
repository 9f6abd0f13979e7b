"""A network of one's own with a name server that may answer otherwise each time: the C library's resolver asks it."""

import fcntl
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shimd.linux import libc
from tests.unit.inside import inside

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_A = 1


def with_names(answers: Mapping[str, Sequence[Sequence[str]]], action: Callable[["NameServer"], object]) -> str:
    """What ``action`` returns where names lead to those addresses: the first time to the first, and so on.

    The last of them are the answer from then on.
    """

    def act() -> object:
        libc.unshare(libc.CLONE_NEWNET)
        _bring_up("lo")
        with tempfile.NamedTemporaryFile("w") as resolver, tempfile.NamedTemporaryFile("w") as switch:
            for file, text, path in (
                (resolver, "nameserver 127.0.0.1\noptions attempts:1\n", "/etc/resolv.conf"),
                (switch, "hosts: dns\n", "/etc/nsswitch.conf"),
            ):
                file.write(text)
                file.flush()
                if Path(path).exists():
                    libc.mount(file.name, str(Path(path).resolve()), None, libc.MS_BIND)
            return action(NameServer(answers))

    return inside(act)


class NameServer:
    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        """The names whose addresses of IPv4 were asked for."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name, (kind,) = ".".join(labels), struct.unpack_from("!H", query, at + 1)
        addresses: Sequence[str] = ()
        if kind == _A and name in self._answers:
            turn = min(self.asked.count(name), len(self._answers[name]) - 1)
            addresses = self._answers[name][turn]
            self.asked.append(name)
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(addresses), 0, 0)
        records = [struct.pack("!HHHIH", 0xC00C, _A, 1, 0, 4) + socket.inet_aton(address) for address in addresses]
        return header + query[12 : at + 5] + b"".join(records)


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", interface.encode(), 0).ljust(40, b"\0")
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(
            any_socket, _SIOCSIFFLAGS, struct.pack("16sh", interface.encode(), flags | _IFF_UP).ljust(40, b"\0")
        )
