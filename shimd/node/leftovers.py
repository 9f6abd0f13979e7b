"""What ``shimd uninstall`` leaves on a node, by name: what shimd has made, and what others have written for it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shimd import paths
from shimd.api.shimd.status.v1 import DaemonResponse
from shimd.errors import FailedPrecondition
from shimd.node.changes import copy_of
from shimd.node.install import UNIT_DIRECTORY, NodePlan, others_links
from shimd.node.systemd import UNITS


@dataclass(frozen=True)
class Left:
    path: Path
    what: str
    remove: Callable[[Path], None] | None
    """``None``: it is another installation's."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"

    def purge(self) -> None:
        """
        :raises FailedPrecondition: something else is in it
        :raises OSError: it cannot be removed
        """
        if self.remove is not None:
            self.remove(self.path)
            if self.path.exists():
                raise FailedPrecondition(f"{self.path} is left: there is in it what is not shimd's; see to it yourself")


def left(plan: NodePlan, daemon: DaemonResponse | None) -> list[Left]:
    """Returns all of it that is there once the plan is carried out.

    :param daemon: what it says of itself, if one runs: its directories may be others than this process's
    """
    going = {change.path for change in (*plan.changes, *plan.configuration) if change.removes}
    found = [*_files(plan), *(_directories(daemon) if plan.node.is_this_machine else [])]
    return [one for one in found if one.path.exists() and one.path not in going]


def _files(plan: NodePlan) -> Iterator[Left]:
    for path in (plan.config.path, *plan.config.others):
        yield Left(copy_of(path), "containerd's configuration before install; it was changed since", Path.unlink)
    for unit in UNITS:
        directory = plan.node.root / UNIT_DIRECTORY / f"{unit}.d"
        yield Left(directory, f"what somebody has added to {unit}", shutil.rmtree)
    for link in others_links(plan.node):
        yield Left(link, "another installation's; its own shimd uninstall removes it", None)


def _directories(daemon: DaemonResponse | None) -> Iterator[Left]:
    cache = Path(daemon.cache_dir) if daemon is not None else paths.cache_dir()
    state = Path(daemon.state_dir) if daemon is not None else paths.state_dir()
    yield Left(cache, f"{len(_modules(cache))} compiled modules", _empty)
    yield Left(state, "the daemon's state", _rmdir)


def _modules(cache: Path) -> list[Path]:
    """Those that are whole, and what is left of others: nothing else that somebody may keep in that directory."""
    return [path for path in cache.glob("*/*/*") if path.name.startswith("tmp.") or (path / "artifact").is_file()]


def _empty(cache: Path) -> None:
    modules = _modules(cache)
    for path in modules:
        shutil.rmtree(path)
    for directory in sorted({*(path.parent for path in modules), *(path.parents[1] for path in modules)}, reverse=True):
        _rmdir(directory)
    _rmdir(cache)


def _rmdir(directory: Path) -> None:
    """If nothing is in it."""
    with suppress(OSError):
        directory.rmdir()
