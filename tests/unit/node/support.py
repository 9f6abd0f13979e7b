"""What tests of a node's configuration share."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

from shimd.node.changes import Change, applied, needed
from tests.e2e.containerd import Version


def apply(changes: list[Change]) -> None:
    with applied(needed(changes)):
        pass


def read_by(version: Version, path: Path) -> dict[str, Any]:
    """The CRI runtimes that a containerd has by this configuration."""
    command = [version.program("containerd"), "--config", str(path), "config", "dump"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    plugins = tomllib.loads(done.stdout)["plugins"]
    name = next(
        name
        for name in ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")
        if "containerd" in plugins.get(name, {})
    )
    runtimes: dict[str, Any] = plugins[name]["containerd"]["runtimes"]
    return runtimes


def types(runtimes: dict[str, Any]) -> dict[str, str]:
    return {name: runtime["runtime_type"] for name, runtime in runtimes.items()}


def files(root: Path) -> dict[str, bytes | None]:
    """All that is below a directory; of directories and links, that they are there."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}
