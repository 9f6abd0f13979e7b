"""One task socket: the Task service of one engine for one containerd and one of its namespaces.

containerd 1.6 names no namespace in its calls, so each namespace has a socket of its own. All endpoints share the
supervisor's fork servers, module cache and event bus.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
from betterproto2 import Message
from grpclib.server import Server as GrpcServer

from shimd import paths
from shimd.cgroup import Cgroup
from shimd.engines.registry import engine_layers
from shimd.protocol.plans import JailPlan
from shimd.rpc import GrpcService, ttrpc_services
from shimd.supervisor.background import Background
from shimd.supervisor.events import EventBus
from shimd.supervisor.image.content import ContentStore, wasm_layer
from shimd.supervisor.image.layers import ImageLayers
from shimd.supervisor.modules.compilations import Waiter
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.sockets import unix_listener
from shimd.supervisor.task.service import TaskService
from shimd.supervisor.workers.fork_client import ForkClient
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.jailers import During, Jail, Jailers
from shimd.supervisor.workers.programs import Program
from shimd.ttrpc import Server

#: v3 names the same methods and messages; containerd calls the one that the launcher's answer says.
_ALIASES = ["containerd.task.v2.Task"]


class Endpoint:
    """The :class:`shimd.supervisor.task.context.Context` of its containers."""

    def __init__(
        self,
        engine: str,
        namespace: str,
        addresses: tuple[str, str],
        tasks: Background,
        fork_servers: ForkServers,
        jailers: Jailers,
        modules: Modules,
        bus: EventBus,
    ) -> None:
        self.engine, self.namespace, self.tasks = engine, namespace, tasks
        self._fork_servers, self._jailers, self._modules, self._bus = fork_servers, jailers, modules, bus
        self.events_address, self.grpc_address = addresses
        self._content = ContentStore(self.grpc_address, namespace)
        self.path = paths.task_socket(engine, self.events_address, namespace)
        self.service = TaskService(self)

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve containerd over ttrpc on ``path``, and who prefers gRPC on ``path`` with the suffix ``.grpc``."""
        async with await unix_listener(self.path) as listener, self._serve_grpc():
            task_status.started()
            await Server(ttrpc_services(self.service, _ALIASES)).serve(listener)

    @asynccontextmanager
    async def _serve_grpc(self) -> AsyncIterator[None]:
        server = GrpcServer([GrpcService(self.service, _ALIASES)])
        path = self.path.with_suffix(".grpc")
        path.unlink(missing_ok=True)
        await server.start(path=str(path))
        path.chmod(0o600)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def forks(self, engine: str | None = None) -> ForkClient:
        return await self._fork_servers.get(engine or self.engine)

    async def jail(self, plan: JailPlan, terminal: int | None, during: During) -> Jail:
        return await self._jailers.make(plan, terminal, during)

    async def program(self, container: str, name: str, fd: int | None, digest: str = "") -> Program:
        waiter = Waiter(self.namespace, container, self.engine)
        if fd is not None:
            return await self._modules.compiled(waiter, name, fd, digest)
        fd = await wasm_layer(self._content, container, name, engine_layers(self.engine))
        try:
            return await self._modules.compiled(waiter, name, fd)
        finally:
            os.close(fd)

    async def image(self, container: str) -> ImageLayers:
        waiter = Waiter(self.namespace, container, self.engine)
        return ImageLayers(waiter, self._content, self._modules, await self._content.layers(container))

    def view(self, artifact: Path) -> int:
        return self._modules.cache.view(artifact)

    async def discard(self, artifact: Path) -> None:
        await self._modules.cache.discard(artifact)

    def cgroup(self, path: str, *, systemd: bool) -> Cgroup:
        return Cgroup.at(path, systemd)

    def publish(self, event: Message) -> None:
        self._bus.publish(self.events_address, self.namespace, event)
