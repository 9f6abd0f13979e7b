"""The launchers' socket: ``shimd/launcher/PROTOCOL.md``, the daemon's side."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import Listener, SocketStream

from shimd.engines.registry import engine_reference
from shimd.errors import InvalidArgument, NotFound, ResourceExhausted, plain
from shimd.linux import limits
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord
from shimd.supervisor.supervisor import Supervisor
from shimd.ttrpc.accept import accept_all

_log = logger(__name__)
#: Largest request, bytes, and the seconds in which it must arrive.
_MAX_REQUEST = 65536
_PATIENCE = 10
#: Descriptors that must be left for another container, so that those that run can still be asked and ended; where few
#: are allowed at all, a part of these.
_MARGIN, _PART = 64, 8

Request = list[str]


class LaunchServer:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._commands: dict[str, Callable[[Request], Awaitable[str]]] = {"start": self._start, "delete": self._delete}

    async def serve(self, listener: Listener[SocketStream]) -> None:
        """Answer launchers until cancelled."""
        async with anyio.create_task_group() as tasks:
            await accept_all(listener, self._handle, tasks, "of launchers")

    async def _handle(self, stream: SocketStream) -> None:
        """One request, one reply; a connection that goes wrong must not take the daemon with it."""
        async with stream:
            try:
                with anyio.fail_after(_PATIENCE):
                    reply = await self._answer(await _read_request(stream))
                    await stream.send(reply.encode(errors="surrogateescape"))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError) as error:
                _log.warning("a launcher did not wait for its answer: %r", error)
            except Exception:
                _log.exception("a launcher's connection failed")

    async def _answer(self, request: Request) -> str:
        try:
            if len(request) != 7 or request[0] not in self._commands:
                raise InvalidArgument("not a launcher's request")
            engine_reference(request[1])  # it is installed
            return f"ok {await self._commands[request[0]](request)}"
        except Exception as error:  # a connection without an answer is taken for the end of the daemon
            if (told := plain(error)) is None:
                _log.exception("a launcher's request failed")
                return f"error {type(error).__name__}: {error}"
            return f"error {told}"

    async def _start(self, request: Request) -> str:
        _, engine, namespace, events_address, grpc_address, _id, _bundle = request
        _check_descriptors()
        endpoint = await self._supervisor.endpoint(EndpointRecord(engine, namespace, events_address, grpc_address))
        endpoint.connections.announce()
        return f"unix://{endpoint.path}"

    async def _delete(self, request: Request) -> str:
        """containerd has given the task up: end it, whatever its state."""
        _, engine, namespace, events_address, grpc_address, id, _bundle = request
        endpoint = await self._supervisor.endpoint(EndpointRecord(engine, namespace, events_address, grpc_address))
        container = endpoint.service.containers.get(id)
        if container is None:
            raise NotFound(f"container {id} does not exist")
        exit = await endpoint.service.abandon(container)
        return f"{container.init.pid} {exit.code} {exit.at // 10**9} {exit.at % 10**9}"


def _check_descriptors() -> None:
    """:raises ResourceExhausted: the daemon has too few left for one more container"""
    most = limits.descriptors()
    if not limits.has_descriptors(min(_MARGIN, most // _PART)):
        raise ResourceExhausted(
            f"nearly all of the {most} descriptors that shimd may have are in use: end some apps, "
            "or raise LimitNOFILE= of the service that it runs in"
        )


async def _read_request(stream: SocketStream) -> Request:
    data = bytearray()
    try:
        while len(data) <= _MAX_REQUEST:
            data += await stream.receive()
    except anyio.EndOfStream:
        pass
    return bytes(data).decode(errors="surrogateescape").removesuffix("\0").split("\0")
