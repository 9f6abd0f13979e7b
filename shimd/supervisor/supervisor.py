"""The supervisor: what lives as long as the daemon, and the endpoints that containerds have asked for."""

import anyio
import anyio.abc

from shimd.log import logger
from shimd.supervisor.background import Background
from shimd.supervisor.endpoint import Endpoint
from shimd.supervisor.events import EventBus
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.jailers import Jailers

_log = logger(__name__)
#: Seconds until an endpoint that has failed is served again.
_PAUSE = 1.0


class Supervisor:
    """
    :param tasks: the daemon's own group, which an endpoint's failure does not end
    :param outer: the group around it: what is cancelled up there ends its workers, and has to learn of their ends
    """

    def __init__(self, tasks: anyio.abc.TaskGroup, outer: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._background = Background(tasks)
        self.fork_servers = ForkServers(Background(outer))
        self.jailers = Jailers(self._background)
        self.modules = Modules(self.fork_servers, self._background)
        self.bus = EventBus(self._background)
        self.endpoints: dict[tuple[str, str, str], Endpoint] = {}
        self._lock = anyio.Lock()

    async def endpoint(self, engine: str, namespace: str, events_address: str, grpc_address: str) -> Endpoint:
        """The endpoint of one (engine, containerd, namespace), listening.

        :raises OSError: it cannot listen
        """
        key = (engine, namespace, events_address)
        async with self._lock:
            if key not in self.endpoints:
                addresses = (events_address, grpc_address)
                endpoint = Endpoint(
                    engine,
                    namespace,
                    addresses,
                    self._background,
                    self.fork_servers,
                    self.jailers,
                    self.modules,
                    self.bus,
                )
                await self._tasks.start(_serve, endpoint)
                self.endpoints[key] = endpoint
            return self.endpoints[key]


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
