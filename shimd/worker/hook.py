"""A worker that becomes a hook: a program that a container's configuration names for a moment of its life."""

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

from shimd.errors import InvalidArgument, reason
from shimd.linux.limits import restore_descriptors
from shimd.linux.memory_file import sealed_copy
from shimd.protocol.plans import HookCommand
from shimd.protocol.system_calls import CallRunner
from shimd.seal import seal


def become(plan: HookCommand, calls: bytes) -> NoReturn:
    """Go where the hook belongs, and become its program. With no calls that is the node itself.

    A container's own program is executed by a small one of ours, in memory (``worker/pause.c``): it would get at the
    interpreter of the node, in which this runs, by ``/proc/self/exe``.

    :raises InvalidArgument: it cannot be executed
    :raises ShimdError: a system call fails
    """
    hook = plan.hook
    helper = sealed_copy(Path(plan.executor), "shimd-exec") if plan.executor else None
    for fd in range(3):
        os.set_inheritable(fd, True)
    seal("a hook's entry into the container")
    runner = CallRunner(calls)
    while not runner.done:
        runner.run()
    path = hook["path"]
    restore_descriptors()
    environment = dict(item.partition("=")[::2] for item in hook["env"])
    try:
        if plan.directory:
            os.chdir(plan.directory)
        words = hook.get("args") or [path]
        if helper is not None:
            _look(path)
            _execute(helper, ["shimd-exec", path, *words], environment)
        os.execve(path, words, environment)
    except OSError as error:
        raise InvalidArgument(f"{path}: {reason(error)}") from error


def _look(path: str) -> None:
    """:raises OSError: that is no program, which the one in between would tell by a number only"""
    if stat.S_ISDIR(os.stat(path).st_mode) or not os.access(path, os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _execute(program: int, words: list[str], environment: dict[str, str]) -> NoReturn:
    """By execveat(2), or by name where a container's filter knows no such call."""
    try:
        os.execve(program, words, environment)
    except OSError:
        os.execve(f"/proc/self/fd/{program}", words, environment)
