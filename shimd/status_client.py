"""The connection to the daemon's Status service."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import anyio
from anyio.abc import UNIXSocketStream
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from shimd import paths
from shimd.api.shimd.status.v1 import StatusStub
from shimd.errors import NoDaemon, Unavailable, Unimplemented, from_code, from_os
from shimd.linux.peer import peer_pid

T = TypeVar("T")
#: Seconds for a daemon to say that it is one, which it does as soon as somebody connects.
_PATIENCE = 10.0
#: The beginning of a server's first frame: of its settings, of the whole connection (RFC 9113, 4.1 and 3.4).
_FRAME, _SETTINGS = 9, 4


@asynccontextmanager
async def connected() -> AsyncIterator[StatusStub]:
    """A stub of the Status service.

    :raises NoDaemon: none runs, or this user may not ask it
    :raises ShimdError: what the daemon answered, or that it is none which listens there
    """
    path = paths.status_socket()
    await _greeted(path)
    channel = Channel(path=str(path))
    try:
        yield StatusStub(channel)
    except StreamTerminatedError as error:
        raise Unavailable(f"the daemon closed the connection: {error}") from error
    except GRPCError as error:
        if error.status is Status.UNIMPLEMENTED:
            raise Unimplemented(
                f"what listens at {path} is a daemon of another release, which does not know that; try: shimd upgrade"
            ) from error
        raise from_code(error.status.value, error.message or error.status.name) from error
    finally:
        channel.close()


async def _greeted(path: Path) -> None:
    """Have a connection of its own tell whether it is a daemon that listens: one that is not may never answer.

    :raises NoDaemon: nobody does, or this user may not ask
    :raises Unavailable: it is none, or it hangs
    """
    try:
        async with await anyio.connect_unix(path) as stream:
            await _greeting(path, stream)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoDaemon(
            f"no daemon runs ({path}); it starts with the first container, or by: systemctl start shimd"
        ) from None
    except PermissionError:
        raise NoDaemon(f"only root may ask the daemon ({path}); try: sudo shimd …") from None
    except OSError as error:
        error.filename = error.filename or str(path)
        raise NoDaemon(f"no daemon can run: {from_os(error)}") from error


async def _greeting(path: Path, stream: UNIXSocketStream) -> None:
    said, pid = b"", peer_pid(stream.extra_attributes[anyio.abc.SocketAttribute.raw_socket]())
    try:
        with anyio.fail_after(_PATIENCE):
            while len(said) < _FRAME:
                said += await stream.receive(_FRAME - len(said))
    except TimeoutError:
        raise Unavailable(
            f"what listens at {path}, pid {pid}, has said nothing for {_PATIENCE:.0f} s: it hangs, or is no daemon of "
            f"shimd's; see what it does, and end it: kill {pid}"
        ) from None
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        said = b""
    if said[3:4] != bytes([_SETTINGS]) or any(said[5:]):
        raise Unavailable(
            f"what listens at {path}, pid {pid}, is no daemon of shimd's; end it, or name another directory by "
            f"SHIMD_RUNTIME_DIR"
        )


def streamed(items: AsyncIterator[T]) -> "aclosing[AsyncGenerator[T, None]]":
    """Returns the messages of a stub's streaming method, as a context whose end ends the stream."""
    return aclosing(cast(AsyncGenerator[T, None], items))  # it is one, whatever the generated code declares
