"""Kubernetes distributions that bring a containerd of their own: where it is, what it reads, which unit it runs in.

As their sources have it: k3s ``pkg/agent/templates`` and ``pkg/agent/containerd``, which rke2 uses, too; MicroK8s
``microk8s-resources``; k0s ``pkg/component/worker/containerd``.
"""

from dataclasses import dataclass
from pathlib import Path

_SERVICE = ("containerd",)
#: What systemd gives a unit, with which containerd and its shims are looked for.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Distribution:
    """Paths are as on the node."""

    name: str
    config: str
    """The file that containerd is given, or the template that makes it."""
    address: str
    """containerd's socket."""
    programs: str
    """The directory of its containerd and runc."""
    services: tuple[str, ...] = _SERVICE
    """Units that containerd may run in, of which a node has one."""
    renders: bool = False
    """True if it writes its configuration anew at each start, from a Go template (k3s, rke2)."""
    dropins: str = ""
    """A directory whose files it takes over into its configuration itself (k0s)."""

    def is_on(self, root: Path) -> bool:
        """Returns whether the node below ``root`` has it."""
        if self.renders:
            return below(root, self.config).parent.is_dir()
        return any(below(root, path).exists() for path in (self.config, self.dropins) if path)


def below(root: Path, path: str) -> Path:
    """Returns the node's path as we see it, if it does not say that itself."""
    return Path(path) if Path(path).is_relative_to(root) else root / path.lstrip("/")


def _rancher(name: str, programs: str, services: tuple[str, ...]) -> Distribution:
    config = f"/var/lib/rancher/{name}/agent/etc/containerd/config.toml"
    return Distribution(name, config, "/run/k3s/containerd/containerd.sock", programs, services, renders=True)


#: containerd by itself: a package's, or one of kubeadm's nodes.
PLAIN = Distribution("containerd", "/etc/containerd/config.toml", "/run/containerd/containerd.sock", "/usr/bin")
DISTRIBUTIONS = (
    _rancher("k3s", "/var/lib/rancher/k3s/data/current/bin", ("k3s", "k3s-agent")),
    _rancher("rke2", "/var/lib/rancher/rke2/bin", ("rke2-server", "rke2-agent")),
    Distribution(
        "MicroK8s",
        "/var/snap/microk8s/current/args/containerd-template.toml",
        "/var/snap/microk8s/common/run/containerd.sock",
        "/snap/microk8s/current/bin",
        ("snap.microk8s.daemon-containerd",),
    ),
    Distribution(
        "k0s",
        "/etc/k0s/containerd.toml",
        "/run/k0s/containerd.sock",
        "/var/lib/k0s/bin",
        ("k0scontroller", "k0sworker"),
        dropins="/etc/k0s/containerd.d",
    ),
)
