"""Running what only a worker does, in a forked child that tells what came of it; and what no fork may come after."""

import fcntl
import os
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from shimd.linux import libc


def inside(action: Callable[[], object]) -> str:
    """What ``action`` returns in a mount namespace of its own, as :func:`reported`."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")

    def act() -> object:
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
        return action()

    return reported(act)


def reported(action: Callable[[], object], fork: Callable[[], int] = os.fork) -> str:
    """What ``action`` returns in a child that ``fork`` makes, as text, or ``ErrorType: message`` if it raised."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(reader)
        _act(action, writer)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def in_a_new_process(function: Callable[..., object], *arguments: str) -> str:
    """What a function of a module returns in a fresh interpreter, as text: one that compiles with wasmtime.

    Its threads would be missing in every child that is forked from here on, and its next compilation there would wait
    for them for ever; and so would one in a child of a process that has compiled before.
    """
    code = f"import sys; from {function.__module__} import {function.__name__} as it; print(it(*sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environment()).stdout.strip()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _act(action: Callable[[], object], writer: int) -> None:
    try:
        writer = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 64)  # out of the way of descriptors with fixed numbers
        said = str(action())
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if not str(error):
            said = traceback.format_exc()
    finally:
        os.write(writer, said.encode())
        os._exit(0)
