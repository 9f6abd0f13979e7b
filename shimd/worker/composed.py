"""A program of an application that is put together of several: by the compile worker, which gets all in one file."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shimd.engine import Composed
from shimd.errors import InvalidArgument, ResourceExhausted
from shimd.formats.parts import Parts, join
from shimd.linux.memory_file import memory_file
from shimd.protocol.packets import send
from shimd.protocol.worker import AskProgram
from shimd.worker.main import ProgramDirectories, compiled

#: Most that the parts of a program may have together, bytes: they are in memory for a moment.
_LARGEST = 512 << 20

PartT = TypeVar("PartT")


def fetch(
    program: Composed[PartT], open: Callable[[PartT], int], control: socket.socket, directories: ProgramDirectories
) -> Path:
    """The compiled form of a program, which is known by the hash of all its parts.

    :raises NotFound: one is not there
    :raises ResourceExhausted: they are too large
    """
    parts: list[bytes] = []
    room = _LARGEST
    for part in program.parts:
        fd = open(part)
        try:
            parts.append(_read(fd, room + 1))
        except IsADirectoryError:
            raise InvalidArgument(f"{program.name}: {part} is a directory") from None
        finally:
            os.close(fd)
        room -= len(parts[-1])
        if room < 0:
            raise ResourceExhausted(f"{program.name}: its parts are larger than {_LARGEST >> 20} MiB together")
    fd = memory_file("shimd-parts", join(Parts(program.plan, parts)))
    try:
        send(control, AskProgram(program.name), [fd])
    finally:
        os.close(fd)
    return compiled(control, directories)


def _read(fd: int, most: int) -> bytes:
    """:raises IsADirectoryError: as of open(2)"""
    with os.fdopen(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read(most)
