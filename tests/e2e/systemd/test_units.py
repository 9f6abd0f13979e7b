"""The units under a real systemd, with cgroups of both kinds: activation, readiness, restarts, what they hand on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.launcher.build import build
from tests.e2e.systemd.machine import Machine, booted, possible

PROJECT = Path(__file__).resolve().parents[3]
UNITS = PROJECT / "systemd"
STANDIN = Path(__file__).with_name("standin.py")
SERVICE, SOCKET = "shimd.service", "shimd.socket"

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")


def test_verify(tmp_path: Path) -> None:
    """It only warns of an unknown key, so: not a word."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    drop_in = tmp_path / "shimd.service.d" / "test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={shutil.which('true')} serve\n")  # it must exist
    units = [tmp_path / name for name in (SERVICE, SOCKET)]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module", params=["hybrid", "unified"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the units, the launchers and the stand-in installed."""
    if not possible(request.param):
        pytest.skip("the kernel's cgroup controllers are not of version 1")
    launchers = tmp_path_factory.mktemp("launchers")
    build(launchers, "1.2.3")
    with booted(request.param) as machine:
        for unit in (SERVICE, SOCKET):
            shutil.copy(UNITS / unit, machine.root / "etc/systemd/system")
        for launcher in launchers.iterdir():
            shutil.copy(launcher, machine.root / "usr/local/bin")
        program = machine.root / "usr/local/bin/shimd"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n{STANDIN.read_text()}"
        )
        program.chmod(0o755)
        machine.run("systemctl", "daemon-reload")
        yield machine


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test starts with the socket alone."""
    if "machine" not in request.fixturenames:
        yield
        return
    machine: Machine = request.getfixturevalue("machine")
    machine.run("systemctl", "start", SOCKET)
    yield
    machine.run("systemctl", "stop", SOCKET, SERVICE)
    machine.run("systemctl", "kill", "--kill-who=all", "--signal=KILL", SERVICE, check=False)
    machine.wait_for("an empty cgroup", lambda: "sleep" not in machine.run("ps", "-e", "-o", "comm"))
    shutil.rmtree(machine.root / "etc/systemd/system/shimd.service.d", ignore_errors=True)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed")


def launch(machine: Machine) -> int:
    """Ask as containerd does; the pid of the daemon that answered."""
    command = "cd /tmp && exec containerd-shim-wasmer-v1 -namespace default -id web start"
    path, _, pid = machine.run("sh", "-c", command).rpartition("/")
    assert path == "unix:///wasmer"
    return int(pid)


def drop_in(machine: Machine, *lines: str) -> None:
    directory = machine.root / "etc/systemd/system/shimd.service.d"
    directory.mkdir()
    (directory / "test.conf").write_text("\n".join(["[Service]", *lines, ""]))
    machine.run("systemctl", "daemon-reload")


def facts(machine: Machine) -> dict[str, object]:
    found: dict[str, object] = json.loads((machine.root / "run/shimd/facts").read_text())
    return found


def open_files(process: Path) -> tuple[str, str]:
    """Soft and hard limit."""
    line = next(line for line in (process / "limits").read_text().splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    return soft, hard


def may_raise_limits(machine: Machine) -> bool:
    """Some machines withhold CAP_SYS_RESOURCE; systemd then sets what it can."""
    capabilities = (machine.root / "proc/1/status").read_text().partition("CapEff:\t")[2][:16]
    return bool(int(capabilities, 16) >> 24 & 1)


def is_alive(machine: Machine, pid: object) -> bool:
    return (machine.root / f"proc/{pid}").exists()


def test_connecting_starts_it(machine: Machine) -> None:
    assert machine.main_pid(SERVICE) == 0
    assert launch(machine) == machine.main_pid(SERVICE)
    seen = facts(machine)
    assert seen.pop("child")
    assert seen == {"argv": ["serve"], "fds": {"launch": 3}, "again": {}, "watchdog": 30.0, "environment": []}
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert machine.show(SERVICE, "StatusText") == "standing in"
    assert not (machine.root / "run/shimd/shimd.log").exists()  # the launcher has not started one of its own


def test_start_waits_for_readiness(machine: Machine) -> None:
    drop_in(machine, "ExecStart=", "ExecStart=/bin/sleep 1000", "TimeoutStartSec=1", "Restart=no")
    assert "timeout" in machine.run("systemctl", "start", SERVICE, check=False)
    assert machine.show(SERVICE, "Result") == "timeout"


def test_modes(machine: Machine) -> None:
    launch(machine)
    modes = {
        path: oct((machine.root / path).stat().st_mode & 0o777)
        for path in ("run/shimd", "run/shimd/launch.sock", "var/lib/shimd", "var/cache/shimd")
    }
    assert modes.pop("run/shimd/launch.sock") == "0o600"
    assert set(modes.values()) == {"0o700"}


def test_process_is_fit_to_make_containers(machine: Machine) -> None:
    process = machine.root / f"proc/{launch(machine)}"
    for namespace in ("mnt", "pid", "net", "user", "uts", "ipc", "cgroup"):
        assert os.readlink(process / "ns" / namespace) == os.readlink(machine.root / "proc/1/ns" / namespace)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert status["NoNewPrivs"] == "0"
    assert status["CapBnd"] == Path(machine.root / "proc/1/status").read_text().partition("CapBnd:\t")[2][:16]
    assert open_files(process) == ("1048576", "1048576") or not may_raise_limits(machine)
    assert machine.show(SERVICE, "TasksMax") == "infinity"
    assert machine.show(SERVICE, "Delegate") == "yes"


def test_hung_daemon_is_replaced_and_its_children_live(machine: Machine) -> None:
    drop_in(machine, "WatchdogSec=1")
    first, child = launch(machine), facts(machine)["child"]
    machine.run("kill", "-STOP", str(first))
    machine.wait_for("a successor", lambda: machine.main_pid(SERVICE) not in (0, first))
    assert launch(machine) == machine.main_pid(SERVICE)
    assert machine.show(SERVICE, "NRestarts") == "1"
    assert not is_alive(machine, first)
    assert is_alive(machine, child)
    assert facts(machine)["fds"] == {"launch": 3}


def test_killed_daemon_is_replaced_and_its_children_live(machine: Machine) -> None:
    first, child = launch(machine), facts(machine)["child"]
    machine.run("kill", f"-{signal.SIGKILL}", str(first))
    assert launch(machine) != first  # the socket holds the request until there is a successor
    assert is_alive(machine, child)


def test_it_never_gives_up(machine: Machine) -> None:
    pids = set()
    for _ in range(10):  # systemd's default is to give up after five in ten seconds
        pids.add(launch(machine))
        machine.run("kill", "-KILL", str(max(pids)))
    assert len(pids) == 10
    assert machine.show(SOCKET, "ActiveState") == "active"


def test_stop_spares_children_and_keeps_the_socket(machine: Machine) -> None:
    first, child = launch(machine), facts(machine)["child"]
    machine.run("systemctl", "stop", SERVICE)
    assert not is_alive(machine, first)
    assert is_alive(machine, child)
    assert launch(machine) != first


def test_restart_and_stop_are_quick_for_a_daemon_that_ignores_sigterm(machine: Machine) -> None:
    drop_in(
        machine, "ExecStart=", "ExecStart=/bin/sh -c 'trap : TERM; systemd-notify --ready; while :; do sleep 1; done'"
    )
    drop_in_path = machine.root / "etc/systemd/system/shimd.service.d/test.conf"
    drop_in_path.write_text(drop_in_path.read_text() + "TimeoutStopSec=1\nNotifyAccess=all\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", SERVICE)
    machine.run("systemctl", "stop", SERVICE)
    assert machine.main_pid(SERVICE) == 0


def test_order_with_containerd(machine: Machine) -> None:
    """Up before containerd, and no more between them: neither's restart touches the other."""
    (machine.root / "etc/systemd/system/containerd.service").write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    machine.run("systemctl", "daemon-reload")
    assert "containerd.service" in machine.show(SERVICE, "Before")
    first = launch(machine)
    machine.run("systemctl", "start", "containerd")
    machine.run("systemctl", "restart", "containerd")
    assert machine.main_pid(SERVICE) == first
    containerd = machine.main_pid("containerd")
    machine.run("systemctl", "restart", SERVICE)
    assert machine.main_pid("containerd") == containerd
    machine.run("systemctl", "stop", "containerd")


def test_without_the_socket_unit_a_launcher_starts_its_own(machine: Machine) -> None:
    """It is none of systemd's, and goes on without it."""
    machine.run("systemctl", "stop", SOCKET)
    assert not (machine.root / "run/shimd/launch.sock").exists()
    own = launch(machine)
    assert machine.main_pid(SERVICE) == 0
    assert launch(machine) == own
    machine.run("kill", "-KILL", "--", f"-{own}")  # with its child: it leads a group


def test_starts_with_the_machine(machine: Machine) -> None:
    machine.run("systemctl", "enable", SERVICE)
    assert "shimd.socket" in machine.show("sockets.target", "Wants")
    assert "shimd.service" in machine.show("multi-user.target", "Wants")
    machine.run("systemctl", "disable", SERVICE)
