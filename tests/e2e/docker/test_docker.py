"""What users of Docker do with containers, on a current Docker Engine with its own default settings."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import guests
from tests.e2e.box import until
from tests.e2e.docker.conftest import HEALTH, PRIVATE, Docker, on_all
from tests.e2e.docker.engine import Engine


@on_all
def test_run(docker: Docker) -> None:
    done = docker.run("echo", "one", "two")
    assert (done.code, done.out, done.err) == (0, "one two\n", ""), done.err
    assert docker.run("error", "alas").err == "alas\n"
    assert docker.run("exit", 7).code == 7
    assert "FROM_CLI=yes\n" in docker.run("env", flags=("--env", "FROM_CLI=yes")).out
    assert docker.run("read", "/data/note", flags=("--workdir=/nowhere/yet",)).out == "a note\n"


@on_all
def test_with_an_init_process(docker: Docker) -> None:
    """``init: true`` in a Compose file: a worker is that already, so the program is the image's, and its codes are."""
    done = docker.run("echo", "one", flags=("--init",))
    assert (done.code, done.out, done.err) == (0, "one\n", "")
    done = docker.run(flags=("--init", "--entrypoint=nope.wasm"))
    assert done.code == 127
    assert "nope.wasm: executable file not found in $PATH" in done.err


def test_a_name_of_its_own(engine: Engine) -> None:
    assert engine.docker("run", "--rm", "--runtime=wasm", guests.WASM, "echo", "one").out == "one\n"


def test_an_image_for_wasi(docker: Docker) -> None:
    done = docker.run("echo", "one", image=guests.WASI, flags=("--platform=wasi/wasm",))
    assert (done.code, done.out, done.err) == (0, "one\n", "")


@on_all
@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        ("/nope.wasm", 127, "/nope.wasm: no such file or directory"),
        ("nope.wasm", 127, "nope.wasm: executable file not found in $PATH"),
        ("/etc", 126, "/etc: is a directory"),
    ],
)
def test_a_program_that_is_not_there(docker: Docker, entry: str, code: int, words: str) -> None:
    """The engine finds these codes by the words of the error; so it does for an exec."""
    name = docker.name("app")
    done = docker(*docker.words("--name", name, f"--entrypoint={entry}"), check=False)
    assert (done.code, done.out) == (code, ""), done.err
    assert words in done.err
    assert docker.state(name)["ExitCode"] == code
    docker("rm", name)
    docker.detach("app", "sleep", 600)
    done = docker("exec", name, entry, check=False)
    assert done.code == code, done.err
    assert words in done.err + done.out


def test_users(docker: Docker) -> None:
    assert docker.run("read", "/data/note", flags=("--user=1000:1000",)).out == "a note\n"
    done = docker.run("write", "/etc-of-root", "x", flags=("--user=1000:1000",))
    assert done.code == 1
    private = docker.run(image=PRIVATE, flags=("--cap-drop=DAC_OVERRIDE",))
    assert (private.code, private.out) == (126, "")
    assert "/app.wasm: permission denied" in private.err


def test_stdin(docker: Docker) -> None:
    assert docker.run("cat", flags=("--interactive",), stdin="a line\n").out == "a line\n"
    assert docker.run("cat", stdin="a line\n").out == ""


def test_terminal(docker: Docker) -> None:
    assert docker.run("isatty", flags=("--tty",)).out == "tty\n"
    if docker.runtime.name != "wasmedge":  # to which any character device, as /dev/null is, is a terminal
        assert docker.run("isatty").out == "no tty\n"


def test_volumes(docker: Docker, tmp_path: Path) -> None:
    name = docker.name("volume")
    for source, flags in ((str(tmp_path), ""), (name, "")):
        assert docker.run("write", "/mnt/file", "words", flags=("--volume", f"{source}:/mnt{flags}")).code == 0
        assert docker.run("read", "/mnt/file", flags=("--volume", f"{source}:/mnt")).out == "words\n"
        assert docker.run("write", "/mnt/file", "x", flags=("--volume", f"{source}:/mnt:ro")).code == 1
    assert (tmp_path / "file").read_text() == "words\n"
    docker("volume", "rm", name)


def test_a_read_only_root(docker: Docker) -> None:
    flags = ("--read-only", "--tmpfs=/tmp")
    assert docker.run("write", "/data/note", "x", flags=flags).code == 1
    assert docker.run("write", "/tmp/file", "x", flags=flags).code == 0


def test_exec(docker: Docker) -> None:
    name = docker.detach("app", "sleep", 600)
    program = docker.runtime.program
    assert docker("exec", name, program, "echo", "one").out == "one\n"
    assert docker("exec", name, program, "exit", 5, check=False).code == 5
    assert docker("exec", "--interactive", name, program, "cat", stdin="a line\n").out == "a line\n"
    assert docker("exec", "--tty", name, program, "isatty").out == "tty\n"
    assert "FROM_CLI=yes\n" in docker("exec", "--env=FROM_CLI=yes", name, program, "env").out


def test_statistics(docker: Docker) -> None:
    name = docker.detach("app", "sleep", 600)
    said = docker("stats", "--no-stream", "--format={{.MemUsage}} {{.PIDs}}", name).out
    assert not said.startswith("0B")
    assert int(said.split()[-1]) > 0
    assert len(docker("top", name, "-o", "pid").out.splitlines()) == 2, "a title, and one process"


def test_pause(docker: Docker) -> None:
    name = docker.detach("app", "tick")
    until(lambda: docker.logs(name), "the first line")
    docker("pause", name)
    assert docker.state(name)["Status"] == "paused"
    docker("unpause", name)
    lines = docker.logs(name)
    until(lambda: docker.logs(name) != lines, "another line")


def test_stop(docker: Docker) -> None:
    """TERM ends an app at once, and so is no kill: no guest handles a signal."""
    name = docker.detach("app", "sleep", 600)
    docker("stop", "--timeout", 300, name)
    assert docker.state(name)["ExitCode"] == 128 + signal.SIGTERM
    docker("start", name)
    docker("kill", "--signal=HUP", name)
    assert docker("wait", name).out == f"{128 + signal.SIGHUP}\n"


def test_restart_policies(docker: Docker) -> None:
    name = docker.detach("failing", "exit", 3, flags=("--restart=on-failure:2",))
    until(lambda: docker.state(name)["Status"] == "exited", "the last attempt")
    assert (docker.state(name)["ExitCode"], docker.engine.inspect(name)["RestartCount"]) == (3, 2)
    name = docker.detach("serving", "sleep", 600, flags=("--restart=always",))
    os.kill(docker.state(name)["Pid"], signal.SIGKILL)
    until(lambda: docker.engine.inspect(name)["RestartCount"] == 1, "another")
    docker.wait_status(name, "running")


def test_logs(docker: Docker) -> None:
    name = docker.detach("app", "both", "to stdout", "to stderr")
    with docker.popen("logs", "--follow", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None and following.stderr is not None
        assert following.stdout.readline() == "to stdout\n"
        assert following.stderr.readline() == "to stderr\n"
        docker("kill", name)
        assert following.wait(60) == 0


def test_attach(docker: Docker) -> None:
    name = docker.detach("app", "tick")
    with docker.popen("attach", "--no-stdin", name, stdout=subprocess.PIPE) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline().startswith("tick ")
        docker("kill", name)
        assert attached.wait(60) == 137


def test_out_of_memory(docker: Docker) -> None:
    name = docker.detach("app", "allocate", 300, flags=("--memory=64m", "--memory-swap=64m"))
    assert docker("wait", name).out == "137\n"
    assert docker.state(name)["OOMKilled"]


@pytest.mark.parametrize(("code", "health"), [(0, "healthy"), (1, "unhealthy")])
def test_health(docker: Docker, code: int, health: str) -> None:
    """The check of the image is an exec of its program, since there is no shell."""
    name = docker.detach("app", "sleep", 600, image=f"{HEALTH}-{code}", flags=("--health-interval=500ms",))
    until(lambda: docker.state(name)["Health"]["Status"] == health, f"it to be {health}")


def test_removed_by_force(docker: Docker) -> None:
    name = docker.detach("app", "spin")
    docker("rm", "--force", name)
    assert docker("inspect", name, check=False).code == 1


def test_events(docker: Docker) -> None:
    name = docker.name("app")
    docker(*docker.words("--rm", "--name", name), "exit", 3, check=False)
    format = "--format={{.Action}} {{.Actor.Attributes.exitCode}}"

    def said() -> list[str]:
        return docker("events", "--since=10m", "--until=0s", f"--filter=container={name}", format).out.splitlines()

    until(lambda: len(said()) == 5, "all events")
    assert [line.split()[0] for line in said()] == ["create", "attach", "start", "die", "destroy"]
    assert "die 3" in said()
