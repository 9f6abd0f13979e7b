"""The runtimes in containerd's configuration: a block of tables, and what stands in its way.

A block, and not tables put among the others: what an operator wrote stays as it is to the byte, and uninstalling is
removing the block. TOML allows it wherever tables are tables; what else there may be is refused.

No TOML has a table twice, and k3s and rke2 write tables themselves for the shims that they find on their PATH: in a
template, a table of ours is therefore under the condition that there is none of theirs. The condition is within
comments, so that the block is TOML before and after it is rendered.

Measured, with containerd 1.6.20 and 2.4.2: 1.x takes the default runtime ``runc`` away as soon as any runtime is
configured: the block then brings it along.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.launcher.names import runtime_type
from shimd.node import block
from shimd.node.block import BEGIN, END
from shimd.node.changes import Change, copy_of, read
from shimd.node.configs import DROPINS, PLUGINS, ContainerdConfig, find, parsed, table

__all__ = ["BEGIN", "END", "ContainerdConfig", "effective", "find", "install_changes", "notes", "uninstall_changes"]

#: Of pods, those that reach their containers (``shimd/oci/listen.py``).
_ANNOTATIONS = "shimd.io/*"
_RUNC = "io.containerd.runc.v2"
_OURS = "# written by shimd install\n"
_BASE = '{{ template "base" . }}\n'
_INCLUDES_BASE = re.compile(r"""\{\{-?\s*template\s+"base\"""")
#: What makes a template have the distribution's own tables.
_WRITES_TABLES = re.compile(r"""\{\{-?\s*template\s+"base"|\.ExtraRuntimes""")
_GUARD = '# {{{{ if not (index .ExtraRuntimes "{name}").RuntimeType }}}}\n{table}# {{{{ end }}}}\n'
_HEADER = r"""^[ \t]*\[[ \t]*plugins\.(["']){plugin}\1\.containerd\.runtimes\.(["']?)(?P<name>[\w-]+)\2[ \t]*\]"""
Runtimes = Mapping[str, Any]


def install_changes(config: ContainerdConfig, runtimes: Sequence[str]) -> list[Change]:
    """Returns the changes that make containerd know these runtimes, by name.

    :raises InvalidArgument: a file is not understood
    :raises FailedPrecondition: a runtime of that name is there, and somebody else's; or the distribution has not
        written its configuration yet
    """
    if not config.version:
        name = config.distribution.name
        raise FailedPrecondition(f"{name} has not written {config.main} yet: start it once, then install")
    if config.disabled:
        return []
    before = read(config.path)
    text, old = block.split(config.path, before or "")
    detected, others = _detected(config), _others(config, text)
    theirs = _theirs(config, text, old, detected)
    wanted = [name for name in runtimes if name not in theirs and not _is_configured(config, name, others)]
    changed = _with_block(config, text, wanted, {**detected, **others}) if wanted else text
    if not config.template:
        _check(config, changed, wanted)
    unchanged = before is None and not wanted
    return [*_cleared(config), Change(config.path, None if unchanged else changed, backup=not old, follow=True)]


def uninstall_changes(config: ContainerdConfig) -> list[Change]:
    """Returns the changes that remove the block; the file, if nothing else is in it; and its copy, if that is the
    same."""
    return [*_without_block(config.path), *_cleared(config)]


def _cleared(config: ContainerdConfig) -> list[Change]:
    return [change for path in config.others if BEGIN in (read(path) or "") for change in _without_block(path)]


def _without_block(path: Path) -> list[Change]:
    before = read(path)
    text, old = block.split(path, before or "")
    copy = copy_of(path)
    empty = before is None or (bool(old) and text in _heads() and read(copy) is None)
    changes = [Change(path, None if empty else text, follow=True, prune=path.parent.name == DROPINS)]
    return [*changes, Change(copy)] if before is not None and read(copy) == text else changes


def _heads() -> list[str]:
    """Returns the lines before the block in a file that was not there."""
    return [_BASE, *(f"{_OURS}version = {version}\n" for version in PLUGINS)]


def notes(config: ContainerdConfig, runtimes: Sequence[str]) -> list[str]:
    """Returns notes for the operator on runtimes that are left alone: a sentence for each."""
    if config.disabled:
        return [
            f"{config.path} turns containerd's CRI plugin off: it is left as it is; Docker and ctr need nothing there"
        ]
    found = _detected(config)
    name = config.distribution.name
    return [
        f"{name} has a runtime {each} of its own, of type {kind}: it is left alone, and shimd's is not there"
        for each in runtimes
        if (kind := _type(found.get(each))) not in (None, runtime_type(each))
    ]


def effective(config: ContainerdConfig, runtimes: Sequence[str]) -> str:
    """Returns the rendering of a template: its last one, with those of the block's tables that it lacks."""
    main, _ours = block.split(config.main, read(config.main) or "")
    _text, tables = block.split(config.path, read(config.path) or "")
    found = _runtimes(config, table(config.main, main))
    names = [name for name in runtimes if name in _names(config, tables) and name not in found]
    return block.joined(main, _tables(config, names, found, guarded=False))


def uses_base(config: ContainerdConfig) -> bool:
    """Returns whether a template includes the distribution's own."""
    return config.template and bool(_INCLUDES_BASE.search(read(config.path) or ""))


def names_of(config: ContainerdConfig) -> list[str]:
    """Returns the runtimes in the block, by name."""
    return _names(config, block.split(config.path, read(config.path) or "")[1])


def _theirs(config: ContainerdConfig, text: str, old: str, detected: Runtimes) -> set[str]:
    """Returns runtimes that are the distribution's own, by name; in a template, also those that an operator has."""
    if config.template:
        return {*_names(config, text), *(set(detected) - set(_names(config, old)))}
    return {name for name, runtime in detected.items() if _type(runtime) != runtime_type(name)}


def _is_configured(config: ContainerdConfig, name: str, others: Runtimes) -> bool:
    """Returns whether an operator has done it already."""
    if name not in others:
        return False
    if (found := _type(others[name])) != runtime_type(name):
        raise FailedPrecondition(f"{config.path}: there is a runtime {name} already, of type {found}")
    return True


def _type(runtime: Any) -> str | None:
    found = runtime.get("runtime_type", "") if isinstance(runtime, dict) else runtime
    return None if found is None else str(found)


def _others(config: ContainerdConfig, text: str) -> Runtimes:
    """Returns the runtimes that an operator has configured."""
    found = {name: each for path in config.rest for name, each in _runtimes(config, parsed(path)).items()}
    return found if config.template else {**found, **_runtimes_in(config, text)}


def _detected(config: ContainerdConfig) -> Runtimes:
    return _runtimes(config, parsed(config.detected)) if config.detected else {}


def _runtimes_in(config: ContainerdConfig, text: str) -> Runtimes:
    return _runtimes(config, table(config.path, text))


def _runtimes(config: ContainerdConfig, found: Any) -> Runtimes:
    for key in ("plugins", PLUGINS[config.version], "containerd", "runtimes"):
        found = found.get(key, {})
        if not isinstance(found, dict):
            raise InvalidArgument(f"{config.path}: {key} is not a table")
    return dict(found)


def _names(config: ContainerdConfig, text: str) -> list[str]:
    """Returns the names of the tables in a text that may be a template."""
    pattern = _HEADER.replace("{plugin}", re.escape(PLUGINS[config.version or 3]))
    return [found["name"] for found in re.finditer(pattern, text, re.MULTILINE)]


def _with_block(config: ContainerdConfig, text: str, names: Sequence[str], known: Runtimes) -> str:
    head = text
    if read(config.path) is None:
        head = _BASE if config.template else f"{_OURS}version = {config.version}\n"
    version = f"version = {config.version}\n" if _lacks_version(config, head) else ""
    guarded = config.template and bool(_WRITES_TABLES.search(head))
    return block.joined(head, version + _tables(config, names, known, guarded))


def _lacks_version(config: ContainerdConfig, text: str) -> bool:
    """Returns whether a version is to be written: the file has comments at most. Without one it would be version 1."""
    return not config.template and config.path == config.main and not table(config.path, text)


def _tables(config: ContainerdConfig, names: Iterable[str], known: Runtimes, guarded: bool) -> str:
    keep_runc = config.version == 2 and config.brings_runc and "runc" not in known
    systemd = _uses_systemd(known.get("runc"))
    tables = {name: _runtime(config, name, systemd) for name in names}
    if guarded:
        tables = {name: _GUARD.format(name=name, table=each) for name, each in tables.items()}
    runc = f'[{_place(config, "runc")}]\nruntime_type = "{_RUNC}"\n' if keep_runc else ""
    return runc + "".join(tables.values())


def _uses_systemd(runc: Any) -> bool:
    return isinstance(runc, dict) and bool((runc.get("options") or {}).get("SystemdCgroup"))


def _place(config: ContainerdConfig, name: str) -> str:
    return f'plugins."{PLUGINS[config.version]}".containerd.runtimes.{name}'


def _runtime(config: ContainerdConfig, name: str, systemd: bool) -> str:
    place = _place(config, name)
    options = f"[{place}.options]\nSystemdCgroup = true\n" if systemd else ""
    return f'[{place}]\nruntime_type = "{runtime_type(name)}"\npod_annotations = ["{_ANNOTATIONS}"]\n{options}'


def _check(config: ContainerdConfig, text: str, runtimes: Sequence[str]) -> None:
    """Check that what we are about to write says what we mean."""
    try:
        found = _runtimes_in(config, text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{config.path} leaves no room for more runtimes: {error}") from None
    for name in runtimes:
        if found[name].get("runtime_type") != runtime_type(name):
            raise InvalidArgument(f"{config.path}: the runtime {name} does not come out as meant")
