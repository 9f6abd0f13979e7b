"""Client and server in one process and without a socket, for tests of services.

::

    async with client_for(Server(services)) as client:
        assert await client.unary("greet.v1.Greeter", "Hello", b"") == b""
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
from anyio.abc import ByteSendStream, ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.streams.stapled import StapledByteStream

from shimd.ttrpc.client import Client
from shimd.ttrpc.limits import DEFAULT_LIMITS, Limits
from shimd.ttrpc.server import Server


def memory_pair() -> tuple[ByteStream, ByteStream]:
    """Two byte streams, joined: what is sent into one comes out of the other. Nothing is buffered on the way, so a side
    that does not read blocks its peer."""
    first_send, second_receive = anyio.create_memory_object_stream[bytes](0)
    second_send, first_receive = anyio.create_memory_object_stream[bytes](0)
    return _join(first_send, first_receive), _join(second_send, second_receive)


def _join(send: MemoryObjectSendStream[bytes], receive: MemoryObjectReceiveStream[bytes]) -> ByteStream:
    # A stream of objects that are bytes does all that a stream of bytes must, but by type.
    return StapledByteStream(cast(ByteSendStream, send), BufferedByteReceiveStream(receive))


@asynccontextmanager
async def client_for(server: Server, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Client]:
    """A client of this server. At the end the client is closed, and calls at work are cancelled."""
    near, far = memory_pair()
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve_stream, far)
        async with Client(near, limits) as client:
            yield client
