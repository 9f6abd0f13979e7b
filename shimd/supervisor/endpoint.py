"""One task socket: the Task service of one engine for one containerd and one of its namespaces.

containerd 1.6 names no namespace in its calls, so each namespace has a socket of its own. All endpoints share the
supervisor's fork servers, module cache and event bus.
"""

import os
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Listener, SocketStream
from betterproto2 import Message
from grpclib.server import Server as GrpcServer

from shimd import paths
from shimd.cgroup import Cgroup
from shimd.engines.registry import engine_layers
from shimd.errors import ResourceExhausted, from_os
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord, Published, TaskRecord, name_of
from shimd.protocol.plans import JailPlan
from shimd.rpc import GrpcService, ttrpc_services
from shimd.supervisor.background import Background
from shimd.supervisor.events import EventBus
from shimd.supervisor.image.content import ContentStore, wasm_layer
from shimd.supervisor.image.layers import ImageLayers
from shimd.supervisor.metrics.measures import NOTHING, Measures
from shimd.supervisor.modules.compilations import Waiter
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.recovery.connections import Connections
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.recovery.keeping import Keeping
from shimd.supervisor.sockets import kept_listener
from shimd.supervisor.task.service import TaskService
from shimd.supervisor.tracing.steps import Traced, step, untraced
from shimd.supervisor.workers.fork_client import ForkClient
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.jailers import During, Jail, Jailers
from shimd.supervisor.workers.programs import Program
from shimd.ttrpc import Server

_log = logger(__name__)
#: v3 names the same methods and messages; containerd calls the one that the launcher's answer says.
_ALIASES = ["containerd.task.v2.Task"]
#: Seconds until a socket that could not be made is tried again.
_PAUSE = 1.0


@dataclass
class Parts:
    """The parts of the supervisor that all endpoints share."""

    tasks: Background
    fork_servers: ForkServers
    jailers: Jailers
    modules: Modules
    bus: EventBus
    journal: Journal
    keeper: Keeping
    measures: Measures = NOTHING
    traced: Traced = untraced


class Endpoint:
    """The :class:`shimd.supervisor.task.context.Context` of its containers."""

    def __init__(self, record: EndpointRecord, parts: Parts) -> None:
        self.record, self._parts = record, parts
        self.engine, self.namespace, self.tasks = record.engine, record.namespace, parts.tasks
        self.events_address, self.grpc_address = record.events_address, record.grpc_address
        self._content = ContentStore(self.grpc_address, self.namespace)
        self.path = paths.task_socket(self.engine, self.events_address, self.namespace)
        self.service = TaskService(self)
        traced = parts.traced(self.engine, self.namespace, self.service)
        self._served = parts.measures.calls(self.engine, traced)
        server = Server(ttrpc_services(self._served, _ALIASES))
        self.connections = Connections(server, parts.keeper, name_of(record))
        self._grpc_path = self.path.with_suffix(".grpc")
        self._listener_name = f"listener:{name_of(record)}"
        self.serving = anyio.CancelScope()
        self._listening = anyio.Lock()
        self._listener: Listener[SocketStream] | None = None
        self._grpc: GrpcServer | None = None

    @property
    def is_needed(self) -> bool:
        """Whether it has containers, or connections by which one may be asked for."""
        return self.service.is_needed or self.connections.busy

    def end(self) -> None:
        """Nobody is served any more, nor by a later supervisor."""
        self._parts.keeper.drop(self._listener_name)
        for path in (self.path, self._grpc_path):
            path.unlink(missing_ok=True)
        self.serving.cancel()

    async def listen(self) -> None:
        """Have whoever connects wait for :meth:`serve`, unless they do already.

        :raises OSError: they cannot
        """
        async with self._listening:
            if self._listener is None:
                self._listener = await kept_listener(self._listener_name, self.path, self._parts.keeper)
                await self._listen_grpc()

    async def serve(self) -> None:
        """Serve containerd over ttrpc on ``path``, and who prefers gRPC on ``path`` with the suffix ``.grpc``."""
        await self.listen()
        assert self._listener is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._have_grpc)
            await self.connections.serve(self._listener, self.tasks)

    async def close(self) -> None:
        if self._grpc is not None:
            self._grpc.close()
        if self._listener is not None:
            await self._listener.aclose()

    async def _have_grpc(self) -> None:
        """Others need not wait for what few use."""
        while self._grpc is None:
            await anyio.sleep(_PAUSE)
            await self._listen_grpc()

    async def _listen_grpc(self) -> None:
        server = GrpcServer([GrpcService(self._served, _ALIASES)])
        try:
            self._grpc_path.unlink(missing_ok=True)
            with anyio.fail_after(_PAUSE, shield=True):  # else a socket that listens already would be nobody's
                await server.start(path=str(self._grpc_path))
                self._grpc = server
            self._grpc_path.chmod(0o600)
        except OSError as error:
            _log.error("%s is not served for now: %s", self._grpc_path, from_os(error))

    async def forks(self, engine: str | None = None) -> ForkClient:
        return await self._parts.fork_servers.get(engine or self.engine)

    async def jail(self, plan: JailPlan, terminal: int | None, during: During) -> Jail:
        with step("world"):
            return await self._parts.jailers.make(plan, terminal, during)

    async def program(self, container: str, name: str, fd: int | None, digest: str = "", engine: str = "") -> Program:
        waiter = Waiter(self.namespace, container, engine or self.engine)
        if fd is not None:
            return await self._parts.modules.compiled(waiter, name, fd, digest)
        fd = await wasm_layer(self._content, container, name, engine_layers(self.engine))
        try:
            return await self._parts.modules.compiled(waiter, name, fd)
        finally:
            os.close(fd)

    async def image(self, container: str, engine: str = "") -> ImageLayers:
        waiter = Waiter(self.namespace, container, engine or self.engine)
        return ImageLayers(waiter, self._content, self._parts.modules, await self._content.layers(container))

    def view(self, artifact: Path) -> int:
        return self._parts.modules.cache.view(artifact)

    async def discard(self, artifact: Path) -> None:
        await self._parts.modules.cache.discard(artifact)

    def cgroup(self, path: str, *, systemd: bool) -> Cgroup:
        return Cgroup.at(path, systemd)

    def commit(self, record: TaskRecord, event: Message | None = None, *, required: bool = False) -> None:
        number, data = 0, b""
        if event is not None:
            number, data = self._parts.bus.next_seq(self.events_address), bytes(event)
            record.published = [Published(number, type(event).__name__, b64encode(data).decode(), time.time_ns())]
        try:
            self._parts.journal.write(record)
        except (OSError, ResourceExhausted) as error:
            if required:
                raise from_os(error) if isinstance(error, OSError) else error from error
            _log.error("container %s: its state cannot be recorded: %s", record.id, error)
        if event is not None:
            self._parts.bus.publish(self.events_address, self.namespace, event, number, data)

    def forget(self, record: TaskRecord) -> None:
        self._parts.journal.remove(record)

    def keep(self, name: str, fds: Sequence[int]) -> None:
        self._parts.keeper.keep(name, fds)

    def keep_soon(self, name: str, fds: Sequence[int]) -> None:
        self._parts.keeper.keep_soon(name, fds)

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        return await self._parts.keeper.hold(name, inputs, outputs)

    def held(self, name: str, fds: Sequence[int]) -> None:
        self._parts.keeper.held(name, fds)

    def drop(self, name: str) -> None:
        self._parts.keeper.drop(name)
