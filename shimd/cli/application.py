"""Applications that ``shimd run`` is given: a manifest of Spin's or of Slight's, or the directory that it is in."""

import glob
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio

from shimd.errors import InvalidArgument, NotFound, from_os

#: What there may be in a directory, by the engine that runs it.
_NAMES = {"spin": "spin.toml", "slight": "slightfile.toml"}
#: The key that each has.
_KEYS = {"spin": ("spin_manifest_version", "spin_version"), "slight": ("specversion",)}
#: Where each listens: the variable, and its value for somebody who tries it out.
_LISTENS = {"spin": ("SPIN_HTTP_LISTEN_ADDR", "127.0.0.1:3000"), "slight": ("SLIGHT_HTTP_LISTEN_ADDR", "")}
#: Beside a manifest, and read with it.
_BESIDE = ("runtime-config.toml", ".env")
#: Where Spin's keep what they store, unless they are told otherwise.
_STATE = ".spin"
#: Seconds between two looks at files.
_PAUSE = 0.5

Stamps = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class LocalApplication:
    engine: str
    manifest: str

    @classmethod
    def of(cls, path: str) -> "LocalApplication":
        """Returns the application of a directory, or of a manifest.

        :raises InvalidArgument: it is neither
        """
        if os.path.isdir(path):
            for engine, name in _NAMES.items():
                if os.path.exists(manifest := os.path.join(path, name)):
                    return cls(engine, manifest)
            raise InvalidArgument(f"{path} is a directory without a {' or a '.join(_NAMES.values())}")
        table = _table(path)
        for engine, keys in _KEYS.items():
            if any(key in table for key in keys):
                return cls(engine, path)
        raise InvalidArgument(f"{path} has neither spin_manifest_version (Spin) nor specversion (Slight)")

    def variables(self, listen: str) -> list[str]:
        """Returns the variables that it is given: ours, as by ``spin up``, and where it listens.

        :param listen: ``[ADDRESS:]PORT``; empty: where it is usual
        """
        name, usual = _LISTENS[self.engine]
        address = listen if ":" in listen or not listen else f"127.0.0.1:{listen}"
        found = {name: usual, **os.environ, **({name: address} if address else {})}
        return [f"{name}={value}" for name, value in found.items()]

    def files(self) -> Iterator[str]:
        """Yield what it is made of, as far as its manifest can be read."""
        root = os.path.dirname(self.manifest)
        yield self.manifest
        yield from (os.path.join(root, name) for name in _BESIDE)
        if self.engine == "slight":
            yield os.path.join(root, "app.wasm")
            return
        try:
            table = _table(self.manifest)
        except (InvalidArgument, NotFound):
            return
        for component in _components(table):
            yield from _files(component, root)

    def stamps(self) -> Stamps:
        """Returns what tells whether one of the files has changed."""
        found: Stamps = {}
        for path in self.files():
            try:
                about = os.stat(path)
            except OSError:
                continue
            found[path] = (about.st_mtime_ns, about.st_size, about.st_ino)
        return found

    async def change(self, before: Stamps) -> None:
        """Wait until a file is no more what it was."""
        while await anyio.to_thread.run_sync(self.stamps) == before:  # noqa: ASYNC110 nobody tells of it
            await anyio.sleep(_PAUSE)


def _table(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory") from None
    except OSError as error:
        raise InvalidArgument(str(from_os(error))) from None
    except ValueError as error:
        raise InvalidArgument(f"{path} is not TOML: {error}") from None


def _components(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the components of a manifest of Spin's, which may be wrong in any way, and what is composed with them."""
    components = table.get("component")
    if isinstance(components, dict):
        for one in components.values():
            if isinstance(one, dict):
                yield one
                yield from _composed(one)
    kinds = table.get("trigger")
    for triggers in kinds.values() if isinstance(kinds, dict) else ():
        for one in triggers if isinstance(triggers, list) else ():
            if isinstance(one, dict) and isinstance(one.get("component"), dict):
                yield one["component"]
                yield from _composed(one["component"])
            if isinstance(one, dict):
                yield from _composed(one)


def _composed(owner: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the ``dependencies`` of a component or a trigger that are files, as if they were components."""
    declared = owner.get("dependencies")
    for one in declared.values() if isinstance(declared, dict) else ():
        for each in one if isinstance(one, list) else [one]:
            if isinstance(each, dict):
                yield {"source": each.get("path")}


def _files(component: dict[str, Any], root: str) -> Iterator[str]:
    if isinstance(source := component.get("source"), str):
        yield os.path.join(root, source)
    mounts = component.get("files")
    for mount in mounts if isinstance(mounts, list) else ():
        source = mount.get("source") if isinstance(mount, dict) else mount
        if isinstance(source, str):
            for path in glob.iglob(os.path.join(glob.escape(root), source), recursive=True):
                yield from _beneath(path) if os.path.isdir(path) else (path,)


def _beneath(path: str) -> Iterator[str]:
    """Yield the files of a directory, but not what the application itself keeps there: it would be started for ever."""
    for directory, directories, names in os.walk(path):
        if _STATE in directories:
            directories.remove(_STATE)
        yield from (os.path.join(directory, name) for name in names)
