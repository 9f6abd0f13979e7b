"""The units under a real systemd, with cgroups of both kinds: activation, readiness, restarts, what they hand on."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.systemd import units
from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.units import SERVICE, SOCKET, drop_in, install, is_alive

STANDIN = Path(__file__).with_name("standin.py")


@pytest.fixture(autouse=True, scope="module")
def standin(machine: Machine) -> None:
    install(machine, STANDIN.read_text())


pytestmark = pytest.mark.usefixtures("fresh")


def launch(machine: Machine) -> int:
    """The pid of the stand-in that answered."""
    path, _, pid = units.launch(machine).rpartition("/")
    assert path == "unix:///wasmer"
    return int(pid)


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


def test_daemon_that_ignores_sigterm_is_killed(machine: Machine) -> None:
    stubborn = "trap : TERM; systemd-notify --ready; while :; do sleep 1; done"
    drop_in(machine, "ExecStart=", f"ExecStart=/bin/sh -c '{stubborn}'", "NotifyAccess=all", "TimeoutStopSec=1")
    machine.run("systemctl", "start", SERVICE)
    first = machine.main_pid(SERVICE)
    machine.run("systemctl", "stop", SERVICE)
    assert not is_alive(machine, first)


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
