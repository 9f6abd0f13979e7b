"""Machines with the units and launchers installed, one for each kind of cgroups; a module installs its ``shimd``."""

import shutil
from collections.abc import Iterator

import pytest

from shimd.launcher.build import build
from tests.e2e.systemd.machine import Machine, booted, possible
from tests.e2e.systemd.units import DROP_IN, SERVICE, SOCKET, UNITS


@pytest.fixture(scope="session", params=["hybrid", "unified"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if not shutil.which("systemctl"):
        pytest.skip("no systemd here")
    if not possible(request.param):
        pytest.skip("the kernel's cgroup controllers are not of version 1")
    launchers = tmp_path_factory.mktemp("launchers")
    build(launchers, "1.2.3")
    with booted(request.param) as machine:
        for unit in (SERVICE, SOCKET):
            shutil.copy(UNITS / unit, machine.root / "etc/systemd/system")
        for launcher in launchers.iterdir():
            shutil.copy(launcher, machine.root / "usr/local/bin")
        yield machine


@pytest.fixture
def fresh(machine: Machine) -> Iterator[None]:
    """A test starts with the socket alone."""
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", SOCKET)
    yield
    machine.run("systemctl", "stop", SOCKET, SERVICE)
    machine.run("systemctl", "kill", "--kill-who=all", "--signal=KILL", SERVICE, check=False)
    machine.wait_for("the end of all", lambda: not left(machine))
    shutil.rmtree(machine.root / "run/shimd")
    shutil.rmtree((machine.root / DROP_IN).parent, ignore_errors=True)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed")


def left(machine: Machine) -> list[str]:
    """Processes that tests have started."""
    lines = machine.run("ps", "-e", "-o", "args").splitlines()
    return [line for line in lines if "shimd" in line.split()[0:2] or line.startswith("sleep ")]
