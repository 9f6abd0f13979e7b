"""The daemon dies while apps run: that is a delay, and nothing of theirs is lost."""

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import pytest

from tests.e2e import leftovers
from tests.e2e.box import RUNTIMES, Box, content, until
from tests.e2e.containerd import PATIENCE

#: Of two ways to be made; the other engines' (``tests/chaos``) are like the second.
NATIVE = RUNTIMES[1]
two = pytest.mark.parametrize("runtime", RUNTIMES[1:3], ids=lambda runtime: runtime.name, indirect=True)
pytestmark = [two, pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])]


def processes(box: Box, of: str) -> list[int]:
    """Of this box's shimd, by what is in their command lines."""
    return [pid for pid, line in leftovers.processes_of(box.containerd.directory).items() if of in line]


def daemon(box: Box) -> int:
    pid = box.containerd.daemon_pid()
    assert pid is not None
    return pid


def end_daemon(box: Box, number: int) -> None:
    """End it, and wait for the next one."""
    earlier = daemon(box)
    os.kill(earlier, number)
    until(lambda: box.containerd.daemon_pid() not in (None, earlier), "the next daemon")


@contextmanager
def away(box: Box, number: int) -> Iterator[None]:
    """No daemon meanwhile."""
    (keeper,) = processes(box, "shimd-keeper")
    os.kill(keeper, signal.SIGSTOP)
    try:
        earlier = daemon(box)
        os.kill(earlier, number)
        until(lambda: not processes(box, "shimd serve"), "the daemon to end")
        yield
    finally:
        os.kill(keeper, signal.SIGCONT)
    until(lambda: box.containerd.daemon_pid() not in (None, earlier), "the next daemon")


def topics(box: Box, id: str) -> list[str]:
    return [event.topic.removeprefix("/tasks/") for event in box.events(id)]


def test_apps_go_on(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    output = box.detach("app", "tick")
    box.detach("paused", "sleep", 600)
    box.ctr("tasks", "pause", "paused")
    before = box.tasks()
    for _ in range(3):
        end_daemon(box, number)
        assert box.tasks() == before
    seen = len(content(output))
    until(lambda: len(content(output)) > seen, "more ticks")
    assert box.exec("app", "e", "echo", "after").out == "after\n"
    box.ctr("tasks", "resume", "paused")
    for id in ("app", "paused"):
        assert box.kill(id).code == 0
        box.wait_status(id, "STOPPED")
        assert box.delete(id) == 137
        box.wait_event(id, "/tasks/delete")
    print(box.containerd.daemon_log())
    assert topics(box, "paused") == ["create", "start", "paused", "resumed", "exit", "delete"]
    life = ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]
    assert topics(box, "app") == life
    assert not leftovers.settled(box.leftovers)
    assert box.run("next").code == 0


def test_exits_meanwhile(own_box: Box, number: signal.Signals) -> None:
    """With their own codes, at their own times, once."""
    box = own_box
    ends = box.run_attached("ends", "lines", flags=("--rm",), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert ends.stdin is not None and ends.stdout is not None
    ends.stdin.write("one\n")
    ends.stdin.flush()
    assert ends.stdout.readline() == "one\n"
    box.detach("stopped", "exit", 7)
    box.detach("killed", "sleep", 600)
    box.wait_status("stopped", "STOPPED")
    pid = box.pid("killed")
    with away(box, number):
        os.kill(pid, signal.SIGKILL)
        died = time.time()
        ends.stdin.close()
        time.sleep(1.5)
    assert ends.wait(PATIENCE) == 4
    box.wait_status("killed", "STOPPED")
    exit = box.wait_event("killed", "/tasks/exit").payload
    assert exit["exit_status"] == 137
    assert abs(seconds(exit["exited_at"]) - died) < 1
    assert box.delete("killed") == 137
    assert box.delete("stopped") == 7
    for id in ("killed", "stopped"):
        box.wait_event(id, "/tasks/delete")
    assert topics(box, "ends") == ["create", "start", "exit", "delete"]
    assert topics(box, "killed") == ["create", "start", "exit", "delete"]
    assert topics(box, "stopped") == ["create", "start", "exit", "delete"]


def seconds(timestamp: str | dict[str, int]) -> float:
    """Of what ``ctr events`` shows; 2.x shows the message as it is."""
    if isinstance(timestamp, dict):
        return timestamp["seconds"] + timestamp.get("nanos", 0) / 1e9
    return datetime.fromisoformat(timestamp[:26].rstrip("Z") + "+00:00").timestamp()


def test_calls_are_answered(own_box: Box, number: signal.Signals) -> None:
    """Those that wait, and those that are asked for while no daemon is there."""
    box = own_box
    attached = box.run_attached("app", "sleep", 600, flags=("--rm",), stdout=subprocess.PIPE)
    box.wait_status("app", "RUNNING")
    with away(box, number):
        state = box.popen("tasks", "ls", stdout=subprocess.PIPE)
        more = box.popen(
            "run", "--rm", "--runtime", box.runtime.type, box.runtime.image, "other", stdout=subprocess.PIPE
        )
        kill = box.popen("tasks", "kill", "--signal", "SIGKILL", "app", stdout=subprocess.PIPE)
        time.sleep(0.5)  # containerd 2.x waits for a State for two seconds
    assert state.wait(PATIENCE) == 0
    assert kill.wait(PATIENCE) == 0
    assert attached.wait(PATIENCE) == 137
    assert more.wait(PATIENCE) == 0
    assert more.stdout is not None
    assert more.stdout.read() == "hello from app\n"


def test_stdin_stays_open(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    app = box.run_attached("app", "lines", flags=("--rm",), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert app.stdin is not None and app.stdout is not None
    app.stdin.write("one\n")
    app.stdin.flush()
    assert app.stdout.readline() == "one\n"
    end_daemon(box, number)
    app.stdin.write("two\n")
    app.stdin.flush()
    assert app.stdout.readline() == "two\n"
    with away(box, number):
        app.stdin.write("three\n")
        app.stdin.close()
    assert app.stdout.readline() == "three\n"
    assert app.wait(PATIENCE) == 4


def test_terminals_go_on(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    master, slave = pty.openpty()
    try:
        app = box.run_attached(
            "app", "lines", flags=("--rm", "--tty"), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        box.wait_status("app", "RUNNING")
        os.write(master, b"one\n")
        seen = expect(master, b"one\r\n", twice=True)
        end_daemon(box, number)
        os.write(master, b"two\n")
        seen = expect(master, b"two\r\n", twice=True)
        assert b"two" in seen
        os.write(master, b"\x04")
        assert app.wait(PATIENCE) == 4
    finally:
        os.close(master)
        os.close(slave)


def expect(master: int, text: bytes, *, twice: bool) -> bytes:
    """Read what the terminal echoes, and the app says."""
    seen = bytearray()
    os.set_blocking(master, False)

    def there() -> bool:
        with suppress(BlockingIOError):
            seen.extend(os.read(master, 65536))
        return seen.replace(b"\r\r", b"\r").count(text) >= (2 if twice else 1)

    until(there, f"{text!r} on the terminal")
    return bytes(seen)


def test_execs_go_on(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    box.detach("app", "sleep", 600)
    exec = box.popen(
        "tasks",
        "exec",
        "--exec-id",
        "e",
        "app",
        box.runtime.program,
        "lines",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert exec.stdin is not None and exec.stdout is not None
    exec.stdin.write("one\n")
    exec.stdin.flush()
    assert exec.stdout.readline() == "one\n"
    box.wait_event("app", "/tasks/exec-started")  # a native exec that is being started may have to be started again
    end_daemon(box, number)
    exec.stdin.write("two\n")
    exec.stdin.close()
    assert exec.stdout.readline() == "two\n"
    assert exec.wait(PATIENCE) == 4
    until(lambda: topics(box, "app") == ["create", "start", "exec-added", "exec-started", "exit"], "the exec's events")


def test_many_at_random_moments(own_box: Box, number: signal.Signals) -> None:
    """Deaths while apps and execs come and go: each says what it has to say, and ends with its own code."""
    box = own_box
    box.detach("stays", "sleep", 600)
    apps, execs = [], []
    for wave in range(5):
        for one in range(4):
            id, text = f"app-{wave}-{one}", f"{wave} {one}"
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            apps.append((id, text, box.run_attached(id, "exit", 10 * wave + one, text, flags=("--rm",), **pipes)))
        exec = ("tasks", "exec", "--exec-id", f"e{wave}", "stays", box.runtime.program, "echo", str(wave))
        execs.append((str(wave), box.popen(*exec, stdout=subprocess.PIPE, stderr=subprocess.PIPE)))
        time.sleep(0.03 * wave)
        end_daemon(box, number)
    for code, (_id, text, client) in zip([10 * wave + one for wave in range(5) for one in range(4)], apps, strict=True):
        out, error = client.communicate(timeout=PATIENCE)
        assert (out, error, client.returncode) == (f"{text}\n", "", code), error
    for text, client in execs:
        out, error = client.communicate(timeout=PATIENCE)
        if box.runtime is NATIVE and "start it again" in error:  # it may have run, and nobody knows how far
            assert f"shimd was restarted while e{text} was being started: start it again" in error
        else:
            assert (out, error, client.returncode) == (f"{text}\n", "", 0)
    assert box.status("stays") == "RUNNING"
    box.remove("stays")
    life = ["create", "start", "exit", "delete"]
    until(lambda: all(topics(box, id) == life for id, _text, _client in apps), "all events, once and in order")
    assert not leftovers.settled(box.leftovers)


@pytest.mark.parametrize("part", ["forkserver", "shimd-zygote", "shimd-keeper", "jailer"])
def test_another_part_dies(own_box: Box, number: signal.Signals, part: str) -> None:
    """Before or after the daemon: no app is lost, and codes are true."""
    box = own_box
    box.detach("app", "sleep", 600)
    box.detach("other", "sleep", 600)
    for id, order in (("app", (0, 1)), ("other", (1, 0))):
        for step in order:
            if step == 0:
                end_daemon(box, number)
                box.tasks()  # it has taken over
            else:
                for pid in {*processes(box, part)} - {pid for pid, _status in box.tasks().values()}:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)
        assert box.status(id) == "RUNNING"
        box.kill(id)
        box.wait_status(id, "STOPPED")
        assert box.delete(id) == 137
    assert box.run("next").code == 0
