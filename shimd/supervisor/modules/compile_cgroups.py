"""Cgroups of compile workers: one each, with a limit of memory of its own, gone when the worker is.

A program comes from anybody's image, and what its compilation takes is in no container's cgroup: so it has one beside
those, at the top of the hierarchy, as containers have that name no parent.
"""

import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from shimd import paths
from shimd.cgroup import Cgroup, layout
from shimd.cgroup.layout import Layout
from shimd.errors import ShimdError, Unimplemented, from_os
from shimd.log import logger
from shimd.supervisor.threads import in_thread

_log = logger(__name__)
#: Most memory of one, bytes, unless SHIMD_COMPILE_MEMORY says otherwise; and never more than half of the node's.
_MOST = 16 << 30


class CompileCgroups:
    """The compile cgroups of one daemon, which knows its own by their names."""

    def __init__(self) -> None:
        self._prefix = prefix(paths.runtime_dir())
        self._left = _found(self._prefix)  # now: those that come later are ours
        self._told = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Cgroup | None]:
        """A cgroup for one worker, which has ended when the context does; ``None``: the node does not allow it."""
        cgroup = self._make()
        try:
            yield cgroup
        finally:
            if cgroup is not None and not cgroup.remove_at_once():
                with suppress(OSError, ShimdError):
                    await in_thread(cgroup.remove, "removing a compile worker's cgroup")

    def _make(self) -> Cgroup | None:
        try:
            where = _memory_only(layout.current())
            return self._limited(where, {"limit": limit(), "swap": limit()}) or self._limited(where, {"limit": limit()})
        except (ShimdError, OSError) as error:
            self._tell_once(from_os(error) if isinstance(error, OSError) else error)
            return None

    def _limited(self, where: Layout, memory: dict[str, int]) -> Cgroup | None:
        """``None``: this kernel does not count swap (``swapaccount=0``, or none is built in)."""
        try:
            return Cgroup.create(f"/{self._prefix}{secrets.token_hex(4)}", {"memory": memory}, where=where)
        except (ShimdError, OSError):
            if "swap" in memory:
                return None
            raise

    def _tell_once(self, error: ShimdError) -> None:
        if not self._told:
            _log.warning("compile workers have no cgroup, and so no limit but of their address space: %s", error)
        self._told = True

    async def sweep(self) -> None:
        """Remove what an earlier daemon left, with the workers in it, whose results nobody waits for."""
        for cgroup in self._left:
            with suppress(OSError, ShimdError):
                await in_thread(partial(_end, cgroup), "removing a compile worker's cgroup")


def remove_left() -> None:
    """Remove what a daemon of this runtime directory left, where none is to follow."""
    for cgroup in _found(prefix(paths.runtime_dir())):
        with suppress(OSError, ShimdError):
            _end(cgroup)


def _end(cgroup: Cgroup) -> None:
    cgroup.kill()
    cgroup.remove()


def _found(own: str) -> list[Cgroup]:
    with suppress(Unimplemented, OSError):
        where = _memory_only(layout.current())
        names = {name for root in where.roots for name in os.listdir(root) if name.startswith(own)}
        return [Cgroup.at(f"/{name}", where=where) for name in names]
    return []


def prefix(runtime: Path) -> str:
    """The beginning of the names of those that belong to the daemon of a runtime directory."""
    return f"shimd-compile-{hashlib.sha256(str(runtime).encode()).hexdigest()[:8]}-"


def limit() -> int:
    """Bytes of memory that one compile worker may have."""
    if given := os.environ.get("SHIMD_COMPILE_MEMORY"):
        return int(given)
    return min(_MOST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def _memory_only(where: Layout) -> Layout:
    """:raises Unimplemented: this node limits no memory"""
    if where.is_v2:
        return where
    found = tuple(one for one in where.v1 if "memory" in one.controllers)
    if not found:
        raise Unimplemented("this node has no cgroup controller memory")
    return Layout(found)
