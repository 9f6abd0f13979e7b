"""Landlock: a wall of the worker's own, behind that of its mount namespace (landlock(7)).

A descriptor, or a link of /proc, that leads out of the container's root leads nowhere: whatever is opened, made,
renamed or removed has to be beneath the root, or one of its streams, or to be read in its own program's view of the
cache. Nothing is executed, no device is made, no mount is changed, no process outside is signalled or looked into, no
abstract socket of others connected to. The jailer makes the ruleset, the worker steps into it.
"""

import errno
import os
import struct
from functools import cache

from shimd.linux import libc
from shimd.oci import Spec
from shimd.protocol.constants import Policy
from shimd.protocol.system_calls import SystemCalls

#: <linux/landlock.h>: what can be done to files, by the version that it came with.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 14, 1 << 15
_FIRST = (1 << 13) - 1
_LATER = {2: 1 << 13, 3: _TRUNCATE, 5: _IOCTL_DEV}  # the first: to rename from one directory to another
_SCOPES, _ABSTRACT_SOCKETS, _SIGNALS = 6, 1, 2
#: The first version forbids to rename from one directory to another, which programs do.
_OLDEST = 2
_VERSION_FLAG, _PATH_BENEATH = 1, 1
#: What beneath the root nobody needs: a WebAssembly app executes nothing, and WASI makes no devices.
_NEVER = _EXECUTE | _MAKE_CHAR | _MAKE_BLOCK
_SAYS = "cannot be confined by Landlock"


@cache
def version() -> int:
    """Returns the kernel's version of Landlock's interface; 0: it has none that will do, or SHIMD_LANDLOCK=no."""
    if os.environ.get("SHIMD_LANDLOCK") == "no":
        return 0
    try:
        found = libc.landlock_create_ruleset(b"", _VERSION_FLAG)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):  # not built, switched off, filtered
            return 0
        raise
    return found if found >= _OLDEST else 0


def _handled(kernel: int) -> int:
    return sum((right for since, right in _LATER.items() if kernel >= since), _FIRST)


def _attributes(kernel: int, handled: int) -> bytes:
    """``struct landlock_ruleset_attr``, as long as the kernel knows it: files, network (nothing), scopes."""
    if kernel >= _SCOPES:
        return struct.pack("=3Q", handled, 0, _ABSTRACT_SOCKETS | _SIGNALS)
    return struct.pack("=Q", handled)


def ruleset(root: int, spec: Spec) -> int | None:
    """Make the ruleset of a WebAssembly container's process.

    :param root: its root file system
    :returns: a descriptor; ``None``: this kernel has no Landlock
    """
    kernel = version()
    if not kernel:
        return None
    handled = _handled(kernel)
    made = libc.landlock_create_ruleset(_attributes(kernel, handled), 0)
    # A GPU is used by ioctl(2).
    never = _NEVER if spec.get("linux", {}).get("devices") else _NEVER | _IOCTL_DEV
    try:
        libc.landlock_add_rule(made, handled & ~never, root)
    except BaseException:
        os.close(made)
        raise
    return made


def confine(calls: SystemCalls, fd: int) -> None:
    """Add the calls by which a process confines itself for good, once it has set no_new_privs; it mounts nothing
    afterwards.

    :param fd: its descriptor of the ruleset
    """
    handled = _handled(version())
    for stream in range(3):  # /dev/stdout leads to it by a link of /proc; a pipe needs no rule, and can have none
        access = (_READ_FILE | _WRITE_FILE | _TRUNCATE) & handled
        rule = struct.pack("=Qi", access, stream)
        calls.add("landlock_add_rule", fd, _PATH_BENEATH, rule, 0, says=_SAYS, policy=Policy.TRY)
    calls.keep_readable(fd, _READ_FILE | _READ_DIR, _SAYS)
    calls.add("landlock_restrict_self", fd, 0, says=_SAYS)
    calls.add("close", fd, says=_SAYS, policy=Policy.TRY)
