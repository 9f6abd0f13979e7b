"""containerd's configuration: where it is, and a block of our own at the end of it, between two marks.

A block, and not tables put among the others: what an operator wrote stays as it is to the byte, and uninstalling is
taking the block away. TOML allows it wherever tables are tables; what else there may be is refused.

Measured, with containerd 1.6.20 and 2.4.2:

* 1.x takes the default runtime ``runc`` away as soon as any runtime is configured: the block then brings it along.
* 1.x replaces a plugin's whole section by that of a file named in ``imports``: the last one that has it is the one
  to be edited. 2.x merges them, key by key, so that a drop-in may hold the block.
* Versions 3 and 4 call the plugin ``io.containerd.cri.v1.runtime``, version 2 ``io.containerd.grpc.v1.cri``. 2.x reads
  version 2, too.
"""

import glob
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.launcher.build import VERSIONS
from shimd.node.changes import Change, read

BEGIN = "# >>> shimd install: what lies between these marks is its own"
END = "# <<< shimd install"
CONFIG = "etc/containerd/config.toml"
#: Distributions that generate their configuration from a template: its directory, and the service to restart.
_GENERATED = {"var/lib/rancher/k3s/agent/etc/containerd": "k3s", "var/lib/rancher/rke2/agent/etc/containerd": "rke2"}
_PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}
#: Of pods, those that reach their containers (``shimd/task/listen.py``).
_ANNOTATIONS = "shimd.io/*"
_RUNC = "io.containerd.runc.v2"
_OURS = "# written by shimd install\n"
_BASE = '{{ template "base" . }}\n'


@dataclass(frozen=True)
class Config:
    """A file that gets the block."""

    path: Path
    version: int
    service: str = "containerd"
    template: bool = False
    """Go's template of a TOML file, not TOML itself."""


def find(root: Path, config: Path | None = None) -> Config:
    """The file to edit on the node below ``root``.

    :raises InvalidArgument: one that there is cannot be read, or is of a version that is not known
    """
    if config is None:
        for directory, service in _GENERATED.items():
            if (found := root / directory).is_dir():
                return _generated(found, service)
    main = config or root / CONFIG
    table = _parsed(main)
    version = _version(main, table)
    imported = _imports(root, main, table)
    if version == 2:
        holders = [path for path in imported if _PLUGINS[2] in (_parsed(path).get("plugins") or {})]
        return Config(holders[-1], 2) if holders else Config(main, version)
    dropins = _dropins(root, main, table)
    return Config(dropins / "shimd.toml", version) if dropins else Config(main, version)


def _generated(directory: Path, service: str) -> Config:
    """k3s and rke2: version 3 comes from a template of another name (docs.k3s.io, "Configuring containerd")."""
    version = _version(directory / "config.toml", _parsed(directory / "config.toml"))
    name = "config.toml.tmpl" if version == 2 else "config-v3.toml.tmpl"
    return Config(directory / name, min(version, 3), service, template=True)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read(path) or "")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is not valid TOML: {error}") from None


def _version(path: Path, table: Mapping[str, Any]) -> int:
    """Of a file that is not there, 2: every containerd reads that."""
    version = table.get("version", 1 if table else 2)
    if version not in _PLUGINS:
        raise InvalidArgument(f"{path}: version {version} of containerd's configuration is not known (2 to 4 are)")
    return int(version)


def _imports(root: Path, main: Path, table: Mapping[str, Any]) -> list[Path]:
    patterns = [_absolute(root, main, pattern) for pattern in table.get("imports") or []]
    return [Path(path) for pattern in patterns for path in sorted(glob.glob(pattern))]


def _dropins(root: Path, main: Path, table: Mapping[str, Any]) -> Path | None:
    """The directory of which every ``*.toml`` is imported, if there is one."""
    patterns = [_absolute(root, main, pattern) for pattern in table.get("imports") or []]
    directories = [Path(pattern).parent for pattern in patterns if pattern.endswith("/*.toml")]
    return next((directory for directory in directories if directory.is_dir()), None)


def _absolute(root: Path, main: Path, pattern: str) -> str:
    return str((root if os.path.isabs(pattern) else main.parent) / pattern.lstrip("/"))


def installed(config: Config, runtimes: Sequence[str]) -> Change:
    """The change that makes containerd know these runtimes, by name.

    :raises InvalidArgument: the file is not understood
    :raises FailedPrecondition: a runtime of that name is there, and somebody else's
    """
    text = _without_block(config.path, read(config.path))
    present = {} if config.template else _runtimes(config, text)
    wanted = [name for name in runtimes if not _is_ours(config, name, present.get(name))]
    block = _block(config, wanted, present)
    if not block:
        return Change(config.path, text, backup=True)
    changed = _head(config, text) + block
    if not config.template:
        _check(config, changed, runtimes)
    return Change(config.path, changed, backup=True)


def uninstalled(config: Config) -> Change:
    """The change that takes the block away; and the file, if nothing else is in it."""
    before = read(config.path)
    text = _without_block(config.path, before)
    empty = text in ("", _head(config, ""))
    return Change(config.path, None if empty or before is None else text)


def _is_ours(config: Config, name: str, runtime: Any) -> bool:
    """Whether an operator has configured it already."""
    if runtime is None:
        return False
    found = runtime.get("runtime_type") if isinstance(runtime, dict) else runtime
    if found != runtime_type(name):
        raise FailedPrecondition(f"{config.path}: there is a runtime {name} already, of type {found}")
    return True


def runtime_type(name: str) -> str:
    return f"io.containerd.{name}.v{VERSIONS.get(name, (1,))[0]}"


def _runtimes(config: Config, text: str) -> dict[str, Any]:
    found: Any = _table(config.path, text)
    for key in ("plugins", _PLUGINS[config.version], "containerd", "runtimes"):
        found = found.get(key, {})
        if not isinstance(found, dict):
            raise InvalidArgument(f"{config.path}: {key} is not a table")
    return dict(found)


def _table(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{path} is not valid TOML: {error}") from None


def _block(config: Config, names: Sequence[str], present: Mapping[str, Any]) -> str:
    if not names:
        return ""
    keep_runc = config.version == 2 and "runc" not in present and not config.template
    types = {**({"runc": _RUNC} if keep_runc else {}), **{name: runtime_type(name) for name in names}}
    systemd = _uses_systemd(present.get("runc"))
    tables = "".join(_runtime(config, name, type, systemd) for name, type in types.items())
    return f"{BEGIN}\n{tables}{END}\n"


def _uses_systemd(runc: Any) -> bool:
    return isinstance(runc, dict) and bool((runc.get("options") or {}).get("SystemdCgroup"))


def _runtime(config: Config, name: str, type: str, systemd: bool) -> str:
    table = f'plugins."{_PLUGINS[config.version]}".containerd.runtimes.{name}'
    if type == _RUNC:
        return f'[{table}]\nruntime_type = "{type}"\n'
    options = f"[{table}.options]\nSystemdCgroup = true\n" if systemd else ""
    return f'[{table}]\nruntime_type = "{type}"\npod_annotations = ["{_ANNOTATIONS}"]\n{options}'


def _head(config: Config, text: str) -> str:
    """What comes before the block."""
    if not text:
        return _BASE if config.template else f"{_OURS}version = {config.version}\n"
    return text if text.endswith("\n") else text + "\n"


def _without_block(path: Path, text: str | None) -> str:
    before, begin, rest = (text or "").partition(f"{BEGIN}\n")
    _block, end, after = rest.partition(f"{END}\n")
    if bool(begin) != bool(end):
        raise InvalidArgument(f"{path}: one of the marks of shimd install is missing: {END if begin else BEGIN!r}")
    return before + after


def _check(config: Config, text: str, runtimes: Sequence[str]) -> None:
    """What we are about to write must say what we mean."""
    try:
        found = _runtimes(config, text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{config.path} leaves no room for more runtimes: {error}") from None
    for name in runtimes:
        if found[name].get("runtime_type") != runtime_type(name):
            raise InvalidArgument(f"{config.path}: the runtime {name} does not come out as meant")
