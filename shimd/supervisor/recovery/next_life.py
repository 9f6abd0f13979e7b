"""How this supervisor is started again, if nobody else does it: by the keeper."""

import os
import sys
from os.path import abspath

from shimd.linux.memory_file import memory_file
from shimd.log import logger
from shimd.protocol.keeper import encode_command

_log = logger(__name__)
#: Of who started this process, and for it alone (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)).
_OURS = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")


def has_service_manager() -> bool:
    """Returns whether systemd started this very process, and so does it again.

    Its variables alone do not tell: containerd is a service as well, and a launcher hands on what it has. Before
    version 248 systemd does not say whom it has started, but a launcher's socket is none of systemd's.
    """
    if started := os.environ.get("SYSTEMD_EXEC_PID"):
        return started == str(os.getpid())
    return os.environ.get("NOTIFY_SOCKET", "").startswith(("/run/systemd/", "@/org/freedesktop/systemd1/"))


def restart_command() -> list[int]:
    """What starts this process again, as descriptors for a keeper: the command's file, no input, its output and errors.
    The caller closes them; none: somebody else does.

    :raises OSError: something is short
    """
    if has_service_manager():
        return []
    arguments = [abspath(word) if word == sys.argv[0] else word for word in sys.orig_argv[1:]]
    variables = {name: value for name, value in os.environ.items() if name not in _OURS}
    fds: list[int] = []
    try:
        fds.append(memory_file("shimd-command", encode_command([sys.executable, *arguments], variables, [0, 1, 2])))
        fds.append(os.open(os.devnull, os.O_RDWR))
        fds += (os.dup(number) for number in (1, 2))
    except (OSError, ValueError) as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, OSError):
            raise
        _log.error("the keeper will not start this daemon again: %s", error)
        return []
    return fds
