"""Privileges of a process: user, capabilities, limits, no_new_privs, seccomp — taken away in an order that still works,
as calls that it makes itself (:mod:`shimd.protocol.system_calls`).

What only a capability of the host's forbids (CAP_SYS_RESOURCE may be missing) is a warning, as with containerd's
``restrict_oom_score_adj``.
"""

import base64
import resource
import struct

from shimd.errors import InvalidArgument
from shimd.linux import libc
from shimd.linux.packed import Packable
from shimd.oci import Process
from shimd.protocol.constants import Policy
from shimd.protocol.system_calls import SystemCalls

#: <linux/capability.h>, in the order of the numbers.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
#: <linux/capability.h>, <linux/seccomp.h>
_CAPABILITY_VERSION, _SET_MODE_FILTER = 0x20080522, 1
_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(CAPABILITIES)}


def account(calls: SystemCalls, process: Process) -> None:
    """Add the call that sets oom_score_adj, 0 by default: the daemon's own, which protects it, is never inherited."""
    score = process.get("oomScoreAdj", 0)
    says = f"oom_score_adj {score} cannot be set"
    calls.write("/proc/self/oom_score_adj", str(score).encode(), says, Policy.WARN)


def limit(calls: SystemCalls, process: Process) -> None:
    """Add the calls that set rlimits (config.md, "POSIX process").

    :raises InvalidArgument: a limit is unknown or no limit
    """
    for rlimit in process.get("rlimits", []):
        try:
            number: int = getattr(resource, rlimit["type"])
            both: list[Packable] = [_limit(rlimit["soft"]), _limit(rlimit["hard"])]
        except (AttributeError, KeyError):
            raise InvalidArgument(f"rlimit {rlimit.get('type')} is not known") from None
        says = f"rlimit {rlimit['type']} cannot be set"
        calls.add("prlimit64", 0, number, both, 0, says=says, policy=Policy.WARN)


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value >= 1 << 63 else value


def drop(calls: SystemCalls, process: Process, *, dumpable: bool = True) -> None:
    """Add the calls for user, groups, capabilities and no_new_privs. None of it can be undone.

    :param dumpable: true if its files in /proc are to be its user's (PR_SET_DUMPABLE), as after an exec
    :raises InvalidArgument: a capability is unknown
    """
    wanted = process.get("capabilities", {})
    sets = {
        "bounding": _mask(wanted.get("bounding", [])),
        "effective": _mask(wanted.get("effective", [])),
        "permitted": _mask(wanted.get("permitted", [])),
        "inheritable": _mask(wanted.get("inheritable", [])),
        "ambient": _mask(wanted.get("ambient", [])),
    }
    if process.get("user", {}).get("uid", 0) != 0:
        # As an exec would do (capabilities(7), "Transformation of capabilities during execve"): we do not exec.
        sets["permitted"] = sets["effective"] = sets["ambient"]
    calls.bound(sets["bounding"], _LAST, says="cannot drop capabilities from the bounding set")
    _prctl(calls, libc.PR_SET_KEEPCAPS, 1)
    _become(calls, process)
    _prctl(calls, libc.PR_SET_KEEPCAPS, 0)
    _set(calls, sets["effective"], sets["permitted"], sets["inheritable"])
    _raise_ambient(calls, sets["ambient"])
    _prctl(calls, libc.PR_SET_DUMPABLE, int(dumpable))
    # Nothing is ever executed here, so the flag costs nothing, and an unprivileged seccomp filter needs it.
    _prctl(calls, libc.PR_SET_NO_NEW_PRIVS, 1)


def filter(calls: SystemCalls, seccomp: str, flags: int = 0) -> None:
    """Add the call that installs a seccomp filter.

    :param seccomp: its program (BPF, base64); empty: no filter
    :param flags: its flags (seccomp(2))
    """
    if seccomp:
        program = base64.b64decode(seccomp)
        filter: list[Packable] = [len(program) // 8, program]  # struct sock_fprog
        calls.add("seccomp", _SET_MODE_FILTER, flags, filter, says="cannot install the seccomp filter")


def filter_calls(seccomp: str | None) -> None:
    """Set no_new_privs, and the seccomp filter (BPF, base64) if there is one, in this process and at once."""
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if seccomp:
        libc.seccomp_filter(base64.b64decode(seccomp))


def _prctl(calls: SystemCalls, option: int, argument: int) -> None:
    calls.add("prctl", option, argument, says=f"cannot set privileges by prctl({option}, {argument})")


def _set(calls: SystemCalls, effective: int, permitted: int, inheritable: int) -> None:
    """Add capset(2), version 3: 64-bit sets in 32-bit words, those of the lower halves first."""
    words = [(mask >> shift) & 0xFFFFFFFF for shift in (0, 32) for mask in (effective, permitted, inheritable)]
    pairs: list[Packable] = [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)]
    header: list[Packable] = [_CAPABILITY_VERSION]
    calls.add("capset", header, pairs, says="cannot set capabilities")


def _mask(names: list[str]) -> int:
    mask = 0
    for name in names:
        if name not in _NUMBERS:
            raise InvalidArgument(f"capability {name} is not known")
        mask |= 1 << _NUMBERS[name]
    return mask & _KNOWN


def _last_capability() -> int:
    """Returns the kernel's newest capability; those that it does not know cannot be dropped or given."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


_LAST = _last_capability()
_KNOWN = (1 << (_LAST + 1)) - 1


def _raise_ambient(calls: SystemCalls, mask: int) -> None:
    says = "cannot set ambient capabilities"
    calls.add("prctl", libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, says=says)
    for number in range(_LAST + 1):
        if mask >> number & 1:
            calls.add("prctl", libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, number, 0, 0, says=says)


def _become(calls: SystemCalls, process: Process) -> None:
    user = process.get("user", {})
    uid, gid, groups = user.get("uid", 0), user.get("gid", 0), user.get("additionalGids", [])
    calls.add("umask", user.get("umask", 0o022), says="cannot set the umask")
    calls.add(
        "setgroups",
        len(groups),
        struct.pack(f"={len(groups)}I", *groups),
        says=f"cannot become a member of the groups {groups}",
    )
    calls.add("setresgid", gid, gid, gid, says=f"cannot become group {gid}")
    calls.add("setresuid", uid, uid, uid, says=f"cannot become user {uid}")
