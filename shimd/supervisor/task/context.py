"""The needs of a container of the daemon around it: the one place where the task layer's needs are listed."""

from typing import Protocol

from betterproto2 import Message

from shimd.cgroup import Cgroup
from shimd.protocol.plans import JailPlan
from shimd.supervisor.workers.jailers import During, Jail, Tasks
from shimd.supervisor.workers.programs import Programs


class Context(Programs, Protocol):
    """Shared by the containers of one engine, containerd and containerd namespace."""

    namespace: str

    @property
    def tasks(self) -> Tasks:
        """For what must go on after a request has been answered."""
        ...

    async def jail(self, plan: JailPlan, terminal: int | None, during: During) -> Jail:
        """Make what the worker of a plan will live in (:meth:`shimd.supervisor.workers.jailers.Jailers.make`)."""
        ...

    def cgroup(self, path: str, *, systemd: bool) -> Cgroup:
        """A container's cgroup, not made yet (:meth:`shimd.cgroup.Cgroup.at`)."""
        ...

    def publish(self, event: Message) -> None:
        """Queue an event for containerd, after all that were queued before."""
        ...
