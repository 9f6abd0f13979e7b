"""A new user's machine: a throw-away copy of a bare root tree of Debian, which tools/setup makes (tools/bare)."""

import os
import subprocess
from pathlib import Path

from tests.e2e.containerd import REPOSITORY

SUITES = ("bookworm", "trixie")
TREES = REPOSITORY / ".cache/bare"
#: How this machine's pip comes to its index, and its like. Directories of this machine are not there.
_KEPT = ("PIP_", "SSL_CERT_", "HTTP_", "HTTPS_", "NO_", "TERM")
_NOT_THERE = {"PIP_FIND_LINKS", "PIP_CONFIG_FILE", "PIP_CACHE_DIR"}
_SOURCE = "/srv/shimd.git"


class Machine:
    """What its commands change is in a directory. Their processes and mounts end with them."""

    def __init__(self, suite: str, directory: Path) -> None:
        self._enter = [str(REPOSITORY / "tools/bare"), suite, str(directory)]
        self.env = {
            **{name: value for name, value in os.environ.items() if name.upper().startswith(_KEPT)},
            **{name: os.environ[name] for name in ("HOME", "PATH", "XDG_CACHE_HOME") if name in os.environ},
        }
        for name in _NOT_THERE & self.env.keys():
            del self.env[name]
        source = directory / "upper" / _SOURCE.lstrip("/")
        source.parent.mkdir(parents=True)
        bare = ["git", "clone", "--quiet", "--bare", "--depth=1", f"file://{REPOSITORY}", str(source)]
        subprocess.run(bare, check=True, capture_output=True)

    def run(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A shell's script, as root, in root's home."""
        command = [*self._enter, "sh", "-c", script, "sh", *arguments]
        return subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def must(self, script: str, *arguments: str) -> str:
        done = self.run(script, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def clone(self, place: str) -> None:
        """What HEAD is here."""
        self.must('git clone --quiet "$1" "$2"', _SOURCE, place)
