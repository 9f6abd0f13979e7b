"""Kill, pause, wait, exec, pids, metrics: what is done to an app that runs."""

import json
import signal
import time
from subprocess import PIPE

import pytest

from tests.e2e.box import Box, content, until, wasm_only

SIGNALS = ["SIGTERM", "SIGINT", "SIGKILL"]


def start(box: Box, command: str = "sleep", *arguments: object) -> None:
    """An app that runs for long, seen to run."""
    output = box.detach("app", command, *(arguments or (600,)))
    until(lambda: content(output), "the app's first line")


@wasm_only
@pytest.mark.parametrize("command", ["sleep", "spin"])
@pytest.mark.parametrize("name", [*SIGNALS, "SIGHUP", "SIGUSR1"])
def test_kill(box: Box, command: str, name: str) -> None:
    """Any signal whose default action ends a process ends a guest, even one that makes no calls."""
    start(box, command)
    assert box.kill("app", name).code == 0
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 128 + signal.Signals[name]
    assert not box.leftovers()


@pytest.mark.parametrize("command", ["sleep", "spin"])
def test_kill_kill(box: Box, command: str) -> None:
    start(box, command)
    assert box.kill("app", "SIGKILL").code == 0
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137


def test_kill_all(box: Box) -> None:
    start(box)
    assert box.kill("app", "SIGKILL", "--all").code == 0
    box.wait_status("app", "STOPPED")


def test_kill_of_a_stopped_task_is_not_found(box: Box) -> None:
    start(box)
    box.kill("app")
    box.wait_status("app", "STOPPED")
    done = box.kill("app")
    assert done.code != 0
    # 1.6 shows the shim's NotFound; 2.x says it in words of its own, for a task that it knows to have ended.
    assert "not found" in done.err or "process already finished" in done.err


@wasm_only
def test_a_signal_with_no_default_action_changes_nothing(box: Box) -> None:
    start(box)
    assert box.kill("app", "SIGCHLD").code == 0
    assert box.status("app") == "RUNNING"


def test_delete_of_a_running_task_is_refused(box: Box) -> None:
    start(box)
    done = box.ctr("tasks", "delete", "app", check=False)
    assert done.code != 0
    assert "must be stopped" in done.err
    assert box.status("app") == "RUNNING"


def test_force_delete_of_a_running_task(box: Box) -> None:
    start(box)
    box.ctr("tasks", "delete", "--force", "app", check=False)
    until(lambda: not box.leftovers(), "the app to be gone")


def test_start_of_a_created_container(box: Box) -> None:
    box.ctr("containers", "create", "--runtime", box.runtime.type, box.runtime.image, "app")
    done = box.ctr("tasks", "start", "app")
    assert done.out == "hello from app\n"


def test_pause_and_resume(box: Box) -> None:
    output = box.detach("app", "tick")
    until(lambda: "tick 3" in content(output), "ticks")
    box.ctr("tasks", "pause", "app")
    assert box.status("app") == "PAUSED"
    before = content(output)
    time.sleep(0.3)  # fifteen ticks, if it were not frozen
    assert content(output) == before
    box.ctr("tasks", "resume", "app")
    assert box.status("app") == "RUNNING"
    until(lambda: len(content(output)) > len(before), "ticks again")


def test_a_paused_task_can_be_killed(box: Box) -> None:
    start(box)
    box.ctr("tasks", "pause", "app")
    assert box.kill("app").code == 0
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137


def test_pause_of_a_stopped_task_is_refused(box: Box) -> None:
    box.detach("app", "exit", 0)
    box.wait_status("app", "STOPPED")
    assert box.ctr("tasks", "pause", "app", check=False).code != 0


def test_attach_sees_the_exit(box: Box) -> None:
    """A client that waits while another kills."""
    client = box.run_attached("app", "sleep", 600, flags=("--rm", "--null-io"))
    until(lambda: box.status("app") == "RUNNING", "the app to run")
    box.kill("app")
    assert client.wait(60) == 137


def test_pids(box: Box) -> None:
    start(box)
    rows = [line.split() for line in box.ctr("tasks", "ps", "app").out.splitlines()[1:]]
    assert str(box.pid("app")) in [row[0] for row in rows]


def test_exec(box: Box) -> None:
    start(box)
    done = box.exec("app", "second", "echo", "hi")
    assert (done.code, done.out, done.err) == (0, "hi\n", "")
    assert box.status("app") == "RUNNING"


def test_exec_exit_code_and_stderr(box: Box) -> None:
    start(box)
    assert box.exec("app", "second", "exit", 42).code == 42
    assert box.exec("app", "third", "error", "oh").err == "oh\n"


def test_exec_stdin(box: Box) -> None:
    start(box)
    client = box.popen(
        "tasks", "exec", "--exec-id", "second", "app", box.runtime.program, "cat", stdin=PIPE, stdout=PIPE
    )
    assert client.stdin is not None and client.stdout is not None
    until(lambda: len(box.ctr("tasks", "ps", "app").out.splitlines()) == 3, "the second process")
    client.stdin.write("through the pipe\n")
    client.stdin.close()
    assert client.stdout.read() == "through the pipe\n"
    assert client.wait(60) == 0


def test_exec_beside_a_spinning_guest(box: Box) -> None:
    start(box, "spin")
    assert box.exec("app", "second").out == "hello from app\n"


def test_execs_at_the_same_time(box: Box) -> None:
    start(box)
    names = [f"exec{number}" for number in range(5)]
    exec = ("tasks", "exec", "--exec-id")
    clients = [box.popen(*exec, name, "app", box.runtime.program, "exit", number) for number, name in enumerate(names)]
    assert [client.wait(60) for client in clients] == [0, 1, 2, 3, 4]


def test_exec_is_killed_alone(box: Box) -> None:
    start(box)
    client = box.popen("tasks", "exec", "--exec-id", "second", "app", box.runtime.program, "spin", stdout=PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == "spinning\n"
    assert len(box.ctr("tasks", "ps", "app").out.splitlines()) == 3
    box.kill("app", "SIGKILL", "--exec-id", "second")
    assert client.wait(60) == 137
    assert box.status("app") == "RUNNING"


def test_the_end_of_the_first_process_ends_its_execs(box: Box) -> None:
    start(box)
    client = box.popen("tasks", "exec", "--exec-id", "second", "app", box.runtime.program, "spin", stdout=PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == "spinning\n"
    box.kill("app")
    assert client.wait(60) == 137
    box.wait_status("app", "STOPPED")


def test_exec_in_a_stopped_task_is_refused(box: Box) -> None:
    box.detach("app", "exit", 0)
    box.wait_status("app", "STOPPED")
    done = box.exec("app", "second", "hello")
    assert done.code != 0
    assert "hello from app" not in done.out


def test_exec_of_a_missing_program(box: Box) -> None:
    start(box)
    done = box.ctr("tasks", "exec", "--exec-id", "second", "app", "/missing.wasm", check=False)
    assert done.code != 0
    assert "/missing.wasm" in done.err
    assert box.status("app") == "RUNNING"


def test_metrics(box: Box) -> None:
    """The same shape and plausible numbers; nothing else tells an autoscaler what an app uses."""
    start(box, "spin")
    first = json.loads(box.ctr("tasks", "metrics", "--format", "json", "app").out)
    until(lambda: _cpu(box) > _total(first) > 0, "CPU time to grow")
    assert first["memory"]["usage"]["usage"] > 64 << 10
    assert first["pids"]["current"] >= 1
    assert "memory.usage_in_bytes" in box.ctr("tasks", "metrics", "app").out


def _total(metrics: dict[str, dict[str, dict[str, int]]]) -> int:
    return metrics["cpu"]["usage"]["total"]


def _cpu(box: Box) -> int:
    return _total(json.loads(box.ctr("tasks", "metrics", "--format", "json", "app").out))
