"""Read-only views of the cache's entries, by which workers open what they map.

A file leads back to itself (``/proc/self/fd/N``), by the mount that it was opened in: where that is the node's, whoever
takes over a worker of uid 0 can open it again, to write into what the next container will run. So workers are given a
descriptor of a detached mount, of one entry and read-only (open_tree(2), mount_setattr(2)), and no name of the cache's.
It is the same file for the kernel: apps share its pages as before.
"""

import errno
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from shimd.errors import DataLoss, from_os, reason
from shimd.linux import libc
from shimd.log import logger

_log = logger(__name__)
#: Entries of which a view is kept for the next app: those used last.
_MOST = 256
#: A kernel before 5.12, or no privilege: a worker of ``shimd run`` is its user's, whose cache it is.
_CANNOT = (errno.ENOSYS, errno.EPERM)


class Views:
    """Those of one daemon."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._made: OrderedDict[Path, tuple[tuple[int, int], int]] = OrderedDict()
        """By entry, which directory it was, and a descriptor."""
        self._told = False

    def open(self, entry: Path) -> int:
        """A descriptor of an entry's directory (O_PATH), for a worker; the caller closes it.

        :raises DataLoss: it is gone
        :raises ShimdError: it cannot be opened
        """
        try:
            status = os.stat(entry)
            return os.dup(self._view(entry, (status.st_dev, status.st_ino)))
        except FileNotFoundError:
            raise DataLoss(f"{entry} is in the cache no more") from None
        except OSError as error:
            raise from_os(error) from error

    def forget(self, entry: Path) -> None:
        """Close the view of an entry that is removed; workers have theirs."""
        _identity, fd = self._made.pop(entry, (None, None))
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        for entry in list(self._made):
            self.forget(entry)

    def _view(self, entry: Path, identity: tuple[int, int]) -> int:
        known, fd = self._made.get(entry, (None, -1))
        if known == identity:
            self._made.move_to_end(entry)
            return fd
        self.forget(entry)
        fd = self._make(entry)
        self._made[entry] = identity, fd
        if len(self._made) > self._most:
            self.forget(next(iter(self._made)))
        return fd

    def _make(self, entry: Path) -> int:
        try:
            return libc.clone_readonly(str(entry))
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._tell_once(error)
        return os.open(entry, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _tell_once(self, error: OSError) -> None:
        if os.geteuid() == 0 and not self._told:
            words = "the cache cannot be mounted read-only for workers, and one that is taken over may write to it: %s"
            _log.warning(words, reason(error))
        self._told = True

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()
