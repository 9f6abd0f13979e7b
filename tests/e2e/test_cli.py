"""The operator's commands, asked about real tasks."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.e2e.box import Box, content, until, wasm_only
from tests.e2e.containerd import LAUNCHERS, PATIENCE, Containerd

pytestmark = wasm_only


class Shimd:
    """The ``shimd`` program, with the directories of one containerd's daemon."""

    def __init__(self, containerd: Containerd) -> None:
        self._env = {**containerd.env, "TZ": "UTC"}
        self._followers: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(LAUNCHERS / "shimd"), *map(str, arguments)]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def lines(self, *arguments: object) -> list[Any]:
        return [json.loads(line) for line in self(*arguments, "--json").stdout.splitlines()]

    def follow(self, *arguments: object) -> subprocess.Popen[str]:
        command = [str(LAUNCHERS / "shimd"), *map(str, arguments)]
        follower = subprocess.Popen(
            command, env=self._env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1
        )
        self._followers.append(follower)
        return follower

    def close(self) -> None:
        for follower in self._followers:
            follower.kill()
            follower.communicate()


@pytest.fixture
def shimd(box: Box) -> Iterator[Shimd]:
    program = Shimd(box.containerd)
    yield program
    program.close()


@pytest.fixture
def own_shimd(own_box: Box) -> Iterator[Shimd]:
    program = Shimd(own_box.containerd)
    yield program
    program.close()


def mine(box: Box, tasks: list[Any]) -> list[Any]:
    """Other tests of the session may use the same daemon."""
    return [task for task in tasks if task["namespace"] == box.namespace]


def read_until(stream: IO[str] | None, wanted: str) -> list[str]:
    assert stream is not None
    seen: list[str] = []
    for line in stream:
        seen.append(line)
        if wanted in line:
            return seen
    raise AssertionError(f"{wanted!r} did not come: {seen}")


def test_status(box: Box, shimd: Shimd) -> None:
    box.detach("web", "sleep", 1000)
    daemon = shimd.json("status")
    assert daemon["pid"] == box.containerd.daemon_pid()
    assert daemon["runtime_dir"] == box.containerd.env["SHIMD_RUNTIME_DIR"]
    (engine,) = [engine for engine in daemon["engines"] if engine["name"] == box.runtime.name]
    assert f"worker-{box.runtime.name}" not in engine["error"] and engine["version"]
    assert Path(f"/proc/{engine['fork_server_pid']}/cmdline").read_bytes().count(b"forkserver") == 1
    (current,) = [one for one in daemon["fork_servers"] if one["pid"] == engine["fork_server_pid"]]
    assert (current["version"], current["retiring"]) == (engine["version"], False)
    assert current["workers"] >= 1
    (endpoint,) = [endpoint for endpoint in daemon["endpoints"] if endpoint["namespace"] == box.namespace]
    assert (endpoint["engine"], endpoint["tasks"]) == (box.runtime.name, 1)
    assert endpoint["events_address"] == f"{box.containerd.address}.ttrpc"
    assert daemon["tasks"]["running"] >= 1
    assert daemon["cache"]["modules"] >= 1
    text = shimd("status").stdout
    assert f"pid {daemon['pid']}" in text
    assert box.namespace in text
    assert "takes new apps" in text
    assert "\x1b" not in text


def test_ps(box: Box, shimd: Shimd) -> None:
    box.detach("web", "sleep", 1000)
    box.detach("done", "exit", 7)
    box.wait_status("done", "STOPPED")
    (web,) = mine(box, shimd.json("ps", "-n", box.namespace))
    assert (web["id"], web["engine"], web["init"]["state"]) == ("web", box.runtime.name, "running")
    assert web["init"]["pid"] == box.pid("web")
    assert web["init"]["args"] == ["/app.wasm", "sleep", "1000"]
    assert web["usage"] is None

    rows = shimd("ps", "--all", "-n", box.namespace).stdout.splitlines()
    assert rows[0].split() == ["ID", "NAMESPACE", "ENGINE", "PROGRAM", "STATUS", "PID"]
    column = rows[0].index("STATUS")
    assert rows[1].startswith("web ") and rows[1][column:].startswith("Up ")
    assert rows[2].startswith("done ") and rows[2][column:].startswith("Exited (7) ")
    assert shimd("ps", "--all", "--quiet", "-n", box.namespace).stdout == "web\ndone\n"


def test_ps_with_nothing_to_show(box: Box, shimd: Shimd) -> None:
    box.detach("done", "exit", 7)
    box.wait_status("done", "STOPPED")
    done = shimd("ps", "-n", box.namespace)
    assert (done.stdout, done.stderr) == ("", "no tasks are running (1 task exited: shimd ps --all)\n")
    assert shimd.json("ps", "-n", box.namespace) == []


def test_ps_shows_execs(box: Box, shimd: Shimd) -> None:
    box.detach("web", "sleep", 1000)
    box.popen("tasks", "exec", "--exec-id", "more", "web", box.runtime.program, "sleep", "1000", stdout=-3)
    until(lambda: shimd.json("ps", "-n", box.namespace)[0]["execs"], "the exec to appear")
    until(lambda: shimd.json("ps", "-n", box.namespace)[0]["execs"][0]["state"] == "running", "the exec to run")
    (task,) = shimd.json("ps", "-n", box.namespace)
    (exec,) = task["execs"]
    assert (exec["id"], exec["args"]) == ("more", ["/app.wasm", "sleep", "1000"])
    assert exec["pid"] not in (0, task["init"]["pid"])
    assert "EXECS" in shimd("ps", "-n", box.namespace).stdout


def test_usage(box: Box, shimd: Shimd) -> None:
    output = box.detach("web", "spin")
    until(lambda: "spinning" in content(output), "the app to spin")
    first = shimd.json("ps", "-u", "-n", box.namespace)[0]["usage"]
    assert first["memory"] >= first["working_set"] > 1 << 16
    assert first["processes"] == 1
    until(
        lambda: shimd.json("ps", "-u", "-n", box.namespace)[0]["usage"]["cpu_time"] > first["cpu_time"],
        "processor time to be counted",
    )
    heads, row = shimd("ps", "-u", "-n", box.namespace).stdout.splitlines()
    assert heads.split()[-2:] == ["MEMORY", "CPU"]
    assert "MiB" in row or "KiB" in row


def test_events_of_a_life(box: Box, shimd: Shimd) -> None:
    box.run("app", "exit", 3)
    events = shimd.lines("events", "app", "-n", box.namespace)
    assert [event["topic"] for event in events] == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    assert [event["exit_status"] for event in events] == [None, None, 3, 3]
    assert len({event["pid"] for event in events}) == 1
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    last = shimd("events", "app", "-n", box.namespace, "--tail", 1).stdout.splitlines()
    assert len(last) == 1
    assert "/tasks/delete" in last[0] and "exit_status=3" in last[0]


def test_events_as_they_happen(box: Box, shimd: Shimd) -> None:
    box.run("first")
    follower = shimd.follow("events", "--follow", "-n", box.namespace)
    read_until(follower.stdout, "/tasks/delete")
    box.run("second")
    seen = read_until(follower.stdout, "/tasks/delete")
    assert [line.split()[3] for line in seen] == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    follower.send_signal(signal.SIGINT)
    assert follower.wait(PATIENCE) == 130
    assert follower.stderr is not None and follower.stderr.read() == ""


def test_logs_in_a_file(box: Box, shimd: Shimd) -> None:
    box.detach("talker", "echo", "hello\nworld\nend")
    box.wait_status("talker", "STOPPED")
    assert shimd("logs", "talker", "-n", box.namespace).stdout == "hello\nworld\nend\n"
    assert shimd("logs", "talk", "-n", box.namespace, "--tail", 2).stdout == "world\nend\n"
    records = shimd.lines("logs", "talker", "-n", box.namespace)
    assert [(record["source"], record["message"]) for record in records] == [
        ("stdout", "hello"),
        ("stdout", "world"),
        ("stdout", "end"),
    ]


def test_logs_are_followed_to_the_exit(box: Box, shimd: Shimd) -> None:
    box.detach("ticker", "tick")
    follower = shimd.follow("logs", "--follow", "ticker", "-n", box.namespace)
    read_until(follower.stdout, "tick 3")
    box.kill("ticker")
    rest = read_until(follower.stdout, "tick")
    assert follower.wait(PATIENCE) == 0
    assert rest


def test_logs_that_containerd_holds(box: Box, shimd: Shimd) -> None:
    box.run_attached("talker", "sleep", 1000, stdout=subprocess.DEVNULL)
    box.wait_status("talker", "RUNNING")
    done = shimd("logs", "talker", "-n", box.namespace)
    assert f"ctr -n {box.namespace} tasks attach talker" in done.stderr


def test_logs_of_a_missing_file(box: Box, shimd: Shimd) -> None:
    output = box.detach("talker", "sleep", 1000)
    output.unlink()
    done = shimd("logs", "talker", "-n", box.namespace, code=1)
    assert done.stderr == f"shimd: {output}: no such file or directory\n"


def test_logs_of_nobody_and_of_several(box: Box, shimd: Shimd) -> None:
    assert shimd("logs", "nobody", code=1).stderr == (
        "shimd: no task is called nobody, and the daemon's log does not name it\n"
    )
    for id in ("twin-a", "twin-b"):
        box.detach(id, "sleep", 1000)
    done = shimd("logs", "twin", "-n", box.namespace, code=1)
    assert f"{box.namespace}/twin-a, {box.namespace}/twin-b" in done.stderr


def test_the_daemons_own_log(box: Box, shimd: Shimd) -> None:
    box.run("app")
    assert f"pid {box.containerd.daemon_pid()}" in shimd("logs").stdout
    record = shimd.lines("logs", "--tail", 1)[0]
    assert record["source"] == "daemon" and record["level"] and record["time"]


def test_the_daemon_ends_while_somebody_follows(own_box: Box, own_shimd: Shimd) -> None:
    own_box.run("app")
    follower = own_shimd.follow("events", "-f")
    read_until(follower.stdout, "/tasks/delete")
    own_box.containerd.kill_daemon()
    _, err = follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 1
    assert err.startswith("shimd: the daemon closed the connection")
    assert len(err.splitlines()) == 1
    done = own_shimd("status", code=3)
    assert "no daemon runs" in done.stderr and "systemctl start shimd" in done.stderr
    assert len(done.stderr.splitlines()) == 1
