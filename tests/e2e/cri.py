"""containerd as the kubelet uses it: with its CRI plugin, a pod network, and ``crictl`` in the kubelet's place.

It runs in a network namespace of its own, and so does all of its pods' network.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import leftovers
from tests.e2e.containerd import PATIENCE, REPOSITORY, Containerd, Result, Version

PAUSE = "test.invalid/pause:1"
CRICTL = REPOSITORY / ".cache/cri-tools/crictl"
#: The parent of all pods' cgroups: others may run these tests on this machine at the same time.
CGROUPS = f"e2e-pods-{os.getpid()}"
#: Of CRI's NamespaceMode.
POD, CONTAINER, NODE = 0, 1, 2
Json = Mapping[str, Any]

_COMMON = """\
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
    "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.erofs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
"""
_V2 = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/registries"
"""
_V3 = """\
version = 3
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{directory}/registries"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{directory}/cni"
"""
_RUNTIME = """\
[plugins."{plugin}".containerd.runtimes.{name}]
  runtime_type = "{type}"
  pod_annotations = ["shimd.io/*"]
"""
#: crictl's own default is a pid namespace for the whole pod.
_AS_THE_KUBELET = {"security_context": {"namespace_options": {"pid": CONTAINER}}}
_HANDLERS = {
    "runc": "io.containerd.runc.v2",
    "wasmtime": "io.containerd.wasmtime.v1",
    "wasmedge": "io.containerd.wasmedge.v1",
    "wasmer": "io.containerd.wasmer.v1",
    "slight": "io.containerd.slight.v1",
    "spin": "io.containerd.spin.v2",
}
_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "shimd-test",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "dataDir": "{directory}/ipam"},
        },
    ],
}


class CriContainerd(Containerd):
    """With a bridge that its pods are on."""

    def __init__(self, version: Version, directory: Path) -> None:
        self._holder = self._hold()
        (directory / "cni").mkdir()
        network = json.dumps(_NETWORK).replace("{directory}", str(directory))
        (directory / "cni/10-test.conflist").write_text(network)
        super().__init__(version, directory)

    def _hold(self) -> "subprocess.Popen[bytes]":
        """A process that keeps the node's namespaces."""
        return subprocess.Popen(["unshare", "--net", "sleep", "infinity"])

    def _configuration(self) -> str:
        old = self.version.name == "debian"
        plugin = "io.containerd.grpc.v1.cri" if old else "io.containerd.cri.v1.runtime"
        text = (_V2 if old else _V3).format(
            directory=self.directory, pause=PAUSE, snapshotter=self.env["CONTAINERD_SNAPSHOTTER"]
        )
        runtimes = "".join(_RUNTIME.format(plugin=plugin, name=name, type=type) for name, type in _HANDLERS.items())
        head, _, rest = text.partition("\n")
        return f"{head}\n{_COMMON.format(directory=self.directory)}{rest}{runtimes}"

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    def start(self) -> None:
        self._wait_for_network()
        super().start()

    def _wait_for_network(self) -> None:
        deadline = time.monotonic() + PATIENCE
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        subprocess.run([*self._enter(), "ip", "link", "set", "lo", "up"], check=True)

    def close(self) -> None:
        """The network goes with the last that is in it."""
        self._holder.kill()
        self._holder.wait()
        with suppress(OSError):  # another node's pods are there still
            leftovers.remove_parents(CGROUPS)

    def inside(self, *command: object) -> list[str]:
        """A command line that runs in the node's network."""
        return [*self._enter(), *map(str, command)]

    def crictl(self, *arguments: object, check: bool = True, timeout: float = PATIENCE) -> Result:
        """Run ``crictl`` to its end."""
        endpoint = f"unix://{self.address}"
        command = self.inside(CRICTL, "-r", endpoint, "-i", endpoint, "-t", f"{timeout:g}s", *arguments)
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"crictl {arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return Result(command, done.returncode, done.stdout, done.stderr)


def _merged(first: Json, second: Json) -> Json:
    """``second`` over ``first``, object by object."""
    shared = first.keys() & second.keys()
    objects = {key for key in shared if isinstance(first[key], Mapping) and isinstance(second[key], Mapping)}
    return {**first, **second, **{key: _merged(first[key], second[key]) for key in objects}}


@dataclass
class Pod:
    """A pod sandbox and its containers."""

    node: CriContainerd
    id: str
    config: Path
    directory: Path
    containers: dict[str, str] = field(default_factory=dict)

    def create(self, name: str, image: str, *command: object, **more: Any) -> str:
        """A container, by CRI's ContainerConfig; ``more`` is merged into it."""
        config = {
            "metadata": {"name": name},
            "image": {"image": image},
            "log_path": f"{name}.log",
            "linux": _AS_THE_KUBELET,
            **({"command": [str(word) for word in command]} if command else {}),
        }
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(_merged(config, more)))
        id = self.node.crictl("create", "--no-pull", self.id, path, self.config).out.strip()
        self.containers[name] = id
        return id

    def start(self, name: str, image: str, *command: object, **more: Any) -> str:
        id = self.create(name, image, *command, **more)
        self.node.crictl("start", id)
        return id

    def status(self, name: str) -> dict[str, Any]:
        inspected = json.loads(self.node.crictl("inspect", self.containers[name]).out)
        found: dict[str, Any] = inspected["status"]
        return found

    def pid(self, name: str) -> int:
        return int(json.loads(self.node.crictl("inspect", self.containers[name]).out)["info"]["pid"])

    def sandbox(self) -> dict[str, Any]:
        """As ``crictl inspectp`` tells of it."""
        found: dict[str, Any] = json.loads(self.node.crictl("inspectp", self.id).out)
        return found

    def log(self, name: str) -> str:
        """What a container wrote, without the time, stream and tag of each line."""
        lines = (self.directory / f"{name}.log").read_text().splitlines()
        return "".join(line.split(" ", 3)[3] + "\n" for line in lines)

    def exec(self, name: str, *command: object, check: bool = False) -> Result:
        """Its code and the lines it wrote; crictl ends them with empty ones."""
        return self.node.crictl("exec", "-s", self.containers[name], *command, check=check)

    def remove(self) -> None:
        self.node.crictl("stopp", self.id)
        self.node.crictl("rmp", "-f", self.id)


def run_pod(node: CriContainerd, directory: Path, handler: str, name: str = "pod", **more: Any) -> Pod:
    """A sandbox, by CRI's PodSandboxConfig; ``more`` is merged into it."""
    directory.mkdir(exist_ok=True)
    config = {
        "metadata": {"name": name, "namespace": "default", "uid": f"{name}-{time.time_ns()}", "attempt": 0},
        "log_directory": str(directory),
        "linux": {**_AS_THE_KUBELET, "cgroup_parent": f"/{CGROUPS}"},
    }
    path = directory / "pod.json"
    path.write_text(json.dumps(_merged(config, more)))
    id = node.crictl("runp", "--runtime", handler, path).out.strip()
    return Pod(node, id, path, directory)
