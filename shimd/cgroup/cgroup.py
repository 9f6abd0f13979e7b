"""A container's cgroup: one directory in each hierarchy of the node."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shimd.cgroup import freezer, layout, paths, setting, stats, tree, v1, v2
from shimd.cgroup.files import read_if_there, write
from shimd.cgroup.layout import Layout
from shimd.cgroup.resources import nonzero, section
from shimd.errors import FailedPrecondition, Unimplemented, from_os

if TYPE_CHECKING:
    from shimd.cgroup.systemd import Scope

_KILL_TIMEOUT = 1.0


class Cgroup:
    """A container's cgroup, made by :meth:`create` or :meth:`make`. Methods block for microseconds, if not said
    otherwise."""

    def __init__(self, directories: list[str], where: Layout) -> None:
        self.directories = directories
        """One directory per hierarchy, as :func:`shimd.linux.cgroup.join` takes them."""
        self.scope: Scope | None = None
        """systemd's unit of the cgroup; ``None``: systemd was not asked for one."""
        self._unit: str | None = None
        """The path of the unit that systemd is asked for; ``None``: the directories are made here."""
        self._layout = where
        self._by_controller = _by_controller(directories, where)

    @classmethod
    def create(
        cls, path: str, resources: dict[str, Any], systemd: bool = False, where: Layout | None = None
    ) -> "Cgroup":
        """Make a cgroup with limits, ready for processes; leave nothing behind on failure (but parents).

        :param path: ``linux.cgroupsPath`` (see :func:`shimd.cgroup.paths.relative` for systemd's form)
        :param resources: ``linux.resources``
        :raises AlreadyExists: there is one already, in use
        :raises Unimplemented: a limit for which this node has no controller
        :raises InvalidArgument: the path, or a value
        """
        cgroup = cls.at(path, systemd, where)
        cgroup.make(resources)
        return cgroup

    @classmethod
    def at(cls, path: str, systemd: bool = False, where: Layout | None = None) -> "Cgroup":
        """Returns the cgroup that :meth:`create` would make, which need not be there yet.

        :raises InvalidArgument: the path
        """
        where = where or layout.current()
        relative = paths.relative(path, systemd)
        cgroup = cls([f"{root}/{relative}" for root in where.roots], where)
        cgroup._unit = relative if systemd else None
        return cgroup

    def find(self, *, scope: bool) -> None:
        """It was made by an earlier process.

        :param scope: whether systemd was asked for it
        """
        if scope and self._unit is not None:
            from shimd.cgroup.systemd import Scope

            self.scope = Scope(self._unit.rpartition("/")[2], 2 if self._layout.is_v2 else 1)

    @property
    def asks_systemd(self) -> bool:
        """Returns whether :meth:`make` has to wait for another process."""
        return self._unit is not None

    def make(self, resources: dict[str, Any]) -> None:
        """Make the cgroup, as :meth:`create` does."""
        made: list[str] = []
        if self._unit is not None:
            self.scope = _scope(self._unit, resources, self._layout)
        try:
            for directory in self.directories:
                tree.make(directory, anew=self.scope is None)
                made.append(directory)
            self._prepare()
            self._write(resources)
        except BaseException as error:
            if self.scope is not None:
                self.scope.stop()
            for directory in made:
                tree.removed(directory)
            if isinstance(error, OSError):
                raise from_os(error) from error
            raise

    @property
    def version(self) -> int:
        """The version of the hierarchy that has the controllers."""
        return 2 if self._layout.is_v2 else 1

    @property
    def unified(self) -> str | None:
        """The directory in the version 2 hierarchy, if there is one: processes are born there, moving is slow."""
        return self.directories[-1] if self._layout.unified is not None else None

    def apply(self, resources: dict[str, Any]) -> None:
        """Set the limits that are given, and leave all others as they are (Create, and Task.Update).

        A limit that fails leaves those before it set, as with runc. Lowering a memory limit may block while the kernel
        reclaims memory.

        :raises Unimplemented: this node lacks the controller
        :raises InvalidArgument: the kernel refuses the value
        :raises FailedPrecondition: a limit below what cannot be reclaimed
        """
        self._check_memory(section(resources, "memory"))
        if self.scope is not None:
            self.scope.update(resources)
        self._write(resources)

    def _check_memory(self, memory: dict[str, Any]) -> None:
        """Obey ``checkBeforeUpdate``: version 2 would kill for a limit below what is in use, version 1 refuses it."""
        limit = nonzero(memory, "limit")
        if self.version == 1 or limit is None or limit < 0 or not memory.get("checkBeforeUpdate"):
            return
        directory = self._find("memory")
        used = int(read_if_there(f"{directory}/memory.current") or 0) if directory else 0
        if used > limit:
            raise FailedPrecondition(f"linux.resources.memory.limit: {limit} is below the {used} bytes that are in use")

    def _write(self, resources: dict[str, Any]) -> None:
        translate = v2 if self.version == 2 else v1
        setting.write_all(translate.settings(resources), self._find)

    def has_processes(self) -> None:
        """Note that the container's processes have joined: systemd's scope needs its stand-in process no longer."""
        if self.scope is not None:
            self.scope.release()

    def give_up(self) -> None:
        """Leave it to another who makes it anew: a native runtime that asks systemd itself."""
        if self.scope is not None:
            self.remove()

    def freeze(self) -> None:
        """Stop all processes, and return when they stand (usually within 1 ms; 2 s at most).

        :raises Unimplemented: no freezer here
        :raises FailedPrecondition: some process cannot be stopped
        """
        freezer.freeze(self._freezer())

    def thaw(self) -> None:
        """Let all processes run on.

        :raises Unimplemented: no freezer here
        """
        self._freezer().ask(False)

    def pids(self) -> list[int]:
        """Returns all processes, but neither threads nor those of other pid namespaces, which have no number here."""
        if not self.directories:
            return []
        text = read_if_there(self.directories[0] + "/cgroup.procs") or ""
        return [int(pid) for pid in text.split() if pid != "0"]

    def kill(self) -> None:
        """Send SIGKILL to all processes, frozen ones too, until none is left to be killed (1 s at most)."""
        if self.version == 2 and os.path.exists(self.directories[0] + "/cgroup.kill"):
            write(self.directories[0] + "/cgroup.kill", "1")
            return
        deadline = time.monotonic() + _KILL_TIMEOUT
        while (pids := self.pids()) and time.monotonic() < deadline:  # again, for those that were being forked
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(Unimplemented, FileNotFoundError):
                self.thaw()
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove the directories; quietly, if they are gone. Waits 1 s at most for processes that are dying.

        Parents stay, even those that :meth:`create` made, as with runc: whoever names a parent owns it.

        :raises OSError: EBUSY: live processes are in it; the rest is removed
        """
        errors = []
        if self.scope is not None:
            self.scope.stop()
        for directory in self.directories:
            try:
                tree.remove(directory)
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def remove_at_once(self) -> bool:
        """Remove the directories as :meth:`remove` does, but wait for nothing; returns whether all is gone."""
        return self.scope is None and all(tree.removed(directory) for directory in self.directories)

    def stats(self) -> stats.Readings:
        """Returns the kernel's counters."""
        return stats.read_v2(self.directories[0]) if self.version == 2 else stats.read_v1(self._by_controller)

    def oom_count(self) -> int:
        """Returns how many processes the kernel has killed here for want of memory, ever."""
        from shimd.cgroup import oom

        directory = self._find("memory")
        return (oom.count(directory, self.version) or 0) if directory else 0

    async def oom_kills(self) -> AsyncIterator[int]:
        """Yield the number of new kills whenever there are some, the first time all since the cgroup was made.

        Ends when the cgroup does, and at once without a memory controller. Tells of a kill a moment after it: whoever
        must know at a process's exit asks :meth:`oom_count`.
        """
        from shimd.cgroup import oom  # anyio: not for workers, which import this package too

        directory = self._find("memory")
        if directory is not None:
            async for number in oom.kills(directory, self.version):
                yield number

    def _prepare(self) -> None:
        if self.version == 2:
            assert self._layout.unified is not None
            tree.enable_controllers(self._layout.unified, self.directories[0])
        elif "cpuset" in self._by_controller:
            root = next(one.root for one in self._layout.v1 if "cpuset" in one.controllers)
            tree.inherit_cpuset(root, self._by_controller["cpuset"])

    def _find(self, controller: str) -> str | None:
        """Returns the directory with a controller's files; ``None``: the cgroup has no such controller."""
        if self.version == 1:
            return self._by_controller.get(controller)
        there = read_if_there(self.directories[0] + "/cgroup.controllers") or ""
        return self.directories[0] if controller in ("cgroup", *there.split()) else None

    def _freezer(self) -> freezer.V1 | freezer.V2:
        if "freezer" in self._by_controller:
            return freezer.V1(self._by_controller["freezer"])
        if self._layout.unified is not None:
            return freezer.V2(self.directories[-1])
        raise Unimplemented("containers cannot be paused: this node has no cgroup controller freezer")


def _scope(relative: str, resources: dict[str, Any], where: Layout) -> "Scope":
    from shimd.cgroup.systemd import Scope

    return Scope.start(relative.split("/"), resources, 2 if where.is_v2 else 1)


def _by_controller(directories: list[str], where: Layout) -> dict[str, str]:
    """Returns the directory of each version 1 controller."""
    return {
        controller: directory
        for hierarchy in where.v1
        for directory in directories
        if directory.startswith(hierarchy.root + "/")
        for controller in hierarchy.controllers
    }
