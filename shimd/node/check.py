"""Asks the node's own containerd whether it takes its configuration: before it is restarted, not after."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shimd.errors import FailedPrecondition
from shimd.linux.peer import peer_pid
from shimd.node.changes import read
from shimd.node.configs import ContainerdConfig
from shimd.node.containerd import effective, names_of, uses_base
from shimd.node.distributions import PATH, PLAIN, below

_IMPORTS = re.compile(r"^([ \t]*imports[ \t]*=[ \t]*)(\[[^]]*\])", re.MULTILINE)
#: The containerd of k3s and rke2, and the first that came with ``{{ template "base" . }}`` (k3s, pull request 7991).
_OWN_VERSION = re.compile(r"\bv(\d+)\.(\d+)\.(\d+)-k3s")
_WITH_BASE = (1, 7, 3)


@dataclass(frozen=True)
class ContainerdProgram:
    """A containerd, and the name that it is run by: a file may be many programs (k3s)."""

    path: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        :raises OSError: it cannot be run
        :raises subprocess.TimeoutExpired: it did not answer within a minute
        """
        command = ["containerd", *arguments]
        return subprocess.run(
            command,
            executable=self.path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )


def verify_configuration(config: ContainerdConfig, root: Path, runtimes: Sequence[str]) -> str | None:
    """Have the node's containerd read its configuration, as it is now.

    :returns: a sentence, if there is no containerd to ask
    :raises FailedPrecondition: it refuses
    """
    if config.disabled:
        return None
    program = _program(config, root)
    if program is None:
        return f"no containerd of {config.distribution.name} was found on this node: its configuration was not checked"
    try:
        _check_base(config, program.run("--version"))
        with _file(config, root, runtimes) as path:
            done = program.run("--config", str(path), "config", "dump")
            said = done.stderr.replace(str(path), str(config.main))
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program.path} does not run here, so that containerd's configuration was not checked: {error}"
    if done.returncode != 0:
        raise FailedPrecondition(f"containerd refuses its configuration, and all is as it was: {_reason(said)}")
    try:
        seen = _runtimes(done.stdout)
    except (tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        return f"what {program.path} prints as its configuration is not understood, so that it was not checked: {error}"
    for name in sorted(set(names_of(config)) - seen):
        raise FailedPrecondition(f"containerd does not see the runtime {name} in {config.path}, and all is as it was")
    return None


def _program(config: ContainerdConfig, root: Path) -> ContainerdProgram | None:
    """Find the containerd that runs, or else the one that is installed."""
    places = [str(below(root, config.distribution.programs) / "containerd")]
    if config.distribution == PLAIN:
        named = os.environ.get("CONTAINERD_ADDRESS")
        running = _executable(named or PLAIN.address) if named or root == Path("/") else None
        installed = shutil.which("containerd", path=PATH) if root == Path("/") else None
        places = [*([running] if running else []), *([installed] if installed else places)]
    return next((ContainerdProgram(place) for place in places if os.access(place, os.X_OK)), None)


def _executable(address: str) -> str | None:
    """Returns the program of the containerd that answers there; none if it ends meanwhile, or may not be looked at."""
    found = process(address)
    try:
        return os.readlink(found / "exe") if found else None
    except OSError:
        return None


def _check_base(config: ContainerdConfig, version: subprocess.CompletedProcess[str]) -> None:
    """Check, with the containerd that k3s or rke2 brings, that it has the template that ours is built upon.

    :raises FailedPrecondition: it has not, and would not start
    :raises subprocess.CalledProcessError: it does not tell
    """
    version.check_returncode()
    own = _OWN_VERSION.search(version.stdout)
    if own is None or not uses_base(config) or tuple(map(int, own.groups())) >= _WITH_BASE:
        return
    name = config.distribution.name
    raise FailedPrecondition(
        f'this {name} is too old: it has no template "base" ({name} has since September 2023: 1.24.17, 1.25.13, '
        f"1.26.8, 1.27.5, 1.28.1). Update it, or put its whole template into {config.path}; all is as it was"
    )


def process(address: str) -> Path | None:
    """Returns the directory in /proc of the containerd that listens at ``address``; ``None``: nobody does."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address)
            return Path("/proc", str(peer_pid(sock)))
    except OSError:
        return None


@contextmanager
def _file(config: ContainerdConfig, root: Path, runtimes: Sequence[str]) -> Iterator[Path]:
    """Yield the file that containerd is to read: a copy, if it will be another than the file that there is."""
    text = effective(config, runtimes) if config.template else read(config.main) or ""
    seen = text if root == Path("/") else _IMPORTS.sub(lambda found: found[1] + _below(root, found[2]), text)
    if seen == read(config.main):
        yield config.main
        return
    with tempfile.TemporaryDirectory(prefix="shimd-install-") as directory:
        path = Path(directory, config.main.name)
        path.write_bytes(seen.encode())
        yield path


def _below(root: Path, imports: str) -> str:
    """Convert import patterns to paths as they are outside of the node's tree."""
    return re.sub(r"""(["'])(/[^"']*)\1""", lambda found: f"{found[1]}{below(root, found[2])}{found[1]}", imports)


def _reason(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("containerd: ") if lines else "it says nothing"


def _runtimes(dump: str) -> set[str]:
    plugins = tomllib.loads(dump).get("plugins", {})
    return {name for plugin in plugins.values() for name in (plugin.get("containerd") or {}).get("runtimes") or {}}
