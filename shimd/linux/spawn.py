"""Programs as children that begin as programs expect to: no signal ignored, none blocked.

Both are inherited across execve(2). Python ignores SIGPIPE and SIGXFSZ, and whoever started the daemon may ignore
others: a shell's background job SIGINT, ``nohup`` SIGHUP. A program that inherits that does not end when it should.

Two remain ignored after posix_spawn(3), which no C library lets anybody name: glibc's own, 32 and 33. Processes that
others descend from make up for that themselves (:func:`reset_c_librarys`).
"""

import ctypes
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shimd.linux.machine import SYSCALLS

_libc = ctypes.CDLL(None)
#: ``struct sigaction`` of the kernel's, with nothing set: SIG_DFL; and the size of a set of signals.
_DEFAULT, _SET_SIZE = bytes(32), 8
#: Those that were started here, and were there when somebody looked last (``reaping.py``).
started: set[int] = set()
_ALL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def spawn(
    program: str | os.PathLike[str],
    words: Sequence[str],
    environment: Mapping[str, str],
    actions: Sequence[tuple[Any, ...]],
    *,
    session: bool = False,
    blocked: Collection[int] = (),
) -> int:
    """Start a program; returns its pid.

    :param actions: what becomes of its descriptors, as of posix_spawn(3)
    :param session: whether it leads a session of its own
    :param blocked: signals that are blocked all the same
    :raises OSError: it cannot be started
    """
    pid = os.posix_spawn(
        program, list(words), environment, file_actions=actions, setsid=session, setsigmask=blocked, setsigdef=_ALL
    )
    started.add(pid)
    return pid


def reset_c_librarys() -> None:
    """Let the signals of the C library's own, which posix_spawn(3) has left ignored, have their default action, for
    what this process will become or fork. For processes with one thread."""
    for number in (32, 33):
        _libc.syscall(SYSCALLS["rt_sigaction"], number, _DEFAULT, None, ctypes.c_size_t(_SET_SIZE))
