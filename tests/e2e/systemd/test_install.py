"""``shimd install`` where systemd runs: units that work, and go again."""

import json
import shutil
import sys
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


#: containerd, as far as systemd can tell: one that does not start with our runtimes.
DOES_NOT_START = """\
[Service]
ExecStartPre=/bin/sh -c '! grep -q wasmtime /etc/containerd/config.toml'
ExecStart=/bin/sleep 1000
"""


@pytest.mark.parametrize("before", ["new", "there"])
def test_a_containerd_that_does_not_start_gets_back_what_it_had(machine: Machine, before: str) -> None:
    """It runs again, the socket is as it was, and so is each file."""
    config = machine.root / "etc/containerd/config.toml"
    unit = machine.root / "etc/systemd/system/containerd.service"
    config.parent.mkdir(exist_ok=True)
    config.write_text("version = 2\n")
    unit.write_text(DOES_NOT_START)
    try:
        if before == "there":
            shimd(machine, "install")
            config.write_text("version = 2\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "containerd")
        would = shimd(machine, "install", "--dry-run", "--restart-containerd")
        assert would.endswith("would restart containerd\n"), would
        found, first = state(machine), machine.main_pid("containerd.service")
        words = (str(LAUNCHERS / "shimd"), "install", "--bin-dir", f"/{BIN}", "--restart-containerd")
        said = machine.run(*words, check=False)
        assert "shimd: systemctl restart containerd: " in said and "; all is as it was" in said, said
        assert state(machine) == found
        assert machine.main_pid("containerd.service") not in (0, first)
        shimd(machine, "uninstall")
    finally:
        machine.run("systemctl", "stop", "containerd", check=False)
        unit.unlink()
        config.unlink()
        machine.run("systemctl", "daemon-reload")


TREES = """
from pathlib import Path
from tests.e2e.trees import tree
tree(Path("/opt/one"))
tree(Path("/opt/two")).change("99.0")
"""


def test_upgraded_and_stopped(machine: Machine) -> None:
    """By another installation, whose program is in the unit from then on; then for good."""
    machine.run("env", f"PYTHONPATH={UNITS.parent}", sys.executable, "-c", TREES)
    flags = ("--bin-dir", f"/{BIN}")
    machine.run("/opt/one/bin/shimd", "install", *flags)
    start = f"cd /tmp && exec /{BIN}/containerd-shim-wasmtime-v1 -namespace default -address /c.sock -id x start"
    address, first = machine.run("sh", "-c", start), machine.main_pid(SERVICE)
    assert machine.show(SERVICE, "ExecStart").startswith("{ path=/opt/one/bin/shimd ;")
    before = json.loads(machine.run("/opt/two/bin/shimd", "status", "--json"))
    assert [one["what"] for one in before["old"]] == ["the daemon", "the keeper"]

    said = machine.run("/opt/two/bin/shimd", "upgrade", *flags)
    assert f"was of {before['release']}, pid {first}" in said, said
    assert machine.show(SERVICE, "ExecStart").startswith("{ path=/opt/two/bin/shimd ;")
    second = machine.main_pid(SERVICE)
    assert second not in (0, first)
    after = json.loads(machine.run("/opt/two/bin/shimd", "status", "--json"))
    assert (after["pid"], after["version"], after["release"]) == (second, "99.0", after["installed"])
    machine.wait_for("the keeper's end", lambda: machine.run("pgrep", "-c", "shimd-keeper", check=False).strip() == "1")
    assert machine.run("sh", "-c", start) == address
    assert "as is installed" in machine.run("/opt/two/bin/shimd", "upgrade", *flags)
    assert machine.main_pid(SERVICE) == second

    machine.run("/opt/two/bin/shimd", "stop")
    assert machine.main_pid(SERVICE) == 0
    assert machine.show(SOCKET, "ActiveState") == "inactive"
    assert machine.run("pgrep", "-f", "shimd", check=False) == ""
    machine.run("/opt/two/bin/shimd", "uninstall", *flags)
    assert machine.show(SERVICE, "LoadState") == "not-found"
    assert not (machine.root / "run/shimd").exists()


def state(machine: Machine) -> object:
    places = (BIN, "etc/containerd", "etc/systemd/system")
    files = {path: path.lstat().st_size for place in places for path in (machine.root / place).rglob("*")}
    return files, machine.show(SOCKET, "ActiveState"), machine.show(SOCKET, "UnitFileState")


def test_a_restart_of_what_is_not_there(machine: Machine) -> None:
    said = machine.run(str(LAUNCHERS / "shimd"), "install", "--bin-dir", f"/{BIN}", "--restart-containerd", check=False)
    if "containerd.service" in machine.run("systemctl", "list-unit-files", "containerd.service", check=False):
        assert machine.show("containerd.service", "ActiveState") == "active"
    else:
        assert "systemctl restart containerd: " in said
    shimd(machine, "uninstall")
