"""Every command where it cannot do what it should: one sentence on stderr, the documented exit code, no traceback."""

import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shimd.cli.commands import cli
from tests.e2e import leftovers
from tests.e2e.containerd import LAUNCHERS, PATIENCE

NOBODY = 65534
Done = subprocess.CompletedProcess[str]
#: All that there are: one that is new is in every test here.
COMMANDS = list(cli.commands)
#: Those that ask the daemon and do nothing without it.
ASKING = ["status", "ps", "events", "logs"]
#: Those that change the machine.
CHANGING = ["install", "upgrade", "stop", "uninstall"]
#: The exit codes that each may have.
DOCUMENTED = {
    found["command"]: found["codes"].split(", ")
    for found in re.finditer(
        r"^\| `shimd (?P<command>\w+)` \|[^|]*\| (?P<codes>[^|]*) \|$",
        Path(__file__).parents[2].joinpath("docs/commands.md").read_text(),
        re.MULTILINE,
    )
}
FAILED, WRONG_ARGUMENTS, NO_DAEMON, NOT_RUN = 1, 2, 3, 125


@dataclass
class Place:
    """Directories for one command, and what it is called with; the machine's own stay as they are."""

    path: Path
    user: int = 0
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.chmod(0o755)
        for name in ("node", "bin", "tmp"):
            (self.path / name).mkdir()
        (self.path / "tmp").chmod(0o1777)
        (self.path / "app.wat").write_text('(module (func (export "_start")))')
        self.env |= {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/nonexistent",
            "TMPDIR": str(self.path / "tmp"),
            "CONTAINERD_ADDRESS": str(self.path / "no-containerd.sock"),
            **{f"SHIMD_{kind}_DIR": str(self.path / kind) for kind in ("RUNTIME", "STATE", "CACHE")},
        }

    @property
    def directories(self) -> list[Path]:
        return [Path(self.env[f"SHIMD_{kind}_DIR"]) for kind in ("RUNTIME", "STATE", "CACHE")]

    def arguments(self, command: str) -> list[str]:
        needed = {
            "run": [str(self.path / "app.wat")],
            "install": ["--root", str(self.path / "node")],
            "uninstall": ["--root", str(self.path / "node")],
            "upgrade": ["--bin-dir", str(self.path / "bin"), "--config", str(self.path / "config.toml")],
        }
        return needed.get(command, [])

    def __call__(self, command: str, *arguments: str) -> Done:
        """A command's end; that of a daemon which serves is asked for."""
        words = [str(LAUNCHERS / "shimd"), command, *(arguments or self.arguments(command))]
        with subprocess.Popen(
            words,
            env=self.env,
            cwd="/",
            user=self.user,
            group=self.user,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            pid = Path(self.env["SHIMD_RUNTIME_DIR"], "shimd.pid")
            while command == "serve" and process.poll() is None and not pid.exists():
                time.sleep(0.05)
            if command == "serve":
                process.terminate()
            said, complained = process.communicate(timeout=PATIENCE)
        return Done(words, process.returncode, said, complained)


Situation = Callable[[Place], None]


def _nobody(place: Place) -> None:
    place.user = NOBODY


def _roots(place: Place) -> None:
    _nobody(place)
    for directory in place.directories:
        directory.mkdir(mode=0o700)


def _somebody_elses(place: Place) -> None:
    for directory in place.directories:
        directory.mkdir(mode=0o700)
        os.chown(directory, NOBODY, NOBODY)


def _files(place: Place) -> None:
    for directory in place.directories:
        directory.write_text("")


def _in_a_file(place: Place) -> None:
    (place.path / "file").write_text("")
    for kind in ("RUNTIME", "STATE", "CACHE"):
        place.env[f"SHIMD_{kind}_DIR"] = str(place.path / "file" / kind)


def _too_long(place: Place) -> None:
    place.env["SHIMD_RUNTIME_DIR"] = str(place.path / ("long" * 40))


def _no_number(place: Place) -> None:
    place.env["SHIMD_CACHE_SIZE"] = "1 GiB"


#: What each is, and the exit codes of the commands that it concerns: the others do their work, and say nothing.
SITUATIONS: list[tuple[Situation, dict[str, int]]] = [
    (
        _nobody,
        {**dict.fromkeys(ASKING, NO_DAEMON), "run": NOT_RUN, **dict.fromkeys(["serve", *CHANGING], FAILED)},
    ),
    (_roots, {**dict.fromkeys(ASKING, NO_DAEMON), "run": NOT_RUN, **dict.fromkeys(["serve", *CHANGING], FAILED)}),
    (_somebody_elses, {**dict.fromkeys(ASKING, NO_DAEMON), "serve": FAILED}),
    (_files, {**dict.fromkeys(ASKING, NO_DAEMON), "serve": FAILED, "run": NOT_RUN}),
    (_in_a_file, {**dict.fromkeys(ASKING, NO_DAEMON), "serve": FAILED, "run": NOT_RUN}),
    (_too_long, {**dict.fromkeys(ASKING, NO_DAEMON), "serve": FAILED}),
    (_no_number, {**dict.fromkeys(ASKING, NO_DAEMON), "serve": FAILED, "run": NOT_RUN}),
]


@contextmanager
def new_place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as directory:  # short: sockets are in it
        place = Place(Path(directory))
        yield place
        assert not leftovers.processes_of(place.path)


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as place:
        yield place


def check(done: Done, code: int) -> None:
    """One sentence of a command that failed, and no complaint by one that did not, or has said all on stdout."""
    where = (done.args, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr, where
    assert done.returncode == code, where
    assert str(code) in DOCUMENTED[done.args[1]] or (done.args[1], code) == ("run", 0), where
    complaints = done.stderr.splitlines()
    if done.args[1] == "serve":
        complaints = [line for line in complaints if " INFO " not in line]
    elif code == 0:  # a note
        complaints = [line for line in complaints if "was not checked" not in line and line not in NOTHING]
    silent = code == 0 or (done.args[1], code) == ("doctor", FAILED)
    assert len(complaints) == (0 if silent else 1), where
    for line in complaints:
        assert line.startswith("shimd: ") or (done.args[1] == "serve" and " ERROR " in line), where


#: What there is to say of no tasks and no events.
NOTHING = ["no tasks are running", "no events yet"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("situation", "codes"), SITUATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_sentence(place: Place, situation: Situation, codes: dict[str, int], command: str) -> None:
    situation(place)
    if place.user and command in ("install", "uninstall"):  # below / they are root's, whoever may write there
        done = place(command, "--config", str(place.path / "config.toml"), "--bin-dir", str(place.path / "bin"))
        assert f"sudo shimd {command}" in done.stderr
    else:
        done = place(command)
    check(done, codes.get(command, FAILED if command == "doctor" else 0))


@pytest.mark.parametrize("command", COMMANDS)
def test_read_only(place: Place, command: str) -> None:
    read_only = place.path / "read-only"
    read_only.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", read_only], check=True)
    try:
        place.env |= {f"SHIMD_{kind}_DIR": str(read_only / kind) for kind in ("RUNTIME", "STATE", "CACHE")}
        done = place(command)
    finally:
        subprocess.run(["umount", read_only], check=True)
    codes = {**dict.fromkeys(ASKING, NO_DAEMON), "serve": FAILED, "run": NOT_RUN, "doctor": FAILED}
    check(done, codes.get(command, 0))
    if command in ("serve", "run"):
        assert "have that file system mounted writable, or name another directory by SHIMD_" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("arguments", [["--no-such-option"], ["x", "y", "--z"]], ids=str)
def test_wrong_arguments(place: Place, command: str, arguments: list[str]) -> None:
    done = place(command, *arguments)
    if command == "run":  # a program's name, and its own arguments
        check(done, 127)
    else:
        check(done, WRONG_ARGUMENTS)
        assert done.stderr.endswith(f"; try: shimd {command} --help\n")


def test_all_are_documented() -> None:
    assert list(DOCUMENTED) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help(place: Place, command: str) -> None:
    """Without root, directories or a daemon."""
    place.user = NOBODY
    done = place(command, "--help")
    check(done, 0)
    assert done.stdout.startswith(f"Usage: shimd {command}")


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["run"], ["ps", "extra"], ["logs", "--tail", "many"], ["install", "--root", "/nowhere"]],
    ids=" ".join,
)
def test_other_wrong_arguments(place: Place, words: list[str]) -> None:
    done = subprocess.run([LAUNCHERS / "shimd", *words], env=place.env, capture_output=True, text=True)
    assert done.returncode == WRONG_ARGUMENTS and done.stdout == ""
    assert done.stderr.startswith("shimd: ") and done.stderr.count("\n") == 1 and "--help" in done.stderr


def test_a_second_daemon(place: Place) -> None:
    """Its exit code is one that systemd does not answer with another start."""
    with subprocess.Popen([LAUNCHERS / "shimd", "serve"], env=place.env, stderr=subprocess.DEVNULL) as first:
        try:
            while not (place.directories[0] / "shimd.pid").exists():
                time.sleep(0.05)
            second = subprocess.run([LAUNCHERS / "shimd", "serve"], env=place.env, capture_output=True, text=True)
        finally:
            first.terminate()
    assert (second.returncode, second.stderr.count("\n")) == (3, 1)
    assert second.stderr.endswith(f"pid {first.pid}: end that one first\n")


def test_a_log_level_that_there_is_not(place: Place) -> None:
    place.env["SHIMD_LOG"] = "verbose"
    done = place("serve")
    assert done.returncode == 0
    assert "there is no level VERBOSE (SHIMD_LOG)" in done.stderr.splitlines()[0]


def test_no_command(place: Place) -> None:
    done = subprocess.run([LAUNCHERS / "shimd"], env=place.env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (WRONG_ARGUMENTS, "")
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)


def test_a_full_disk(place: Place) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [LAUNCHERS / "shimd", "stop"], env=place.env, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (FAILED, "shimd: no space left on device: make room there\n")


# What listens at the status socket is not shimd's


def _talks(connection: socket.socket) -> None:
    connection.sendall(b"220 mail.example.org ESMTP\r\n" * 10)


def _says_little(connection: socket.socket) -> None:
    connection.sendall(b"220")
    connection.close()


def _hangs_up(connection: socket.socket) -> None:
    connection.close()


def _says_nothing(connection: socket.socket) -> None:
    """And keeps it open."""


@contextmanager
def stranger(place: Place, behaves: Callable[[socket.socket], None]) -> Iterator[None]:
    place.directories[0].mkdir(mode=0o700)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(place.directories[0] / "status.sock"))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection = stack.enter_context(listener.accept()[0])
                except OSError:  # the end of the test
                    return
                behaves(connection)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("behaves", [_talks, _says_little, _hangs_up, _says_nothing])
def test_a_socket_that_is_not_ours(behaves: Callable[[socket.socket], None]) -> None:
    """All commands at once: one that says nothing is waited for a while. The daemon takes the socket's place."""

    def done(command: str) -> Done:
        with new_place() as place, stranger(place, behaves):
            return place(command)

    with ThreadPoolExecutor(4) as pool:
        for command, found in zip(COMMANDS, pool.map(done, COMMANDS), strict=True):
            check(found, FAILED if command in (*ASKING, "doctor") else 0)
            if command in ASKING:
                assert f"pid {os.getpid()}" in found.stderr
