"""A worker that becomes another program: ``runc create`` or ``runc exec`` for a native container.

What that program leaves behind, the container's own process, becomes the fork server's child (a subreaper's), which
therefore knows its exit status whatever happens to the supervisor.
"""

import os
from typing import NoReturn

from shimd.isolation import rootfs
from shimd.linux.limits import restore_descriptors
from shimd.protocol.plans import NativeCommand


def become(plan: NativeCommand) -> NoReturn:
    """Mount the root file system where the bundle says, on the host, and become ``plan.command``.

    :raises InvalidArgument: a mount fails
    :raises OSError: there is no such program
    """
    if plan.rootfs:
        rootfs.mount_for_others(plan.root, plan.rootfs)
    os.chdir(plan.bundle)
    for fd in range(3):
        os.set_inheritable(fd, True)
    restore_descriptors()
    program = plan.command[0]
    try:
        os.execv(program, [*plan.command])
    except OSError as error:
        raise OSError(error.errno, error.strerror, program) from None
