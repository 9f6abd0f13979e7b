"""``tmpcopyup``: a tmpfs that begins with what the image has where it is mounted, as runc does it.

Images are anybody's: every name is looked up in the directory that is at hand, no link is followed, and what is neither
directory, file nor link is left out.
"""

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def copy_up(source: int, target: int) -> None:
    """Copy what is in one directory into another, with owners and modes.

    :raises OSError: there is no room, say
    """
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISDIR(found.st_mode):
            _copy_directory(name, source, target)
        elif stat.S_ISREG(found.st_mode):
            _copy_file(name, source, target)
        else:
            continue
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)


def _copy_directory(name: str, source: int, target: int) -> None:
    os.mkdir(name, dir_fd=target)
    fds = [os.open(name, _DIRECTORY, dir_fd=directory) for directory in (source, target)]
    try:
        copy_up(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def _copy_file(name: str, source: int, target: int) -> None:
    before = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        after = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(after, before, None, _CHUNK):
                pass
        finally:
            os.close(after)
    finally:
        os.close(before)
