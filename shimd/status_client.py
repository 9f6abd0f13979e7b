"""The connection to the daemon's Status service."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar, cast

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from shimd import paths
from shimd.api.shimd.status.v1 import StatusStub
from shimd.errors import NoDaemon, Unavailable, from_code

T = TypeVar("T")


@asynccontextmanager
async def connected() -> AsyncIterator[StatusStub]:
    """A stub of the Status service.

    :raises NoDaemon: none runs, or this user may not ask it
    :raises ShimdError: what the daemon answered
    """
    path = paths.status_socket()
    channel = Channel(path=str(path))
    try:
        yield StatusStub(channel)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoDaemon(
            f"no daemon runs ({path}); it starts with the first container, or by: systemctl start shimd"
        ) from None
    except PermissionError:
        raise NoDaemon(f"only root may ask the daemon ({path}); try: sudo shimd …") from None
    except StreamTerminatedError as error:
        raise Unavailable(f"the daemon closed the connection: {error}") from error
    except GRPCError as error:
        raise from_code(error.status.value, error.message or error.status.name) from error
    finally:
        channel.close()


def streamed(items: AsyncIterator[T]) -> "aclosing[AsyncGenerator[T, None]]":
    """Returns the messages of a stub's streaming method, as a context whose end ends the stream."""
    return aclosing(cast(AsyncGenerator[T, None], items))  # it is one, whatever the generated code declares
