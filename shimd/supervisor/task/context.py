"""The needs of a container of the daemon around it: the one place where the task layer's needs are listed."""

from collections.abc import Sequence
from typing import Protocol

from betterproto2 import Message

from shimd.cgroup import Cgroup
from shimd.protocol.journal import TaskRecord
from shimd.protocol.plans import JailPlan
from shimd.supervisor.workers.jailers import During, Jail, Tasks
from shimd.supervisor.workers.programs import Programs


class Context(Programs, Protocol):
    """Shared by the containers of one engine, containerd and containerd namespace."""

    namespace: str
    events_address: str
    grpc_address: str

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

    def commit(self, record: TaskRecord, event: Message | None = None, *, required: bool = False) -> None:
        """Record the state of a container, and queue the event for containerd that tells of the change, after all that
        were queued before. The next supervisor finds both or neither.

        :param required: whether what cannot be recorded must not be; else it is only logged
        :raises ShimdError: it was, and there is no room for it, say
        """
        ...

    def forget(self, record: TaskRecord) -> None:
        """It is no task, and nobody need know that it was to be one."""
        ...

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Have descriptors outlive this process, until :meth:`drop`; they stay the caller's."""
        ...

    def keep_soon(self, name: str, fds: Sequence[int]) -> None:
        """The same, from the next moment on: what is dropped by then costs nothing."""
        ...

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        """Hold FIFOs open until :meth:`drop` (:meth:`shimd.supervisor.recovery.keeping.Keeping.hold`)."""
        ...

    def held(self, name: str, fds: Sequence[int]) -> None:
        """What is held so has these of the caller's, too, until :meth:`drop`, if it has to be kept anew."""
        ...

    def drop(self, name: str) -> None: ...
