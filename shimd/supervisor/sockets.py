"""Unix sockets that the daemon listens on: made with their mode, or handed over by systemd."""

import socket
from pathlib import Path

import anyio
from anyio.abc import Listener, SocketListener, SocketStream

from shimd.supervisor import notify

#: As many as containerd may open while the loop is busy.
_BACKLOG = 512


async def unix_listener(path: Path, mode: int = 0o600) -> Listener[SocketStream]:
    """Listen on ``path``; what an earlier daemon left there is replaced (one at a time holds the pid file)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return await anyio.create_unix_listener(path, mode=mode, backlog=_BACKLOG)


async def inherited_or_new(name: str, path: Path) -> Listener[SocketStream]:
    """The listening socket that systemd calls ``name`` (FileDescriptorName=), else our own on ``path``."""
    fd = notify.listen_fds().get(name)
    if fd is None:
        return await unix_listener(path)
    return await SocketListener.from_socket(socket.socket(fileno=fd))
