"""The units with the real ``shimd serve``."""

import json
import os
import socket
import time

import pytest

from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.units import SERVICE, SOCKET, drop_in, install, is_alive, launch

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(autouse=True, scope="module")
def shimd(machine: Machine) -> None:
    install(machine, "from shimd.cli.main import main\nmain()\n")


def connect(machine: Machine, address: str) -> None:
    """Fails if nobody listens there."""
    assert address.startswith("unix:///run/shimd/s/")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(machine.root / address.removeprefix("unix:///")))


def test_connecting_starts_it(machine: Machine) -> None:
    assert machine.main_pid(SERVICE) == 0
    connect(machine, launch(machine))
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert int((machine.root / "run/shimd/shimd.pid").read_text()) == machine.main_pid(SERVICE)
    assert not (machine.root / "run/shimd/shimd.log").exists()


def test_status(machine: Machine) -> None:
    launch(machine)
    status = json.loads(machine.run("shimd", "status", "--json"))
    assert status["pid"] == machine.main_pid(SERVICE)


def test_it_feeds_the_watchdog(machine: Machine) -> None:
    drop_in(machine, "WatchdogSec=500ms")
    launch(machine)
    first = machine.main_pid(SERVICE)
    time.sleep(2)
    assert machine.main_pid(SERVICE) == first


def test_hung_daemon_is_replaced(machine: Machine) -> None:
    drop_in(machine, "WatchdogSec=1")
    address, first = launch(machine), machine.main_pid(SERVICE)
    machine.run("kill", "-STOP", str(first))
    machine.wait_for("a successor", lambda: machine.main_pid(SERVICE) not in (0, first))
    assert launch(machine) == address
    connect(machine, address)
    assert not is_alive(machine, first)


def test_killed_daemon_is_replaced(machine: Machine) -> None:
    address, first = launch(machine), machine.main_pid(SERVICE)
    machine.run("kill", "-KILL", str(first))
    assert launch(machine) == address
    connect(machine, address)
    assert machine.main_pid(SERVICE) not in (0, first)


def test_stop_is_clean(machine: Machine) -> None:
    launch(machine)
    machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success"
    assert machine.show(SERVICE, "ExecMainStatus") == "0"
    assert (machine.root / "run/shimd/launch.sock").exists()
    connect(machine, launch(machine))


def test_no_descriptor_of_systemds_is_left_open_to_children(machine: Machine) -> None:
    launch(machine)
    fds = machine.root / f"proc/{machine.main_pid(SERVICE)}/fd"
    flags = {fd: (fds.parent / "fdinfo" / fd).read_text() for fd in os.listdir(fds) if int(fd) > 2}
    assert flags
    open_ones = [fd for fd, info in flags.items() if not int(info.split("flags:")[1].split()[0], 8) & os.O_CLOEXEC]
    assert open_ones == []


def test_without_the_socket_unit_a_launcher_starts_its_own(machine: Machine) -> None:
    machine.run("systemctl", "stop", SOCKET)
    connect(machine, launch(machine))
    assert machine.main_pid(SERVICE) == 0
    machine.run("kill", (machine.root / "run/shimd/shimd.pid").read_text().strip())
