"""FIFOs held open (fifo(7)), so that the other end does not see an end between one process of ours and the next."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path


def find(path: Path) -> int | None:
    """A descriptor of the path of a FIFO (open(2), ``O_PATH``), which nobody notices; ``None``: it is none.

    :raises OSError: there are too many descriptors
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None  # who opens it learns why
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def hold(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[list[int], bool]:
    """Open FIFOs that were found, those that can be; also returns whether none of the outputs lacks a reader.

    :param inputs: those that are to be read from: held for writing, too
    """
    held, all_read = [], True
    for fd in (*inputs, *outputs):
        access = os.O_RDWR if fd in inputs else os.O_WRONLY
        try:
            held.append(os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            all_read = all_read and error.errno != errno.ENXIO
    return held, all_read
