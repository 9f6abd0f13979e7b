"""Unix sockets that the daemon listens on: made with their mode, kept for the next one, or handed over by systemd."""

import socket
from pathlib import Path

import anyio
from anyio.abc import Listener, SocketAttribute, SocketListener, SocketStream

from shimd.supervisor import notify
from shimd.supervisor.recovery.keeping import Keeping

#: As many as containerd may open while the loop is busy.
_BACKLOG = 512


async def unix_listener(path: Path, mode: int = 0o600) -> Listener[SocketStream]:
    """Listen on ``path``; what an earlier daemon left there is replaced (one at a time holds the pid file)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return await anyio.create_unix_listener(path, mode=mode, backlog=_BACKLOG)


async def kept_listener(name: str, path: Path, keeper: Keeping) -> Listener[SocketStream]:
    """The listening socket of an earlier daemon, with all that came meanwhile, or a new one on ``path``; it is kept.

    :param name: under which
    """
    for kept in [socket.socket(fileno=fd) for fd in keeper.take(name) or []]:
        if _leads_to(path, kept):
            keeper.keep(name, [kept.fileno()])
            return await SocketListener.from_socket(kept)
        keeper.drop(name)
        kept.close()
    listener = await unix_listener(path)
    keeper.keep(name, [listener.extra(SocketAttribute.raw_socket).fileno()])
    return listener


def _leads_to(path: Path, listener: socket.socket) -> bool:
    """Whether who connects to a path comes to this socket: nobody has removed its file, or made another."""
    return path.is_socket() and listener.getsockname() == str(path)


async def inherited_or_kept(name: str, path: Path, keeper: Keeping) -> Listener[SocketStream]:
    """The listening socket that systemd calls ``name`` (FileDescriptorName=), else our own on ``path``."""
    fd = notify.listen_fds().get(name)
    if fd is None:
        return await kept_listener(f"listener:{name}", path, keeper)
    return await SocketListener.from_socket(socket.socket(fileno=fd))
