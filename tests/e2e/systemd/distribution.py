"""A stand-in for k3s, rke2, MicroK8s or k0s: it makes containerd's configuration as they do, and becomes containerd.

Arguments: the name, the version of its configuration, the program, and the project's directory.
"""

import os
import shutil
import sys
from pathlib import Path

ARGS = "/var/snap/microk8s/current/args"
RUN = ("--address", "/run/stand-in.sock", "--root", "/run/stand-in/root", "--state", "/run/stand-in/state")


def main() -> None:
    name, version, program, project = sys.argv[1:]
    sys.path.insert(0, project)
    config = {"MicroK8s": microk8s, "k0s": k0s}[name]() if name in ("MicroK8s", "k0s") else rancher(name, int(version))
    os.execv(program, ["containerd", "--config", str(config), *RUN])


def rancher(name: str, version: int) -> Path:
    from tests.unit.node.rancher import SHIMS, Node

    node = Node(Path("/"), version, imports=version == 3, name=name)
    node.start(*(each for each in SHIMS if shutil.which(program(each))))
    return node.config


def program(name: str) -> str:
    return f"containerd-shim-{name}-v{2 if name == 'spin' else 1}"


def microk8s() -> Path:
    config = Path(ARGS, "containerd.toml")
    template = Path(ARGS, "containerd-template.toml").read_text()
    config.write_text(template.replace("${SNAPSHOTTER}", "native").replace("${RUNTIME_TYPE}", "io.containerd.runc.v2"))
    return config


def k0s() -> Path:
    config = Path("/etc/k0s/containerd.toml")
    Path("/etc/k0s/containerd.d").mkdir(exist_ok=True)
    config.write_text('# k0s_managed=true\nimports = ["/etc/k0s/containerd.d/*.toml"]\nversion = 3\n')
    return config


main()
