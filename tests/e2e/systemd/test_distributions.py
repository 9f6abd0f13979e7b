"""``shimd install --restart-containerd`` on nodes whose containerd is k3s's, rke2's, MicroK8s's or k0s's.

Their unit is a stand-in that makes the configuration as they do (``distribution.py``); containerd is real.
"""

import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shimd.launcher.build import ENGINES
from shimd.launcher.names import runtime_type
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version
from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.units import PROJECT, SERVICE, SOCKET, UNITS

OLD, NEW = VERSIONS
MICROK8S_UNIT = "snap.microk8s.daemon-containerd"
MICROK8S = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "${SNAPSHOTTER}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "${RUNTIME_TYPE}"
"""


@dataclass(frozen=True)
class Distribution:
    name: str
    unit: str
    program: str
    version: Version
    config_version: int
    trees: tuple[str, ...]
    """What a node has of it."""


DISTRIBUTIONS = [
    Distribution("k3s", "k3s-agent", "var/lib/rancher/k3s/data/current/bin", OLD, 2, ("var/lib/rancher",)),
    Distribution("rke2", "rke2-server", "var/lib/rancher/rke2/bin", NEW, 3, ("var/lib/rancher",)),
    Distribution(
        "MicroK8s", "snap.microk8s.daemon-containerd", "snap/microk8s/current/bin", OLD, 2, ("snap", "var/snap")
    ),
    Distribution("k0s", "k0sworker", "var/lib/k0s/bin", NEW, 3, ("var/lib/k0s", "etc/k0s")),
]
UNIT = """\
[Service]
Type=notify
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
ExecStart={python} {script} {name} {version} {program} {project}
"""


@pytest.fixture(params=DISTRIBUTIONS, ids=lambda each: each.name)
def distribution(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Distribution]:
    """A node of it, which has started once, without shimd's units and launchers."""
    each: Distribution = request.param
    units, bin = machine.root / "etc/systemd/system", machine.root / "usr/local/bin"
    launchers = [path for path in bin.iterdir() if path.name.startswith("containerd-shim-")]
    kept = machine.root / "run/kept"
    kept.mkdir()
    for path in launchers:
        shutil.move(path, kept)
    for unit in (SERVICE, SOCKET):
        (units / unit).unlink()
    own = machine.root / each.program
    own.mkdir(parents=True)
    (own / "containerd").symlink_to(each.version.program("containerd"))
    if each.name == "MicroK8s":
        args = machine.root / "var/snap/microk8s/current/args"
        args.mkdir(parents=True)
        (args / "containerd-template.toml").write_text(MICROK8S)
    if each.name == "k0s":
        (machine.root / "etc/k0s").mkdir()
    script = Path(__file__).with_name("distribution.py")
    unit = UNIT.format(
        python=sys.executable,
        script=script,
        name=each.name,
        version=each.config_version,
        program=f"/{each.program}/containerd",
        project=PROJECT,
    )
    (units / f"{each.unit}.service").write_text(unit)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", each.unit)
    yield each
    machine.run("systemctl", "stop", each.unit, SOCKET, SERVICE, check=False)
    (units / f"{each.unit}.service").unlink()
    for tree in (*each.trees, "run/stand-in"):
        shutil.rmtree(machine.root / tree, ignore_errors=True)
    for path in kept.iterdir():
        shutil.move(path, bin)
    kept.rmdir()
    for name in (SERVICE, SOCKET):
        shutil.copy(UNITS / name, units)
    machine.run("systemctl", "daemon-reload")


def shimd(machine: Machine, *words: str, check: bool = True) -> str:
    return machine.run(str(LAUNCHERS / "shimd"), *words, check=check)


def runtimes(machine: Machine, each: Distribution) -> dict[str, str]:
    """What the containerd that runs has been told, as it reads it."""
    pid = machine.show(f"{each.unit}.service", "MainPID")
    words = (machine.root / f"proc/{pid}/cmdline").read_text().split("\0")
    dump = machine.run(f"/{each.program}/containerd", "--config", words[2], "config", "dump")
    said = "\n".join(line for line in dump.splitlines() if not line.startswith("time="))
    plugins = [plugin.get("containerd", {}) for plugin in tomllib.loads(said)["plugins"].values()]
    found = [item for plugin in plugins for item in plugin.get("runtimes", {}).items()]
    return {name: runtime["runtime_type"] for name, runtime in found}


@pytest.mark.parametrize("machine", ["unified"], indirect=True)
def test_installed_restarted_and_uninstalled(machine: Machine, distribution: Distribution) -> None:
    before, first = runtimes(machine, distribution), machine.main_pid(distribution.unit)
    shimd(machine, "install", "--restart-containerd")
    second = machine.main_pid(distribution.unit)
    assert second not in (0, first)
    assert runtimes(machine, distribution) == {**before, **{name: runtime_type(name) for name in ENGINES}}
    assert "Environment=PATH=" in (machine.root / f"etc/systemd/system/{SERVICE}").read_text()
    assert shimd(machine, "install").startswith("nothing to do")

    shimd(machine, "uninstall", "--restart-containerd")
    assert machine.main_pid(distribution.unit) not in (0, first, second)
    assert runtimes(machine, distribution) == before
    shutil.rmtree(machine.root / "run/shimd", ignore_errors=True)
