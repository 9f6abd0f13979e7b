"""Files in memory (memfd_create(2)): data that passes between processes as a descriptor, and sealed programs."""

import fcntl
import os
from pathlib import Path

_MFD_EXEC = 0x10  # <linux/memfd.h>
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def memory_file(name: str, data: bytes, flags: int = 0) -> int:
    """Make a file in memory, to be passed with a message; the caller closes it.

    :param flags: more than ``MFD_CLOEXEC`` (memfd_create(2))
    :raises OSError: there is no memory for it
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | flags)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:] if written else data, written)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_file(fd: int) -> bytes:
    """Returns the whole of a file, whatever its offset."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def sealed_copy(path: Path, name: str) -> int:
    """Copy a program into a file in memory that nobody can write to; returns its descriptor, close-on-exec."""
    data = path.read_bytes()
    try:
        fd = memory_file(name, data, os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:  # a kernel before 6.3, where all are executable
        fd = memory_file(name, data, os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        # Another descriptor: executing what is open to be written to is ETXTBSY.
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
