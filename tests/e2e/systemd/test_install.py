"""``shimd install`` where systemd runs: units that work, and go again."""

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.containerd import LAUNCHERS
from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.units import SERVICE, SOCKET, UNITS

BIN = "usr/local/sbin"


@pytest.fixture(autouse=True)
def bare(machine: Machine) -> Iterator[None]:
    """A machine without the units that the other modules start with."""
    units = machine.root / "etc/systemd/system"
    for unit in (SERVICE, SOCKET):
        (units / unit).unlink()
    machine.run("systemctl", "daemon-reload")
    yield
    machine.run("systemctl", "stop", SOCKET, SERVICE, check=False)
    for unit in (SERVICE, SOCKET):
        shutil.copy(UNITS / unit, units)
    machine.run("systemctl", "daemon-reload")


def shimd(machine: Machine, command: str, *flags: str) -> str:
    return machine.run(str(LAUNCHERS / "shimd"), command, "--bin-dir", f"/{BIN}", *flags)


def test_installed_and_uninstalled(machine: Machine) -> None:
    config = machine.root / "etc/containerd/config.toml"
    before = config.read_bytes() if config.exists() else None
    said = shimd(machine, "install")
    assert "takes its new configuration when it is restarted" in said
    assert machine.show(SOCKET, "ActiveState") == "active"
    assert machine.show(SOCKET, "UnitFileState") == "enabled"
    address = machine.run(
        "sh",
        "-c",
        f"cd /tmp && exec /{BIN}/containerd-shim-wasmtime-v1 -namespace default -address /c.sock -id x start",
    )
    assert address.startswith("unix:///run/shimd/s/")
    assert machine.show(SERVICE, "ExecStart").startswith(f"{{ path={LAUNCHERS}/shimd ;")
    assert machine.main_pid(SERVICE) != 0

    shimd(machine, "uninstall")
    assert machine.show(SERVICE, "LoadState") == "not-found"
    assert machine.main_pid(SERVICE) == 0
    assert not list((machine.root / BIN).glob("*shim*"))
    assert (config.read_bytes() if config.exists() else None) == before
    shutil.rmtree(machine.root / "run/shimd", ignore_errors=True)


def test_a_restart_of_what_is_not_there(machine: Machine) -> None:
    said = machine.run(str(LAUNCHERS / "shimd"), "install", "--bin-dir", f"/{BIN}", "--restart-containerd", check=False)
    if "containerd.service" in machine.run("systemctl", "list-unit-files", "containerd.service", check=False):
        assert machine.show("containerd.service", "ActiveState") == "active"
    else:
        assert "systemctl restart containerd: " in said
    shimd(machine, "uninstall")
