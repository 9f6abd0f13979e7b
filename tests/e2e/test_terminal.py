"""``ctr run --tty`` on a real pseudo-terminal."""

import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.e2e.box import Attached, Box, until, wasm_only, with_directories


class Terminal:
    """The terminal that ``ctr`` is run on; ``seen`` is all that it has shown."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        settings = termios.tcgetattr(self.slave)
        settings[1] &= ~termios.ONLCR  # ctr leaves it on: lines would end in two carriage returns
        termios.tcsetattr(self.slave, termios.TCSANOW, settings)
        os.set_blocking(self.master, False)
        self.seen = ""

    def read(self) -> str:
        with suppress(OSError):  # nothing new
            self.seen += os.read(self.master, 65536).decode()
        return self.seen

    def expect(self, text: str) -> None:
        until(lambda: text in self.read(), f"{text!r} on the terminal")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(box: Box) -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def run(box: Box, terminal: Terminal, *app: object) -> Attached:
    slave = terminal.slave
    return box.run_attached(
        "app", *app, flags=("--rm", "--tty"), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )


def size(pid: int) -> tuple[int, int]:
    """(rows, columns) of a process's terminal."""
    fd = os.open(f"/proc/{pid}/fd/0", os.O_RDWR | os.O_NOCTTY)
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
        return rows, columns
    finally:
        os.close(fd)


def test_is_a_terminal(box: Box, terminal: Terminal) -> None:
    client = run(box, terminal, "isatty")
    terminal.expect("tty\r\n")
    assert client.wait(60) == 0
    assert "no tty" not in terminal.read()


@with_directories  # wasmer-sdk shows every stream as a terminal
def test_no_terminal_without_the_flag(box: Box) -> None:
    assert box.run("app", "isatty").out == "no tty\n"


def test_what_is_typed_comes_in(box: Box, terminal: Terminal) -> None:
    client = run(box, terminal, "cat")
    box.wait_status("app", "RUNNING")
    terminal.type("typed\n\x04")
    terminal.expect("typed\r\ntyped\r\n")  # echoed, then written
    assert client.wait(60) == 0


def test_exit_code(box: Box, terminal: Terminal) -> None:
    assert run(box, terminal, "exit", 7).wait(60) == 7


def test_resize(box: Box, terminal: Terminal) -> None:
    terminal.resize(24, 80)
    client = run(box, terminal, "sleep", 600)
    terminal.expect("sleeping")
    until(lambda: size(box.pid("app")) == (24, 80), "the first size")
    terminal.resize(50, 132)
    client.send_signal(signal.SIGWINCH)
    until(lambda: size(box.pid("app")) == (50, 132), "the new size")


@wasm_only
@pytest.mark.parametrize("command", ["sleep", "spin"])
def test_control_c(box: Box, terminal: Terminal, command: str) -> None:
    client = run(box, terminal, command, 600)
    terminal.expect("ing\r\n")
    terminal.type("\x03")
    assert client.wait(60) == 130


def test_exec_on_a_terminal(box: Box, terminal: Terminal) -> None:
    box.detach("app", "sleep", 600)
    slave = terminal.slave
    command = ("tasks", "exec", "--tty", "--exec-id", "e", "app", box.runtime.program, "isatty")
    client = box.popen(*command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    terminal.expect("tty\r\n")
    assert client.wait(60) == 0
    assert "no tty" not in terminal.read()
