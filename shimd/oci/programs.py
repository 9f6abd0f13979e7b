"""Finds and opens the file that ``args[0]`` names, as the container would find it, and only if it is a file.

What is wrong with it is said in runc's words, since others read them: Docker derives the exit codes 127 and 126 from
"executable file not found", "no such file or directory", "is a directory" and "permission denied".
"""

import errno
import os
import stat
from typing import NamedTuple

from shimd.errors import NotFound, reason
from shimd.linux import libc
from shimd.oci import Process, User
from shimd.oci.file_user import acting_on_files_as

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: With one of them no mode keeps a file from its user.
_OVERRIDE = {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}
#: Why a path may lead to no program.
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)


class IsDirectory(NotFound):
    """What is there is no file."""


class Program(NamedTuple):
    """The program that ``args[0]`` names."""

    path: str
    """The path where it is, or was looked for last."""
    file: int | None
    """Opened; ``None``: it is not there, or not for this user. An image's layer may hold it."""
    missing: str = ""
    """The sentence that says so."""


def split_entry(arg: str) -> tuple[str, str]:
    """``path#func`` as runwasi reads it: the program, and the exported function (default ``_start``)."""
    program, _, entry = arg.partition("#")
    return program, entry or "_start"


def candidates(program: str, process: Process) -> list[str]:
    """Returns the paths of a program: as it stands if it has a slash, else in PATH, then in the working directory."""
    if "/" in program:
        return [os.path.join(process["cwd"], program)]
    path = next((item[5:] for item in process.get("env", []) if item.startswith("PATH=")), _DEFAULT_PATH)
    return [os.path.join(directory, program) for directory in (*path.split(":"), process["cwd"]) if directory]


def find_program(root: int, process: Process) -> Program:
    """Find the program of ``args[0]`` in the root file system that the descriptor is, if its user may have it."""
    program, _entry = split_entry(process["args"][0])
    paths = candidates(program, process)
    missing = f"{program}: executable file not found in $PATH"
    user = _on_files(process)
    for path in paths:
        try:
            return Program(path, open_file(root, path, user))
        except NotFound as error:
            missing = str(error) if "/" in program else missing
    return Program(paths[-1], None, missing)


def _on_files(process: Process) -> User:
    """Returns a process's user to files: root itself, if it keeps root's capabilities."""
    kept = process.get("capabilities", {}).get("effective", [])
    return {} if _OVERRIDE.intersection(kept) else process.get("user", {})


def open_file(root: int, path: str, user: User | None = None) -> int:
    """:raises NotFound: there is no such file, or not for this user; the sentence names the path and the reason"""
    try:
        fd = _find(root, path, user or {})
    except OSError as error:
        if error.errno not in _NONE:
            raise
        kind = IsDirectory if error.errno == errno.EISDIR else NotFound
        raise kind(f"{path}: {reason(error)}") from None
    try:
        return os.open(_name(fd), os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _find(root: int, path: str, user: User) -> int:
    with acting_on_files_as(user):
        fd = libc.open_in_root(root, path, os.O_PATH)
        try:
            _check(fd)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _check(fd: int) -> None:
    """Check that a file can be a program for this user.

    A directory is none, nor is a device (some start at being opened). A file that the user may neither execute nor read
    is not run. That nobody may execute it is usual: images are built with modules as files of data.

    :raises OSError: what execve(2) says
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise _error(errno.EISDIR)
    if not (stat.S_ISREG(mode) and (_may(fd, os.R_OK) or _may(fd, os.X_OK))):
        raise _error(errno.EACCES)


def _may(fd: int, what: int) -> bool:
    return os.access(_name(fd), what, effective_ids=True)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _name(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
