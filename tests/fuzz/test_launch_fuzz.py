"""What comes on the launchers' socket: each connection is answered, by an address or a sentence, and ends."""

import socket
from types import SimpleNamespace
from typing import Any, cast

import anyio
from anyio.abc import UNIXSocketStream
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shimd.protocol.journal import EndpointRecord
from shimd.supervisor.launch_socket import LaunchServer
from tests.fuzz.values import torn

FIELDS = ["wasmtime", "space", "/run/c.ttrpc", "/run/c", "app", "/bundle"]
REQUESTS = ["".join(f"{field}\0" for field in (command, *FIELDS)).encode() for command in ("start", "delete")]


class Supervisor:
    """Has no container, and makes endpoints that nobody will connect to."""

    async def endpoint(self, record: EndpointRecord) -> Any:
        announced = SimpleNamespace(announce=lambda: None)
        return SimpleNamespace(path="/run/socket", connections=announced, service=SimpleNamespace(containers={}))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(REQUESTS).flatmap(torn) | st.binary(max_size=200))
@example(REQUESTS[0])
@example(REQUESTS[1])
@example(b"start" + b"\xff\0" * 6)
@example(bytes(70000))
def test_requests_of_launchers(data: bytes) -> None:
    reply = anyio.run(answered, data)
    if data == REQUESTS[0]:
        assert reply == b"ok unix:///run/socket"
    else:
        assert reply.startswith((b"ok ", b"error "))


async def answered(data: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    server = LaunchServer(cast(Any, Supervisor()))
    reply = b""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._handle, await UNIXSocketStream.from_socket(theirs))
            async with await UNIXSocketStream.from_socket(ours) as stream:
                await stream.send(data)
                await stream.send_eof()
                async for chunk in stream:
                    reply += chunk
    return reply
