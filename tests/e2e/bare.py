"""A new user's machine: a throw-away copy of a bare root tree of Debian, which tools/setup makes (tools/bare)."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.containerd import REPOSITORY

SUITES = ("bookworm", "trixie")
TREES = REPOSITORY / ".cache/bare"
#: How this machine's pip and cargo come to their registries, and its like. Directories of this machine are not there.
_KEPT = ("PIP_", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "SSL_CERT_", "HTTP_", "HTTPS_", "NO_", "TERM")
_NOT_THERE = {"PIP_FIND_LINKS", "PIP_CONFIG_FILE", "PIP_CACHE_DIR"}
#: Where tools/bare finds its programs, pip's cache and cargo's configuration.
_WHERE = ("HOME", "PATH", "XDG_CACHE_HOME", "CARGO_HOME")
_SOURCE = "/srv/shimd.git"


class Machine:
    """What its commands change is in a directory. Their processes and mounts end with them."""

    def __init__(self, suite: str, directory: Path) -> None:
        self._enter = [str(REPOSITORY / "tools/bare"), suite, str(directory)]
        self.env = {
            **{name: value for name, value in os.environ.items() if name.upper().startswith(_KEPT)},
            **{name: os.environ[name] for name in _WHERE if name in os.environ},
        }
        for name in _NOT_THERE & self.env.keys():
            del self.env[name]
        self._changed = directory / "upper"
        source = self._changed / _SOURCE.lstrip("/")
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

    def put(self, name: str, contents: bytes) -> str:
        """A file; where it is."""
        (self._changed / "srv" / name).write_bytes(contents)
        return f"/srv/{name}"

    def with_security_updates(self) -> None:
        """As Debian's installer has it, and debootstrap has not: beside the archive, for the same suite."""
        sources = "/etc/apt/sources.list"
        self.must(f"sed -E 's|/debian (\\w+) |/debian-security \\1-security |' {sources} >{sources}.d/security.list")


@contextmanager
def machine_of(suite: str) -> Iterator[Machine]:
    if not (TREES / suite).exists():
        pytest.skip("there are no bare root trees: run tools/setup")
    with tempfile.TemporaryDirectory(prefix="shimd-bare-") as directory:
        yield Machine(suite, Path(directory))
