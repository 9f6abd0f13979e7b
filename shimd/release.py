"""Which shimd a process runs.

A version, and a checksum of the state and the place of its files, since one version may be installed again with others,
or in two places. (No digest: each fork server would have OpenSSL for nothing else.)

Nothing of it is in an environment, which guests may be able to read: a daemon and its fork servers say theirs to who
asks (``Status``, ``Hello``).
"""

import os
import sys
import zlib
from collections.abc import Iterator

from shimd import __version__

_CODE = (".py", ".c", ".h", ".so")
#: Programs in the package.
_PROGRAMS = ("_zygote",)
_own = ""


def installed(package: str = os.path.dirname(__file__)) -> str:
    """The release whose files are there now: their place, names, sizes and times of change, which an installation
    makes, and the interpreter that runs them."""
    package = os.path.realpath(package)
    state = "\n".join([sys.version, package, *sorted(_files(package))])
    return f"{__version__}+{zlib.crc32(os.fsencode(state)):08x}"


def _files(directory: str, below: str = "") -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.name.endswith(_CODE) or entry.name in _PROGRAMS:
                state = entry.stat()
                yield f"{below}{entry.name} {state.st_size} {state.st_mtime_ns}"


def mark() -> None:
    """This process is of the release that is installed now: to be said before the rest of it is loaded."""
    global _own
    _own = installed()


def own() -> str:
    """This process's."""
    if not _own:
        mark()
    return _own


def is_whole() -> bool:
    """Returns whether all that was loaded since :func:`mark` was of one release."""
    return installed() == own()
