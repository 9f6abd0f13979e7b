"""The files that a component sees: its manifest's ``files``, read-only, and no others."""

import glob
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NoReturn

from shimd.apps.spin.model import Component, FileMount
from shimd.component.results import Err
from shimd.engine import InvalidSetting
from shimd.wasi.filesystem import Descriptor, DirectoryEntries, open_beneath, os_errors

_FOLLOW = frozenset({"symlink-follow"})


def tree(component: Component, root: str = "/") -> "FileTree | None":
    """Returns the tree of a component's files; ``None`` if it has none.

    :raises InvalidSetting: something is not there
    """
    entries: dict[str, str] = {}
    for mount in component.files:
        entries.update(_entries(mount, component, root))
    return FileTree(entries) if entries else None


def _entries(mount: FileMount, component: Component, root: str) -> Mapping[str, str]:
    """Returns the files and directories of the container, by guest path without its first slash."""
    where = f"{component.where}.files"
    if mount.destination is not None:
        host = os.path.join(root, mount.source)
        if not os.path.exists(host):
            raise InvalidSetting(f"{where} names {mount.source}, which does not exist")
        return {_normal(mount.destination): host}
    found = glob.glob(mount.source, root_dir=root, recursive=True)
    if not found and not glob.has_magic(mount.source):
        raise InvalidSetting(f"{where} names {mount.source}, which does not exist")
    excluded = {
        path for pattern in component.exclude_files for path in glob.glob(pattern, root_dir=root, recursive=True)
    }
    paths = [path for path in found if path not in excluded]
    return {_normal(path): os.path.join(root, path) for path in paths if _is_file_or_named(path, mount, root)}


def _is_file_or_named(path: str, mount: FileMount, root: str) -> bool:
    """Returns whether a path is meant: a pattern finds files only, a directory is meant where it is named itself."""
    return os.path.isfile(os.path.join(root, path)) or not glob.has_magic(mount.source)


def _normal(path: str) -> str:
    return str(PurePosixPath(path)).strip("/").removeprefix("./") if path.strip("/") not in ("", ".") else ""


class FileTree:
    """A read-only directory made up of others' files; a :class:`Descriptor` as far as it may be asked anything.

    ``prefix`` is the directory's path in the whole tree: empty, or ending with a slash.
    """

    def __init__(self, entries: Mapping[str, str], prefix: str = "") -> None:
        self._entries = entries
        self._prefix = prefix

    def close(self) -> None:
        """Do nothing: no file is open."""

    def open_at(
        self, path_flags: frozenset[str], path: str, open_flags: frozenset[str], flags: frozenset[str]
    ) -> "FileTree | Descriptor":
        if flags - {"read"} or open_flags & {"create", "truncate"}:
            raise Err("read-only")
        full = self._full(path)
        if (found := self._real(full)) is not None:
            with os_errors():
                how = os.O_RDONLY | (os.O_DIRECTORY if "directory" in open_flags else 0)
                fd = open_beneath(*found, how, contained=True)
            return Descriptor(fd, {"read"}, contained=True)
        return FileTree(self._entries, f"{full}/" if full else "")

    def _full(self, path: str) -> str:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Err("not-permitted")
        full = self._prefix + "/".join(parts)
        return full.rstrip("/")

    def _real(self, full: str) -> tuple[str, str] | None:
        """Returns a directory of the container, and the path in it; ``None``: it is one of the tree's own directories.

        :raises Err: there is none
        """
        best = max((key for key in self._entries if _contains(key, full)), key=len, default=None)
        if best is not None:
            host = self._entries[best]
            rest = full[len(best) :].strip("/")
            return (host, rest or ".") if os.path.isdir(host) else self._file(host, rest)
        if full and not any(key.startswith(f"{full}/") for key in self._entries):
            raise Err("no-entry")
        return None

    def _file(self, host: str, rest: str) -> tuple[str, str]:
        if rest:
            raise Err("not-directory")
        return os.path.dirname(host), os.path.basename(host)

    def read_directory(self) -> DirectoryEntries:
        names = {key[len(self._prefix) :].partition("/")[0] for key in self._entries if key.startswith(self._prefix)}
        return DirectoryEntries([{"type": self._type(name), "name": name} for name in sorted(names - {""})])

    def _type(self, name: str) -> str:
        host = self._entries.get(self._prefix + name)
        return "regular-file" if host is not None and not os.path.isdir(host) else "directory"

    def get_type(self) -> str:
        return "directory"

    def get_flags(self) -> set[str]:
        return {"read"}

    def stat(self) -> dict[str, Any]:
        return self.stat_at(_FOLLOW, "")

    def stat_at(self, flags: frozenset[str], path: str) -> dict[str, Any]:
        found = self._real(self._full(path))
        with self._directory(found) as directory:
            return directory.stat_at(flags, found[1] if found else ".")

    def metadata_hash(self) -> dict[str, int]:
        return self.metadata_hash_at(_FOLLOW, "")

    def metadata_hash_at(self, flags: frozenset[str], path: str) -> dict[str, int]:
        found = self._real(self._full(path))
        if found is None:
            return {"lower": hash(self._full(path)) & ((1 << 64) - 1), "upper": 0}
        with self._directory(found) as directory:
            return directory.metadata_hash_at(flags, found[1])

    def _directory(self, found: tuple[str, str] | None) -> Descriptor:
        """Open the real directory of what :meth:`_real` found; for the tree's own directories the root stands in."""
        with os_errors():
            fd = os.open(found[0] if found else "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return Descriptor(fd, set(), contained=True)

    def is_same_object(self, other: object) -> bool:
        return isinstance(other, FileTree) and other._prefix == self._prefix

    def sync(self) -> None:
        return

    sync_data = sync

    def _refuse(self, *_arguments: object) -> NoReturn:
        raise Err("read-only")

    create_directory_at = link_at = remove_directory_at = rename_at = set_times = set_times_at = _refuse
    symlink_at = unlink_file_at = write = write_via_stream = append_via_stream = set_size = _refuse

    def readlink_at(self, path: str) -> str:
        found = self._real(self._full(path))
        if found is None:
            raise Err("invalid")
        with self._directory(found) as directory:
            return directory.readlink_at(found[1])


def _contains(key: str, full: str) -> bool:
    return key in ("", full) or full.startswith(f"{key}/")


class SpinPreopens:
    """``wasi:filesystem/preopens``: the component's files as ``/``; none until they are given.

    A tree, or the descriptor of a directory.
    """

    def __init__(self) -> None:
        self.root: FileTree | int | None = None

    def get_directories(self) -> list[tuple[FileTree | Descriptor, str]]:
        match self.root:
            case None:
                return []
            case int():
                return [(Descriptor(os.dup(self.root), {"read"}), "/")]
        return [(self.root, "/")]
