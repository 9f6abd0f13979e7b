"""``start``: with a daemon, without one, and with one that misbehaves."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from shimd.launcher import launcher as in_python
from shimd.supervisor import serve
from tests.unit.launcher.launcher_rig import FLAGS, Launcher, install_standin, wait_dead

ADDRESS = b"unix:///run/shimd/s/wasmer.sock"


def failure(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The sentence of a failed call, without the program's name before it."""
    assert done.returncode == 1
    assert done.stdout == b""
    name, _, sentence = done.stderr.decode().partition(": ")
    assert name == "containerd-shim-wasmer-v1"
    return sentence


def test_prints_the_address_only_and_leaves_it_in_the_bundle(launcher: Launcher) -> None:
    for _ in range(2):
        done = launcher.start()
        assert (done.returncode, done.stdout, done.stderr) == (0, ADDRESS, b"")
    assert (launcher.bundle / "address").read_bytes() == ADDRESS
    assert os.listdir(launcher.bundle) == ["address"]
    assert len(launcher.daemons()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [*FLAGS, "-id", "web", "start"],  # containerd 1.6, 1.7 and 2
        [*FLAGS, "-id", "web", "-debug", "start"],
        ["-namespace=k8s.io", "-address=/run/containerd/containerd.sock", "--id", "web", "-debug=true", "--", "start"],
        ["--namespace", "k8s.io", "-id=web", "-socket", "", "-debug-socket=x", "start", "-namespace", "ignored"],
    ],
)
def test_request(launcher: Launcher, arguments: list[str]) -> None:
    launcher.start()
    done = launcher.call(*arguments)
    assert done.stdout == ADDRESS, done.stderr
    fields = (launcher.runtime / "request").read_bytes().split(b"\0")
    assert fields == [
        b"start",
        b"wasmer",
        b"k8s.io",
        b"/run/containerd/containerd.sock.ttrpc",
        b"/run/containerd/containerd.sock",
        b"web",
        str(launcher.bundle).encode(),
        b"",
    ]


def test_addresses_without_environment(launcher: Launcher) -> None:
    launcher.env = {"TTRPC_ADDRESS": "", "GRPC_ADDRESS": ""}
    assert launcher.call("-namespace", "n", "-id", "web", "-address", "/c.sock", "start").stdout == ADDRESS
    assert (launcher.runtime / "request").read_bytes().split(b"\0")[3:5] == [b"/c.sock.ttrpc", b"/c.sock"]


def test_bundle_flag(launcher: Launcher, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert launcher.call(*FLAGS, "-id", "web", "-bundle", str(other), "start").stdout == ADDRESS
    assert (other / "address").read_bytes() == ADDRESS


def test_unread_stdin_does_no_harm(launcher: Launcher) -> None:
    done = subprocess.run(
        [launcher.program, *FLAGS, "-id", "web", "start"],
        input=b"\n\x03web" * 10_000,
        cwd=launcher.bundle,
        env=launcher.environ(),
        capture_output=True,
        check=False,
    )
    assert done.stdout == ADDRESS


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-id", "web", "start"], "the flag -namespace is missing"),
        (["-namespace", "", "-id", "web", "start"], "the flag -namespace is missing"),
        (["-namespace", "n", "start"], "the flag -id is missing"),
        ([], "the action is missing"),
        (["-namespace", "n", "-id"], "the action is missing"),
        (["-namespace", "n", "-id", "web", "restart"], "the action must be start or delete, not 'restart'"),
        (["-what", "n", "start"], "unknown flag -what"),
    ],
)
def test_wrong_arguments(launcher: Launcher, arguments: list[str], sentence: str) -> None:
    assert failure(launcher.call(*arguments)) == sentence


def test_daemon_is_detached(launcher: Launcher) -> None:
    launcher.env = {"OTEL_SERVICE_NAME": "shimd", "INVOCATION_ID": "containerd's", "SHIMD_STATE_DIR": "/some/where"}
    launcher.start()
    process = json.loads((launcher.runtime / "process").read_text())
    assert process["argv"] == ["serve"]
    assert process["cwd"] == "/"
    assert process["session"] == process["pid"]
    assert process["umask"] == 0o022
    assert process["fds"] == {"0": "/dev/null", **dict.fromkeys("12", str(launcher.runtime / "shimd.log"))}
    assert process["more_fds"] == []
    assert process["env"] | {"LC_CTYPE": ""} == {
        "LC_CTYPE": "",  # Python's own
        "NOTIFY_SOCKET": str(launcher.runtime / "notify.sock"),
        "OTEL_SERVICE_NAME": "shimd",
        "PATH": os.environ["PATH"],
        "SHIMD_LAUNCH_TIMEOUT": "5",
        "SHIMD_RUNTIME_DIR": str(launcher.runtime),
        "SHIMD_STATE_DIR": "/some/where",
    }
    assert launcher.runtime.stat().st_mode & 0o777 == 0o700
    assert not (launcher.runtime / "notify.sock").exists()


def test_inherited_descriptors_do_not_reach_the_daemon(launcher: Launcher) -> None:
    read, write = os.pipe()
    with open(read, "rb") as reader:
        subprocess.run(
            [launcher.program, *FLAGS, "-id", "web", "start"],
            cwd=launcher.bundle,
            env=launcher.environ(),
            capture_output=True,
            pass_fds=[write],
            check=True,
        )
        os.close(write)
        assert reader.read() == b""  # blocks for ever if the daemon holds the other end


def test_twenty_at_once_start_one(launcher: Launcher, tmp_path: Path) -> None:
    processes = []
    for n in range(20):
        launcher.bundle = tmp_path / f"web{n}"
        launcher.bundle.mkdir()
        processes.append(launcher.popen(*FLAGS, "-id", f"web{n}", "start"))
    assert [process.communicate(timeout=60) for process in processes] == [(ADDRESS, b"")] * 20
    assert len(launcher.daemons()) == 1


def test_daemon_killed_leaves_a_stale_socket(launcher: Launcher) -> None:
    launcher.start()
    os.kill(launcher.daemons()[0], signal.SIGKILL)
    wait_dead(launcher.daemons()[0])
    assert (launcher.runtime / "launch.sock").exists()
    assert launcher.start().stdout == ADDRESS
    assert len(launcher.daemons()) == 2
    assert (launcher.runtime / "shimd.log.1").read_text() == "ready\n"


def test_program_found_through_links(launcher: Launcher, tmp_path: Path) -> None:
    usr, far = tmp_path / "usr", tmp_path / "far"
    usr.mkdir()
    far.mkdir()
    (far / "second").symlink_to(launcher.program)
    (usr / "containerd-shim-wasmtime-v1").symlink_to("../far/second")
    launcher.program = usr / "containerd-shim-wasmtime-v1"
    done = launcher.start()
    assert (done.stdout, done.stderr) == (b"unix:///run/shimd/s/wasmtime.sock", b"")


def test_no_daemon_installed(launcher: Launcher, tmp_path: Path) -> None:
    lonely = copy_of(launcher, tmp_path)
    (lonely / "shimd").unlink()
    assert failure(launcher.start()) == f"shimd does not run, and there is no {lonely}/shimd to start it"


def test_daemon_cannot_be_executed(launcher: Launcher, tmp_path: Path) -> None:
    broken = copy_of(launcher, tmp_path) / "shimd"
    broken.write_text("#!/no/such/python\n")
    sentence = failure(launcher.start())
    assert sentence == f"shimd ended while starting: cannot run {broken}: No such file or directory"


@pytest.mark.parametrize(("mode", "reason"), [("die", "boom: no such engine"), ("die silently", "it said nothing")])
def test_daemon_dies_at_start(launcher: Launcher, mode: str, reason: str) -> None:
    launcher.env = {"SHIMD_STANDIN": mode}
    assert failure(launcher.start()) == f"shimd ended while starting: {reason}"
    launcher.env = {}
    assert launcher.start().stdout == ADDRESS


def test_daemon_never_gets_ready(launcher: Launcher) -> None:
    launcher.env = {"SHIMD_STANDIN": "never ready", "SHIMD_LAUNCH_TIMEOUT": "1"}
    log = launcher.runtime / "shimd.log"
    assert failure(launcher.start()) == f"shimd was not ready within 3 s (its log is {log})"
    wait_dead(launcher.daemons()[0])


def test_daemon_hangs(launcher: Launcher) -> None:
    launcher.start()
    launcher.env = {"SHIMD_LAUNCH_TIMEOUT": "1"}
    os.kill(launcher.daemons()[0], signal.SIGSTOP)
    socket_file = launcher.runtime / "launch.sock"
    assert failure(launcher.start()) == f"shimd does not answer at {socket_file} within 1 s"


def test_daemon_with_a_full_backlog(launcher: Launcher) -> None:
    launcher.env = {"SHIMD_LAUNCH_TIMEOUT": "1"}
    launcher.runtime.mkdir(parents=True)
    path = launcher.runtime / "launch.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(path))
        listener.listen(0)
        other.connect(str(path))
        assert failure(launcher.start()) == f"shimd does not answer at {path} within 1 s"


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("error", "engine wasmer is not installed"),
        ("nonsense", "shimd gave an answer that makes no sense"),
        ("no answer", "shimd closed the connection without an answer"),
    ],
)
def test_answers_that_are_not_an_address(launcher: Launcher, mode: str, sentence: str) -> None:
    launcher.env = {"SHIMD_STANDIN": mode, "SHIMD_LAUNCH_TIMEOUT": "1"}
    assert failure(launcher.start()) == sentence
    assert not (launcher.bundle / "address").exists()


def test_daemon_that_dies_over_the_request_is_replaced(launcher: Launcher) -> None:
    launcher.runtime.mkdir(parents=True)
    with dying_daemon(launcher.runtime / "launch.sock"):
        assert launcher.start().stdout == ADDRESS
    assert len(launcher.daemons()) == 1


def test_daemons_that_die_over_the_request_again_and_again(launcher: Launcher) -> None:
    launcher.env = {"SHIMD_STANDIN": "die over three requests"}
    assert launcher.start().stdout == ADDRESS
    assert len(launcher.daemons()) == 4


def test_exit_status_of_a_daemon_that_found_another() -> None:
    assert in_python.EXIT_RUNS_ALREADY == serve.EXIT_RUNS_ALREADY


def test_runtime_directory_with_a_long_name(launcher: Launcher) -> None:
    launcher.runtime = launcher.runtime / ("x" * 100)
    assert failure(launcher.start()) == (
        f"{launcher.runtime}/launch.sock is longer than a socket's name may be: SHIMD_RUNTIME_DIR must be shorter"
    )


@pytest.mark.parametrize("timeout", ["0", "soon", "-1"])
def test_senseless_timeout(launcher: Launcher, timeout: str) -> None:
    launcher.env = {"SHIMD_LAUNCH_TIMEOUT": timeout}
    assert failure(launcher.start()) == "SHIMD_LAUNCH_TIMEOUT must be a number of seconds"


def test_bundle_that_cannot_be_written(launcher: Launcher) -> None:
    launcher.start()
    (launcher.bundle / "address").unlink()
    (launcher.bundle / "address").mkdir()
    (launcher.bundle / "address" / "x").touch()
    assert "Is a directory" in failure(launcher.start())


def copy_of(launcher: Launcher, tmp_path: Path) -> Path:
    """Make the launcher one of a copied installation, which may be spoilt."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in (launcher.program.name, "shimd-launcher"):
        (directory / name).write_bytes((launcher.program.parent / name).read_bytes())
        (directory / name).chmod(0o755)
    install_standin(directory)
    launcher.program = directory / launcher.program.name
    return directory


@contextmanager
def dying_daemon(path: Path) -> Iterator[None]:
    """Takes one connection and ends, in the middle of the request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def die() -> None:
        client, _ = listener.accept()
        listener.close()
        client.close()

    thread = Thread(target=die)
    thread.start()
    yield
    thread.join()
