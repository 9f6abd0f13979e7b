"""What all tests of the units share."""

import sys
from pathlib import Path

from tests.e2e.systemd.machine import Machine

PROJECT = Path(__file__).resolve().parents[3]
UNITS = PROJECT / "systemd"
SERVICE, SOCKET = "shimd.service", "shimd.socket"
DROP_IN = "etc/systemd/system/shimd.service.d/test.conf"


def install(machine: Machine, source: str) -> None:
    """Make ``source`` what ``/usr/local/bin/shimd`` is, with the project's packages in reach."""
    program = machine.root / "usr/local/bin/shimd"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n{source}")
    program.chmod(0o755)


def launch(machine: Machine) -> str:
    """Ask for an address as containerd does."""
    command = "cd /tmp && exec containerd-shim-wasmer-v1 -namespace default -address /c.sock -id web start"
    return machine.run("sh", "-c", command)


def drop_in(machine: Machine, *lines: str) -> None:
    path = machine.root / DROP_IN
    path.parent.mkdir()
    path.write_text("\n".join(["[Service]", *lines, ""]))
    machine.run("systemctl", "daemon-reload")


def is_alive(machine: Machine, pid: object) -> bool:
    return (machine.root / f"proc/{pid}").exists()
