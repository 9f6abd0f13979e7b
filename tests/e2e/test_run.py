"""``ctr run``: output, exit codes, and what the app is given."""

from subprocess import PIPE

import pytest

from tests.e2e import guests
from tests.e2e.box import Attached, Box, until, wasm_only


def test_output_and_removal(box: Box) -> None:
    done = box.run("app")
    assert (done.code, done.out, done.err) == (0, "hello from app\n", "")
    assert not box.leftovers()
    assert box.ctr("containers", "ls", "-q").out == ""


def test_stderr_is_apart(box: Box) -> None:
    done = box.run("app", "error", "oh")
    assert (done.code, done.out, done.err) == (0, "", "oh\n")


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 130, 255])
def test_exit_code(box: Box, code: int) -> None:
    assert box.run("app", "exit", code).code == code


@wasm_only
def test_trap_is_134_with_a_backtrace(box: Box) -> None:
    done = box.run("app", "abort")
    assert done.code == 134
    assert "unreachable" in done.err
    assert "abort" in done.err or box.runtime.name == "wasmedge"  # which tells the trap, and not where it was


def test_arguments(box: Box) -> None:
    assert box.run("app", "echo", "a b", "", "ü").out == "a b  ü\n"


def test_environment(box: Box) -> None:
    done = box.run("app", "env", flags=("--rm", "--env", "COLOUR=blue", "--env", "EMPTY="))
    assert {"FROM_IMAGE=yes", "COLOUR=blue", "EMPTY="} <= set(done.out.splitlines())
    assert "SHIMD_RUNTIME_DIR" not in done.out


def test_large_output_is_whole_and_in_order(box: Box) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    done = box.run("app", "cat", stdin=text)
    assert (done.code, done.out) == (0, text)


def test_stdin_pipe(box: Box) -> None:
    client = box.run_attached("app", "cat", stdin=PIPE, stdout=PIPE)
    assert client.stdin is not None and client.stdout is not None
    # Not earlier: ctr forgets the end of its stdin if that comes before the task.
    box.wait_status("app", "RUNNING")
    client.stdin.write("through the pipe\n")
    client.stdin.close()
    assert client.stdout.read() == "through the pipe\n"
    assert client.wait(60) == 0


def test_detached_exit_code_comes_with_delete(box: Box) -> None:
    box.detach("app", "exit", 9)
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 9


def test_labels_and_annotations(box: Box) -> None:
    box.detach("app", "sleep", 60, flags=("--label", "team=blue", "--annotation", "example/note=yes"))
    shown = box.ctr("containers", "info", "app").out
    assert '"team": "blue"' in shown
    assert '"example/note": "yes"' in shown
    assert box.status("app") == "RUNNING"


def test_pid_file(box: Box) -> None:
    path = box.containerd.directory / f"{box.namespace}.pid"
    box.detach("app", "sleep", 60, flags=("--pid-file", path))
    assert int(path.read_text()) == box.pid("app")


def test_no_io(box: Box) -> None:
    assert box.run("app", "exit", 3, flags=("--rm", "--null-io")).code == 3


def test_id_of_a_running_container_is_refused(box: Box) -> None:
    box.detach("app", "sleep", 60)
    again = box.run("app")
    assert again.code != 0
    assert "already exists" in again.err
    assert box.status("app") == "RUNNING"


@wasm_only
def test_a_wasm_program_named_on_the_command_line(box: Box) -> None:
    """A sidecar's image may be anything: what counts is the program."""
    done = box.ctr("run", "--rm", "--runtime", box.runtime.type, guests.NATIVE, "app", "/app.wasm", "echo", "hi")
    assert done.out == "hi\n"


def test_hundred_at_once(box: Box) -> None:
    """A hundred apps, eight clients at a time."""
    ids = [f"app{number}" for number in range(100)]
    waiting = list(ids)
    clients: list[Attached] = []
    while waiting or clients:
        while waiting and len(clients) < 8:
            clients.append(box.run_attached(waiting[0], "echo", waiting.pop(0), flags=("--rm",)))
        assert clients.pop(0).wait(60) == 0
    assert not box.leftovers()


def test_forty_running_together(box: Box) -> None:
    ids = [f"app{number}" for number in range(40)]
    for id in ids:
        box.detach(id, "sleep", 600)
    assert {id: status for id, (_pid, status) in box.tasks().items()} == dict.fromkeys(ids, "RUNNING")
    assert len({pid for pid, _status in box.tasks().values()}) == 40
    for id in ids:
        box.kill(id)
    until(lambda: {status for _pid, status in box.tasks().values()} == {"STOPPED"}, "all to stop")
    for id in ids:
        assert box.delete(id) == 137
    assert not box.leftovers()
