"""Which file ``args[0]`` names, and how it is opened: as the container would find it, and only if it is a file."""

import os
import stat

from shimd.errors import NotFound
from shimd.linux import libc
from shimd.oci import Process

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def split_entry(arg: str) -> tuple[str, str]:
    """``path#func`` as runwasi reads it: the program, and the exported function (default ``_start``)."""
    program, _, entry = arg.partition("#")
    return program, entry or "_start"


def candidates(program: str, process: Process) -> list[str]:
    """Where a program may be: as it stands if it names a directory, else in PATH, then in the working directory."""
    if "/" in program:
        return [os.path.join(process["cwd"], program)]
    path = next((item[5:] for item in process.get("env", []) if item.startswith("PATH=")), _DEFAULT_PATH)
    return [os.path.join(directory, program) for directory in (*path.split(":"), process["cwd"]) if directory]


def find_program(root: int, process: Process) -> tuple[int | None, str]:
    """The program of ``args[0]``, opened, in the root file system that the descriptor is; and where it is, or was
    looked for last."""
    program, _entry = split_entry(process["args"][0])
    paths = candidates(program, process)
    for path in paths:
        try:
            return open_file(root, path), path
        except NotFound:
            continue
    return None, paths[-1]


def open_file(root: int, path: str) -> int:
    """:raises NotFound: no such file; nor is a directory a program, or a device (some start at being opened)"""
    try:
        fd = libc.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(path) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotFound(path)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
