"""The supervisor: what lives as long as the daemon, and the endpoints that containerds have asked for."""

import anyio
import anyio.abc

from shimd.supervisor.background import Background
from shimd.supervisor.endpoint import Endpoint
from shimd.supervisor.events import EventBus
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.jailers import Jailers


class Supervisor:
    """
    :param tasks: the daemon's own group: an endpoint's failure to serve is the daemon's
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
        """The endpoint of one (engine, containerd, namespace), listening."""
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
                await self._tasks.start(endpoint.serve)
                self.endpoints[key] = endpoint
            return self.endpoints[key]
