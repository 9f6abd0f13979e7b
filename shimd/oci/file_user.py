"""A process's identity to the file system (credentials(7), "filesystem user ID"): the kernel itself says what another
user may have, by modes, access control lists and the directories on the way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from shimd.linux import libc
from shimd.oci import User


@contextmanager
def acting_on_files_as(user: User) -> Iterator[None]:
    """Open files as that user would; for a process of root's with a single thread."""
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    if uid == 0:
        yield
        return
    own = os.getgroups()
    os.setgroups(user.get("additionalGids", []))
    libc.setfsgid(gid)
    libc.setfsuid(uid)  # last: with it go the capabilities that override a file's mode
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())
        os.setgroups(own)
