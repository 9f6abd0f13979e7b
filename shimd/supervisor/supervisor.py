"""The supervisor: what lives as long as the daemon, and the endpoints that containerds have asked for."""

import anyio
import anyio.abc

from shimd import paths
from shimd.errors import ResourceExhausted
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord, name_of
from shimd.supervisor.background import Background
from shimd.supervisor.endpoint import Endpoint, Parts
from shimd.supervisor.events import EventBus
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.recovery.keeper import Keeper
from shimd.supervisor.recovery.keeping import Keeping, NotKept
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.jailers import Jailers

_log = logger(__name__)
#: Seconds until an endpoint that has failed is served again.
_PAUSE = 1.0


class Supervisor:
    """
    :param tasks: the daemon's own group, which an endpoint's failure does not end
    :param outer: the group around it: what is cancelled up there ends its workers, and has to learn of their ends
    :param keeper: who keeps what is to outlive this process
    """

    def __init__(self, tasks: anyio.abc.TaskGroup, outer: anyio.abc.TaskGroup, keeper: Keeper | None = None) -> None:
        self._tasks = tasks
        background = Background(tasks)
        self.keeper: Keeping = keeper or NotKept()
        self._keeper = keeper
        parent = (keeper.exit_of, keeper.spawn, keeper.forget_exit, lambda: keeper.pid) if keeper is not None else ()
        self.fork_servers = ForkServers(Background(outer), *parent)
        if keeper is not None:
            keeper.replaced.append(self.fork_servers.renew)
        self.jailers = Jailers(background)
        self.modules = Modules(self.fork_servers, background)
        self.bus = EventBus(background, self.keeper)
        self.journal = Journal(paths.journal_dir())
        self.parts = Parts(
            background, self.fork_servers, self.jailers, self.modules, self.bus, self.journal, self.keeper
        )
        self.endpoints: dict[str, Endpoint] = {}
        """By the names of their records."""
        self._lock = anyio.Lock()

    async def endpoint(self, record: EndpointRecord, *, earlier: bool = False) -> Endpoint:
        """The endpoint of one (engine, containerd, namespace), listening.

        :param earlier: whether it is an earlier supervisor's: then it must be served, recorded or not
        :raises ShimdError: it cannot be recorded
        :raises OSError: it cannot listen
        """
        name = name_of(record)
        async with self._lock:
            if name not in self.endpoints:
                endpoint = Endpoint(record, self.parts)
                self._record(record, required=not earlier)
                await self._tasks.start(_serve, endpoint)
                self.endpoints[name] = endpoint
            return self.endpoints[name]

    def keep_exits(self) -> None:
        """All workers are known: exits of others are nobody's."""
        if self._keeper is not None:
            self._keeper.keep_exits(self.fork_servers.wants_exit)

    def _record(self, record: EndpointRecord, *, required: bool) -> None:
        try:
            self.journal.write(record)
        except (OSError, ResourceExhausted) as error:
            if required:
                raise
            _log.error("the task socket of %s for %s cannot be recorded: %s", record.engine, record.namespace, error)

    @property
    def is_needed(self) -> bool:
        """Whether there is what must outlive this process: containers, or connections by which one may be asked for."""
        return any(one.service.containers or one.connections.busy for one in self.endpoints.values())


class _Once(anyio.abc.TaskStatus[None]):
    """A task's word that it has begun, which counts once however often it begins."""

    def __init__(self, status: anyio.abc.TaskStatus[None]) -> None:
        self._status, self.said = status, False

    def started(self, value: None = None) -> None:
        if not self.said:
            self.said = True
            self._status.started()


async def _serve(endpoint: Endpoint, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """An endpoint that cannot begin is who asked's error; one that fails later is served again, and no other ends."""
    status = _Once(task_status)
    while True:
        try:
            return await endpoint.serve(task_status=status)
        except Exception:
            if not status.said:
                raise
            _log.exception("%s is served anew, since that failed", endpoint.path)
            await anyio.sleep(_PAUSE)
