"""systemd that does not answer, or not now: nobody waits for it for ever, and nothing is kept for its sake."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, Message, Parser, new_method_return, new_signal

from shimd.cgroup.systemd import connection, scope
from shimd.cgroup.systemd.connection import Manager
from shimd.cgroup.systemd.scope import Scope
from shimd.errors import FailedPrecondition

_MANAGER = DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")


class Systemd:
    """As much of it as is asked, at its own socket."""

    def __init__(self, path: Path) -> None:
        self.answers = True
        self.stopped: list[str] = []
        self._path, self._serial = path, 0
        self._connections: list[socket.socket] = []

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for sock in (self._listener, *self._connections):
            sock.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _address = self._listener.accept()
                self._connections.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            said = b""
            while b"BEGIN\r\n" not in said:
                said += sock.recv(4096)
                if b"AUTH" in said and b"BEGIN" not in said:
                    sock.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
                    said = b""
            parser = Parser()
            parser.add_data(said.split(b"BEGIN\r\n", 1)[1])
            while True:
                while (message := parser.get_next_message()) is not None:
                    self._answer(sock, message)
                data = sock.recv(65536)
                if not data:
                    return
                parser.add_data(data)

    def _answer(self, sock: socket.socket, message: Message) -> None:
        if not self.answers:
            return
        member = message.header.fields.get(HeaderFields.member)
        if member != "StopUnit":
            self._send(sock, new_method_return(message))
            return
        self._send(sock, new_method_return(message, "o", ("/job/1",)))
        self._send(sock, new_signal(_MANAGER, "JobRemoved", "uoss", (1, "/job/1", message.body[0], "done")))
        self.stopped.append(message.body[0])

    def _send(self, sock: socket.socket, message: Message) -> None:
        self._serial += 1
        sock.sendall(message.serialise(serial=self._serial))


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    monkeypatch.setattr(connection, "_BUS", str(tmp_path / "bus"))
    monkeypatch.setattr(connection, "_PRIVATE", str(tmp_path / "private"))
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
    monkeypatch.setattr(scope, "_manager", Manager())
    monkeypatch.setattr(scope, "_AGAIN", 0.05)
    systemd = Systemd(tmp_path / "private")
    systemd.start()
    yield systemd
    systemd.end()


def test_no_answer_is_an_error_for_all_who_wait(systemd: Systemd) -> None:
    systemd.answers = False
    errors: list[str] = []
    manager = Manager()

    def ask() -> None:
        with pytest.raises(FailedPrecondition) as error:
            manager.call("SetUnitProperties", "")
        errors.append(str(error.value))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 5
    assert all("systemd does not answer at " in error for error in errors)
    systemd.answers = True
    assert manager.call("SetUnitProperties", "") == ()


def test_a_connection_that_was_closed_is_made_anew(systemd: Systemd) -> None:
    manager = Manager()
    manager.call("SetUnitProperties", "")
    systemd.end()
    with pytest.raises(FailedPrecondition):
        manager.call("SetUnitProperties", "")
    systemd.start()
    assert manager.call("SetUnitProperties", "") == ()


def test_a_scope_is_stopped_as_soon_as_systemd_answers(systemd: Systemd) -> None:
    systemd.end()
    Scope("one.scope", 2).stop()
    Scope("two.scope", 2).stop()
    assert scope._left == ["one.scope", "two.scope"]
    systemd.start()
    deadline = threading.Event()
    for _ in range(600):
        if systemd.stopped == ["one.scope", "two.scope"] and not scope._left:
            break
        deadline.wait(0.05)
    assert systemd.stopped == ["one.scope", "two.scope"]


def test_a_stand_in_that_is_frozen_holds_nobody_up(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "_STAND_IN", 0.1)
    one = Scope("one.scope", 2)
    stand_in = one._stand_in = subprocess.Popen(["sh", "-c", "exec sleep 600"], stdin=subprocess.PIPE)
    one.release()
    assert stand_in.wait(30) == -9
