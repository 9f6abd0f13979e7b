"""The errors that shimd shows to its callers, and their gRPC status codes: the one place where the two meet.

Codes: https://grpc.io/docs/guides/status-codes/ (google.rpc.Code). containerd turns them into its ``errdefs``, and
clients act on them (``NotFound``: a Kill of what has exited; ``FailedPrecondition``: a Delete of what runs).
"""

import errno
from enum import IntEnum


class Code(IntEnum):
    """google.rpc.Code, the subset that shimd answers with."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class ShimdError(Exception):
    """Base of all errors with a message fit for an operator: one clear sentence."""

    code = Code.INTERNAL


class InvalidArgument(ShimdError):
    """The caller's request, spec or image is wrong; the same request will fail again."""

    code = Code.INVALID_ARGUMENT


class NotFound(ShimdError):
    code = Code.NOT_FOUND


class AlreadyExists(ShimdError):
    code = Code.ALREADY_EXISTS


class FailedPrecondition(ShimdError):
    """The object's state does not allow the request (start of a started task, delete of a running one)."""

    code = Code.FAILED_PRECONDITION


class ResourceExhausted(ShimdError):
    """Disk, memory or processes are used up."""

    code = Code.RESOURCE_EXHAUSTED


class Unimplemented(ShimdError):
    code = Code.UNIMPLEMENTED


class Unavailable(ShimdError):
    """A part that should answer (fork server, containerd) does not; trying again may help."""

    code = Code.UNAVAILABLE


class NoDaemon(ShimdError):
    """Nothing answers on the status socket. The message says what to do."""


class Internal(ShimdError):
    code = Code.INTERNAL


class DataLoss(ShimdError):
    """Stored data is damaged: a compiled module that does not load."""

    code = Code.DATA_LOSS


#: What is short, by error number, and what to do about it.
_SHORT = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.ENOMEM: "the node, or this service's cgroup, has no memory left",
    errno.EMFILE: "end some apps, or raise LimitNOFILE= of the service that shimd runs in",
    errno.ENFILE: "end some processes, or raise the node's sysctl fs.file-max",
    errno.EAGAIN: "it may be the limit of processes: end some, or raise pids.max, TasksMax= or LimitNPROC=",
}
#: Where an error number means something else: a cpuset without processors is ENOSPC.
_KERNELS = ("/sys/", "/proc/")
#: What Python says for EAGAIN where it starts a thread.
_NO_THREAD = "can't start new thread"

_BY_CODE: dict[int, type[ShimdError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, ResourceExhausted, Unimplemented, Unavailable,
        DataLoss,
    )
}  # fmt: skip


def reason(error: OSError) -> str:
    """Returns why a system call failed, as programs in Go say it, runc among them: who looks for those words (Docker,
    for an exit code of 126 or 127) looks for their case, too."""
    return in_go(error.strerror or str(error))


def in_go(words: str) -> str:
    """Returns the C library's words for an error number (strerror(3)) with Go's first letter, a small one."""
    return words[:1].lower() + words[1:]


def from_os(error: OSError) -> ShimdError:
    """Convert a system call's error: one sentence that names the file.

    Exhausted resources, which another node or moment may have, are ``ResourceExhausted``; all else is ``Internal``.
    """
    names = " → ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    sentence = f"{names}: {reason(error)}" if names else reason(error)
    if error.errno not in _SHORT:
        found: ShimdError = Internal(sentence)
    else:
        found = ResourceExhausted(sentence if names.startswith(_KERNELS) else f"{sentence}: {_SHORT[error.errno]}")
    found.__cause__ = error  # for who knows a way out (``remedies.py``)
    return found


def is_shortage(error: OSError) -> bool:
    """Returns whether something has run out (descriptors, memory, room), which another moment may have."""
    return error.errno in _SHORT


def plain(error: Exception) -> ShimdError | None:
    """What a caller is to be told: our own errors, and the system's; ``None`` for what is a bug of ours."""
    if isinstance(error, ShimdError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return from_os(error)
    if isinstance(error, MemoryError):
        return ResourceExhausted(f"out of memory: {_SHORT[errno.ENOMEM]}")
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return ResourceExhausted(f"no thread can be started: {_SHORT[errno.EAGAIN]}")
    return None


def from_code(code: int, message: str) -> ShimdError:
    """Rebuild an error that crossed a process boundary as (code, message)."""
    return _BY_CODE.get(code, Internal)(message)
