"""Unix sockets that the daemon listens on: made with their mode, or handed over by systemd."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from anyio.abc import SocketListener, SocketStream

from shimd.log import logger
from shimd.supervisor import notify

_log = logger(__name__)
#: As many as containerd may open while the loop is busy.
_BACKLOG = 512
#: Seconds until the next attempt, where something is short.
_PAUSE = 0.1


async def unix_listener(path: Path, mode: int = 0o600) -> SocketListener:
    """Listen on ``path``; what an earlier daemon left there is replaced (one at a time holds the pid file)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = await anyio.create_unix_listener(path, mode=mode, backlog=_BACKLOG)
    assert isinstance(listener, SocketListener)
    return listener


async def inherited_or_new(name: str, path: Path) -> SocketListener:
    """The listening socket that systemd calls ``name`` (FileDescriptorName=), else our own on ``path``."""
    fd = notify.listen_fds().get(name)
    if fd is None:
        return await unix_listener(path)
    return await SocketListener.from_socket(socket.socket(fileno=fd))


async def accepted(listener: SocketListener) -> AsyncIterator[SocketStream]:
    """All that is accepted, until the listener is closed or whoever asks is cancelled.

    An error of accept(2) is nobody's end: what is short (descriptors, memory) may not be in a moment, and who connects
    waits in the kernel's queue.
    """
    failing = False
    while True:
        try:
            stream = await listener.accept()
        except anyio.ClosedResourceError:
            return
        except (OSError, anyio.BrokenResourceError) as error:
            if not failing:
                _log.error("no connection can be accepted for now: %s", error.__cause__ or error)
            failing = True
            await anyio.sleep(_PAUSE)
        else:
            failing = False
            yield stream
