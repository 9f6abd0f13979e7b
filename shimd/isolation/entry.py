"""A process's entry into its container: the calls that come first, while the node's files are in sight."""

import os
import termios
from collections.abc import Sequence

from shimd.errors import InvalidArgument
from shimd.isolation import privileges
from shimd.oci import Process
from shimd.oci.fields import SELINUX
from shimd.protocol.constants import Policy
from shimd.protocol.system_calls import SystemCalls

#: Where a worker has a file of its security module open, if there is one.
_LABEL_FD = 301


def first_calls(
    calls: SystemCalls, process: Process, cgroups: Sequence[str], unified: str | None, *, terminal: bool
) -> None:
    """Add the calls before the engine loads: the cgroup, so that all that follows is accounted, and files of the
    node's."""
    calls.join_cgroup(cgroups, unified)
    privileges.account(calls, process)
    for file, _value in _labels(process):
        calls.open(file, os.O_WRONLY, _LABEL_FD, f"cannot open {file}, where the security label is set")
    if terminal:
        calls.add("setsid", says="cannot make a session")
        calls.add("ioctl", 0, termios.TIOCSCTTY, 0, says="cannot make the terminal the controlling one")
    calls.barrier()
    privileges.limit(calls, process)


def is_labelled(process: Process) -> bool:
    """Whether a security label is to be set."""
    return bool(_labels(process))


def label(calls: SystemCalls, process: Process) -> None:
    """Add the calls that set AppArmor's or SELinux's label, by the file that :func:`first_calls` has opened."""
    for _file, value in _labels(process):
        calls.add("write", _LABEL_FD, value, len(value), says=f"cannot set the security label {value.decode()}")
        calls.add("close", _LABEL_FD, says="security label", policy=Policy.TRY)


def _labels(process: Process) -> list[tuple[str, bytes]]:
    """Returns the file of AppArmor's or SELinux's label, and what is to be written to it.

    :raises InvalidArgument: the node has not what is asked for
    """
    found = []
    if profile := process.get("apparmorProfile"):
        if not os.path.exists("/sys/kernel/security/apparmor"):
            raise InvalidArgument("process.apparmorProfile: this kernel has no AppArmor")
        found.append(("/proc/self/attr/apparmor/current", f"changeprofile {profile}".encode()))
    if label := process.get("selinuxLabel"):
        if not os.path.exists(SELINUX):
            raise InvalidArgument("process.selinuxLabel: this kernel has no SELinux")
        found.append(("/proc/self/attr/current", label.encode()))
    return found[:1]  # one file is one module's, and a node has one of the two
