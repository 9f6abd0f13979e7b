"""The kind of a program, by its first bytes and not by its name."""

import os

from shimd.errors import InvalidArgument
from shimd.formats import elf

_ELF = b"\x7fELF"
_NATIVE = {_ELF: "a native (ELF) program", b"#!": "a script"}
#: What looks like a program of ours, and is none.
_OTHERS = {
    b"wasmer-universal": f"machine code that wasmer has compiled ahead of time: {elf.WAY_OUT}",
    b"\0webc": "a package of wasmer's (.webc)",
}
_LONGEST = 16


class NativeProgram(InvalidArgument):
    """The file is a program for the host, not WebAssembly."""


def is_native(fd: int) -> bool:
    """Returns whether the file is a program for the host."""
    return os.pread(fd, 4, 0).startswith(tuple(_NATIVE))


def reject_native(name: str, fd: int) -> None:
    """:raises NativeProgram: the file is one
    :raises InvalidArgument: nobody can run it
    """
    head = os.pread(fd, _LONGEST, 0)
    if head.startswith(_ELF) and (other := elf.no_program(fd)):
        raise InvalidArgument(f"{name} is no program, but {other}")
    for magic, kind in _NATIVE.items():
        if head.startswith(magic):
            raise NativeProgram(f"{name} is {kind}, not WebAssembly; run it with a native runtime such as runc")
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            raise InvalidArgument(f"{name} is no program, but {kind}")
