"""The supervisor: what lives as long as the daemon, and the endpoints that containerds have asked for."""

from contextlib import suppress

import anyio
import anyio.abc

from shimd import paths
from shimd.errors import ResourceExhausted
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord, name_of
from shimd.supervisor.background import Background
from shimd.supervisor.endpoint import Endpoint, Parts
from shimd.supervisor.events import EventBus
from shimd.supervisor.metrics.measures import NOTHING, Measures
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.recovery.keeper import Keeper
from shimd.supervisor.recovery.keeping import Keeping, NotKept
from shimd.supervisor.tracing.steps import Traced, untraced
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
    :param measures: what measures what happens
    :param traced: what follows containerd's calls
    """

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        outer: anyio.abc.TaskGroup,
        keeper: Keeper | None = None,
        measures: Measures = NOTHING,
        traced: Traced = untraced,
    ) -> None:
        self._tasks = tasks
        background = Background(tasks)
        self.keeper: Keeping = keeper or NotKept()
        self._keeper = keeper
        if keeper is None:
            self.fork_servers = ForkServers(Background(outer), measures=measures)
        else:
            parent = (keeper.exit_of, keeper.spawn, keeper.forget_exit, lambda: keeper.pid)
            self.fork_servers = ForkServers(Background(outer), *parent, measures)
            keeper.replaced.append(self.fork_servers.renew)
        self.jailers = Jailers(background)
        self.modules = Modules(self.fork_servers, background, measures)
        self.bus = EventBus(background, self.keeper)
        self.journal = Journal(paths.journal_dir())
        self.parts = Parts(
            background,
            self.fork_servers,
            self.jailers,
            self.modules,
            self.bus,
            self.journal,
            self.keeper,
            measures,
            traced,
        )
        self.endpoints: dict[str, Endpoint] = {}
        """By the names of their records."""
        self._lock = anyio.Lock()

    async def endpoint(self, record: EndpointRecord) -> Endpoint:
        """The endpoint of one (engine, containerd, namespace), listening.

        :raises ShimdError: it cannot be recorded
        :raises OSError: it cannot listen
        """
        name = name_of(record)
        async with self._lock:
            if name not in self.endpoints:
                endpoint = Endpoint(record, self.parts)
                self.journal.write(record)
                await endpoint.listen()
                self.endpoints[name] = endpoint
                await self._tasks.start(_serve, endpoint)
            endpoint = self.endpoints[name]
            await endpoint.listen()
        return endpoint

    def earlier_endpoint(self, record: EndpointRecord) -> Endpoint:
        """The endpoint of an earlier supervisor's apps, which must be, recorded or not; :meth:`serve_earlier` it."""
        name = name_of(record)
        if name not in self.endpoints:
            try:
                self.journal.write(record)
            except (OSError, ResourceExhausted) as error:
                words = "the task socket of %s for %s cannot be recorded: %s"
                _log.error(words, record.engine, record.namespace, error)
            self.endpoints[name] = Endpoint(record, self.parts)
        return self.endpoints[name]

    async def serve_earlier(self) -> None:
        """All their containers are there."""
        for endpoint in self.endpoints.values():
            with suppress(OSError):  # told of when it is tried again
                await endpoint.listen()
            await self._tasks.start(_serve, endpoint)

    def forget_unused(self) -> None:
        """Forget endpoints that nobody has to do with: of a containerd that is gone, say. They are made again if asked
        for."""
        for name, endpoint in list(self.endpoints.items()):
            if not endpoint.is_needed:
                del self.endpoints[name]
                self.journal.remove(endpoint.record)
                endpoint.end()

    def keep_exits(self) -> None:
        """All workers are known: exits of others are nobody's."""
        if self._keeper is not None:
            self._keeper.keep_exits(self.fork_servers.wants_exit)

    @property
    def is_needed(self) -> bool:
        """Whether there is what must outlive this process: containers, connections by which one may be asked for, or
        events that were not taken."""
        return any(one.is_needed for one in self.endpoints.values()) or any(self.bus.queued().values())


async def _serve(endpoint: Endpoint, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """One that fails is served again, and no other ends."""
    try:
        with endpoint.serving:
            task_status.started()
            while True:
                try:
                    return await endpoint.serve()
                except Exception:
                    _log.exception("%s is served anew, since that failed", endpoint.path)
                    await anyio.sleep(_PAUSE)
    finally:
        await endpoint.close()
