"""A root file system on the node, and a configuration that a test writes itself: for what ctr has no flag for."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.box import Attached, Box
from tests.e2e.containerd import Result


class Bundle:
    """A root file system with the box's program, and a configuration like any other."""

    def __init__(self, box: Box, directory: Path, program: bytes) -> None:
        self.box, self.directory = box, directory
        self.root = directory / "root"
        for name in ("bin", "proc", "dev"):
            (self.root / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.root / "bin/busybox")
        path = self.root / box.runtime.program.lstrip("/")
        path.write_bytes(program)
        path.chmod(0o755)
        for path in (directory, *directory.parents):
            if path.is_relative_to("/tmp") and path != Path("/tmp"):
                path.chmod(0o755)

    def run(self, spec: dict[str, Any], flags: tuple[str, ...] = ("--rm",)) -> Result:
        """``ctr run`` with that configuration."""
        return self.box.ctr(*self._run(spec, flags), check=False)

    def begin(self, spec: dict[str, Any], *flags: str) -> Attached:
        """The same, left running."""
        return self.box.popen(*self._run(spec, flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _run(self, spec: dict[str, Any], flags: tuple[str, ...]) -> list[object]:
        config = self.directory / "config.json"
        config.write_text(json.dumps(spec))
        return ["run", "--runtime", self.box.runtime.type, *flags, "--config", config, "app"]

    def spec(self, *app: str) -> dict[str, Any]:
        """As ctr makes it for the box's image."""
        self.box.ctr("containers", "create", "--runtime", self.box.runtime.type, self.box.runtime.image, "like")
        said = self.box.ctr("containers", "info", "--spec", "like").out
        self.box.ctr("containers", "delete", "like")
        found: dict[str, Any] = json.loads(said)
        found["root"] = {"path": str(self.root)}
        found["process"]["args"] = [self.box.runtime.program, *app]
        return found
