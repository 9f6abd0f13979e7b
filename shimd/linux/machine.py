"""Numbers of system calls that differ from machine to machine: an unknown one is refused, never given another's."""

import os

from shimd.errors import FailedPrecondition

#: asm/unistd_64.h of x86.
_X86_64 = {
    "mount": 165, "umask": 95, "chdir": 80, "setgroups": 116, "setresuid": 117, "setresgid": 119, "capset": 126,
    "prctl": 157, "setns": 308, "prlimit64": 302, "seccomp": 317, "setsid": 112, "ioctl": 16, "unshare": 272,
    "close": 3, "write": 1, "personality": 135, "sched_setaffinity": 203, "set_mempolicy": 238, "ioprio_set": 251,
    "sched_setattr": 314, "fchdir": 81, "pivot_root": 155, "set_robust_list": 273, "get_robust_list": 274,
    "rt_sigaction": 13,
}  # fmt: skip
#: asm-generic/unistd.h, which the later machines share.
_GENERIC = {
    "mount": 40, "umask": 166, "chdir": 49, "setgroups": 159, "setresuid": 147, "setresgid": 149, "capset": 91,
    "prctl": 167, "setns": 268, "prlimit64": 261, "seccomp": 277, "setsid": 157, "ioctl": 29, "unshare": 97,
    "close": 57, "write": 64, "personality": 92, "sched_setaffinity": 122, "set_mempolicy": 237, "ioprio_set": 30,
    "sched_setattr": 274, "fchdir": 50, "pivot_root": 41, "set_robust_list": 99, "get_robust_list": 100,
    "rt_sigaction": 134,
}  # fmt: skip
#: The same everywhere, since Linux 5.
_COMMON = {
    "move_mount": 429, "clone3": 435, "close_range": 436,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
}  # fmt: skip
_TABLES = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}


def syscall_numbers(machine: str) -> dict[str, int]:
    """Returns the numbers of system calls by name, of a machine as uname(2) calls it.

    :raises FailedPrecondition: shimd does not know that machine
    """
    if machine not in _TABLES:
        raise FailedPrecondition(
            f"shimd does not know the system calls of the machine {machine}; it runs on {', '.join(_TABLES)}"
        )
    return {**_TABLES[machine], **_COMMON}


SYSCALLS = syscall_numbers(os.uname().machine)
