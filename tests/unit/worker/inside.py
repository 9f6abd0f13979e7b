"""Running what only a worker does: in a forked child with a mount namespace of its own."""

import os
import traceback
from collections.abc import Callable

from shimd.linux import libc


def inside(action: Callable[[], object]) -> str:
    """What ``action`` returns, as text, or ``ErrorType: message`` if it raised; this process keeps its mounts."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _act(action, writer)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def _act(action: Callable[[], object], writer: int) -> None:
    try:
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
        said = str(action())
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if not str(error):
            said = traceback.format_exc()
    finally:
        os.write(writer, said.encode())
        os._exit(0)
