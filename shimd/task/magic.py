"""What a program is, by its first bytes and not by its name."""

import os

from shimd.errors import InvalidArgument

_NATIVE = {b"\x7fELF": "a native (ELF) program", b"#!": "a script"}


class NativeProgram(InvalidArgument):
    """The file is a program for the host, not WebAssembly."""


def is_native(fd: int) -> bool:
    """Whether the file is a program for the host."""
    return os.pread(fd, 4, 0).startswith(tuple(_NATIVE))


def reject_native(name: str, fd: int) -> None:
    """:raises NativeProgram: the file is one"""
    head = os.pread(fd, 4, 0)
    for magic, kind in _NATIVE.items():
        if head.startswith(magic):
            raise NativeProgram(f"{name} is {kind}, not WebAssembly; run it with a native runtime such as runc")
