"""What a process may do: user, capabilities, limits, no_new_privs, seccomp — taken away in an order that still works.

What only a capability of the host's forbids (CAP_SYS_RESOURCE may be missing) is a warning, as with containerd's
``restrict_oom_score_adj``.
"""

import base64
import os
import resource

from shimd.errors import InvalidArgument
from shimd.linux import libc
from shimd.oci import Process

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
_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(CAPABILITIES)}


def limit(process: Process) -> list[str]:
    """rlimits and oom_score_adj, while the host's /proc is in sight; returns warnings.

    :raises InvalidArgument: a limit is unknown or no limit
    """
    warnings = []
    for rlimit in process.get("rlimits", []):
        try:
            number = getattr(resource, rlimit["type"])
            resource.setrlimit(number, (_limit(rlimit["soft"]), _limit(rlimit["hard"])))
        except (AttributeError, KeyError):
            raise InvalidArgument(f"rlimit {rlimit.get('type')} is not known") from None
        except ValueError as error:  # what Python makes of EPERM and of EINVAL
            warnings.append(f"rlimit {rlimit['type']} cannot be set: {error}")
    score = process.get("oomScoreAdj", 0)  # never the daemon's own, which protects it
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError as error:
        warnings.append(f"oom_score_adj {score} cannot be set: {error.strerror}")
    return warnings


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value >= 1 << 63 else value


def drop(process: Process, seccomp: str | None) -> None:
    """User, groups, capabilities, no_new_privs and the seccomp filter (BPF, base64). Nothing of it can be undone."""
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
    _bound(sets["bounding"])
    libc.prctl(libc.PR_SET_KEEPCAPS, 1)
    _become(process)
    libc.prctl(libc.PR_SET_KEEPCAPS, 0)
    libc.capset(sets["effective"], sets["permitted"], sets["inheritable"])
    _raise_ambient(sets["ambient"])
    libc.prctl(libc.PR_SET_DUMPABLE, 1)  # as after an exec: /proc/self is the process's own again
    filter_calls(seccomp)


def filter_calls(seccomp: str | None) -> None:
    """no_new_privs, and the seccomp filter (BPF, base64) if there is one."""
    # Nothing is ever executed here, so the flag costs nothing, and an unprivileged seccomp filter needs it.
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if seccomp:
        libc.seccomp_filter(base64.b64decode(seccomp))


def _mask(names: list[str]) -> int:
    mask = 0
    for name in names:
        if name not in _NUMBERS:
            raise InvalidArgument(f"capability {name} is not known")
        mask |= 1 << _NUMBERS[name]
    return mask & _KNOWN


def _last_capability() -> int:
    """The kernel's newest capability; those that it does not know cannot be dropped or given."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


_LAST = _last_capability()
_KNOWN = (1 << (_LAST + 1)) - 1


def _bound(keep: int) -> None:
    for number in range(_LAST + 1):
        if not keep >> number & 1:
            libc.prctl(libc.PR_CAPBSET_DROP, number)


def _raise_ambient(mask: int) -> None:
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_LAST + 1):
        if mask >> number & 1:
            libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, number)


def _become(process: Process) -> None:
    user = process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    os.umask(user.get("umask", 0o022))
    os.setgroups(user.get("additionalGids", []))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
