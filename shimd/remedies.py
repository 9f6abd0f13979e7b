"""What an operator is told of an error that ends a command, or keeps the daemon from starting: one sentence, with the
way out."""

import errno
import os
from pathlib import Path

from shimd import paths
from shimd.errors import plain

#: What to do about an error number, for root; of others, what those may not do is for root to do.
_WAYS_OUT = {
    errno.EACCES: "root itself may not: see to that file system, and to the node's security modules (SELinux)",
    errno.EPERM: "root itself may not: see to that file system, and to the node's security modules (SELinux)",
    errno.EROFS: "have that file system mounted writable",
    errno.ENOTDIR: "move away what is no directory there",
    errno.EEXIST: "move away what is there",
    errno.EISDIR: "move away what is there",
}
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def told(error: Exception, command: str) -> str | None:
    """Returns the sentence; ``None`` for what is a bug of ours.

    :param command: shimd's, that has failed
    """
    error = cause(error)
    known = plain(error)
    if known is None:
        return str(error) if isinstance(error, OSError) else None  # one without a number: a path is too long
    origin = error if isinstance(error, OSError) else _origin(error)
    ways = _ways_out(origin, command) if origin is not None else []
    return f"{known}; {', or '.join(ways)}" if ways else str(known)


def of_foreign(directory: Path) -> str:
    """Returns what to do about a directory of the daemon's that is somebody else's."""
    way = "see to its owner and mode" if os.geteuid() == 0 else "try: sudo shimd serve"
    return f"{way}, or name another directory by {paths.variable_of(str(directory))}"


def cause(error: Exception) -> Exception:
    """Returns what task groups have wrapped."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _origin(error: Exception) -> OSError | None:
    """Returns the system's error that a sentence of ours tells of, if it does."""
    found = error.__cause__ or error.__context__
    if isinstance(found, OSError) and found.strerror and found.strerror.lower() in str(error).lower():
        return found
    return None


def _ways_out(error: OSError, command: str) -> list[str]:
    way = _WAYS_OUT.get(error.errno or 0, "")
    if error.errno in _FORBIDDEN and os.geteuid() != 0:
        way = f"try: sudo shimd {command}"
    variable = paths.variable_of(str(error.filename)) if error.filename is not None else ""
    return [*([way] if way else []), *([f"name another directory by {variable}"] if variable else [])]
