"""Reading and writing the kernel's little files, as cheaply as Python can."""

import errno
import os

# A file that is not there, of a cgroup that is no more, or of a part that this kernel has switched off.
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP})
_SIZE = 1 << 16


def write(path: str, value: str) -> None:
    """:raises OSError: naming the file"""
    with Writer() as writer:
        writer.write(path, value)


class Writer:
    """Writes values, one a write(2); a file that gets several in a row (a list of devices) is opened once."""

    def __init__(self) -> None:
        self._path = ""
        self._fd = -1

    def write(self, path: str, value: str) -> None:
        """:raises OSError: naming the file"""
        if path != self._path:
            self._close()
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            self._path = path
        try:
            os.write(self._fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None

    def _close(self) -> None:
        if self._path:
            os.close(self._fd)
            self._path = ""

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()


def read(path: str) -> str:
    """Read a whole file, without the white space at its ends.

    :raises OSError: naming the file
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_all(fd).decode().strip()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    # The kernel hands out a page or so at a time: only an empty read is the end.
    chunks = []
    while chunk := os.read(fd, _SIZE):
        chunks.append(chunk)
    return b"".join(chunks)


def read_if_there(path: str) -> str | None:
    """Read a whole file as :func:`read` does; ``None``: this kernel has no such file, or the cgroup is gone."""
    try:
        return read(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def flat_keyed(text: str) -> dict[str, int]:
    """Parse lines of ``KEY VALUE`` (cgroup-v2.rst, "Format"); a value that is no number is left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}
