"""Which shimd a process runs: a version, and a digest of the state of its files, since one version may be installed
again with others.

A daemon notes its own in its environment, which whatever it starts has from then on, and anybody may look up.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from shimd import __version__

VARIABLE = "SHIMD_RELEASE"
_CODE = (".py", ".c", ".h", ".so")


def installed(package: str = os.path.dirname(__file__)) -> str:
    """The release whose files are there now: their names, sizes and times of change, which an installation makes."""
    files = "\n".join(sorted(_files(package)))
    return f"{__version__}+{hashlib.sha256(os.fsencode(files)).hexdigest()[:8]}"


def _files(directory: str, below: str = "") -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.name.endswith(_CODE):
                state = entry.stat()
                yield f"{below}{entry.name} {state.st_size} {state.st_mtime_ns}"


def mark() -> None:
    """This process, and those that it starts, are of the release that is installed now."""
    os.environ[VARIABLE] = installed()


def own() -> str:
    """This process's; empty in one that was not marked."""
    return os.environ.get(VARIABLE, "")


def of(pid: int) -> str:
    """The release of who has started a process; empty: that is not known."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = f"{VARIABLE}=".encode()
    return next((os.fsdecode(one.removeprefix(prefix)) for one in variables if one.startswith(prefix)), "")
