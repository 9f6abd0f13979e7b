"""shimd.errors: what is short is told with what to do."""

import errno
import os

import pytest

from shimd.errors import Code, NotFound, from_os, plain
from shimd.rpc import status_of


def error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("raised", "code", "sentence"),
    [
        (error(errno.EMFILE), Code.RESOURCE_EXHAUSTED, "too many open files: end some apps, or raise LimitNOFILE= of"),
        (error(errno.ENOSPC, "/run/x"), Code.RESOURCE_EXHAUSTED, "/run/x: no space left on device: make room there"),
        (error(errno.ENOSPC, "/sys/fs/cgroup/x"), Code.RESOURCE_EXHAUSTED, "/sys/fs/cgroup/x: no space left on device"),
        (error(errno.EROFS, "/run/x"), Code.INTERNAL, "/run/x: read-only file system"),
        (MemoryError(), Code.RESOURCE_EXHAUSTED, "out of memory: the node"),
        (RuntimeError("can't start new thread"), Code.RESOURCE_EXHAUSTED, "no thread can be started: "),
        (NotFound("no such thing"), Code.NOT_FOUND, "no such thing"),
    ],
)
def test_what_a_caller_is_told(raised: Exception, code: Code, sentence: str) -> None:
    told, words = status_of(raised, "/service/method")
    assert told == code
    assert words.startswith(sentence)


@pytest.mark.parametrize("raised", [ValueError("no"), RuntimeError("other"), TimeoutError()])
def test_bugs_are_not_told_as_shortages(raised: Exception) -> None:
    assert plain(raised) is None
    assert status_of(raised, "/service/method")[0] == Code.INTERNAL


def test_a_kernel_file_has_no_room_to_make() -> None:
    assert "make room" not in str(from_os(error(errno.ENOSPC, "/sys/fs/cgroup/cpuset/x/tasks")))
