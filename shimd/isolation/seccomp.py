"""Seccomp filters: the spec's profile, or without one our own for workers; compiled here, once each, by libseccomp.

Workers only install the bytes: libseccomp is loaded in the supervisor alone, and a profile of 400 names costs one app's
start nothing. The runtime spec's terms are libseccomp's (config-linux.md, "Seccomp").
"""

import base64
import errno
import json
import os
from functools import lru_cache
from typing import Any

from shimd.errors import InvalidArgument, Unimplemented
from shimd.oci import Spec

#: What a worker never does between Start and exit, whatever the guest asks for: see ``docs/security.md``.
DENIED = (
    "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open pidfd_getfd pidfd_send_signal kill "
    "tkill rt_sigqueueinfo mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick "
    "pivot_root chroot unshare setns execve execveat bpf perf_event_open userfaultfd io_uring_setup io_uring_enter "
    "io_uring_register kexec_load kexec_file_load init_module finit_module delete_module keyctl add_key request_key "
    "open_by_handle_at name_to_handle_at personality reboot swapon swapoff sethostname setdomainname acct quotactl "
    "quotactl_fd settimeofday clock_settime clock_settime64 adjtimex clock_adjtime iopl ioperm mknod mknodat syslog "
    "vhangup lookup_dcookie nfsservctl uselib ustat sysfs _sysctl afs_syscall modify_ldt"
).split()
_NOTIFY, _WAIT = "SCMP_ACT_NOTIFY", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
#: <linux/seccomp.h>. A worker has one thread: to synchronise them is to do nothing.
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4, _WAIT: 0}
#: clone(2) flags that make namespaces; clone3 hides its flags from a filter, so glibc is sent back to clone.
_CLONE_NAMESPACES = 0x7E020000


def worker_filter(spec: Spec) -> str:
    """Compile the BPF program for a container's workers; base64.

    :raises InvalidArgument: the spec's profile names an unknown action, operator or architecture
    """
    profile = spec.get("linux", {}).get("seccomp")
    if not profile or not (profile.get("defaultAction") or profile.get("syscalls")):  # as runc: no profile
        return _default()
    return _compile(json.dumps(profile, sort_keys=True))


def refuse_listener(spec: Spec) -> None:
    """Refuse a filter with a listener: a native container's runtime passes it on, here nobody would answer.

    :raises Unimplemented: the spec's profile needs it
    """
    profile = spec.get("linux", {}).get("seccomp", {})
    actions = {profile.get("defaultAction"), *(rule["action"] for rule in profile.get("syscalls", []))}
    if _NOTIFY in actions:
        raise Unimplemented(f"linux.seccomp: {_NOTIFY} needs a listener, which WebAssembly containers do not have")
    if _WAIT in profile.get("flags", []):
        raise Unimplemented(f"linux.seccomp.flags: {_WAIT} is for a listener, which no WebAssembly container has")


def seccomp_flags(spec: Spec) -> int:
    """Returns the flags of the spec's profile, for seccomp(2).

    :raises InvalidArgument: one is unknown
    """
    flags = 0
    for name in spec.get("linux", {}).get("seccomp", {}).get("flags", []):
        if name not in _FLAGS:
            raise InvalidArgument(f"linux.seccomp.flags: {name} is not known")
        flags |= _FLAGS[name]
    return flags


@lru_cache(maxsize=1)
def _default() -> str:
    import pyseccomp

    built = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED:
        _add(built, pyseccomp.ERRNO(errno.EPERM), name, [])
    for bit in range(32):
        if _CLONE_NAMESPACES >> bit & 1:
            namespaces = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 1 << bit, 1 << bit)
            _add(built, pyseccomp.ERRNO(errno.EPERM), "clone", [namespaces])
    _add(built, pyseccomp.ERRNO(errno.ENOSYS), "clone3", [])
    return _export(built)


@lru_cache(maxsize=64)
def _compile(profile: str) -> str:
    import pyseccomp

    data: dict[str, Any] = json.loads(profile)
    default = _action(data.get("defaultAction", ""), data.get("defaultErrnoRet"))
    built = pyseccomp.SyscallFilter(default)
    for name in data.get("architectures", []):
        _add_architecture(built, name)
    for rule in data.get("syscalls", []):
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == default:
            continue  # libseccomp refuses what changes nothing
        arguments = [_argument(argument) for argument in rule.get("args") or []]
        for name in rule["names"]:
            _add(built, action, name, arguments)
    return _export(built)


def _add(built: Any, action: int, name: str, arguments: list[Any]) -> None:
    """Add a rule. Unknown names are other kernels' or architectures' system calls, which are skipped, as by runc."""
    try:
        built.add_rule(action, name, *arguments)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EDOM, errno.EFAULT, errno.EEXIST):
            raise


def _action(name: str, errno_return: int | None) -> int:
    import pyseccomp

    actions = {
        "SCMP_ACT_ALLOW": pyseccomp.ALLOW,
        "SCMP_ACT_LOG": pyseccomp.LOG,
        "SCMP_ACT_TRAP": pyseccomp.TRAP,
        "SCMP_ACT_KILL": pyseccomp.KILL_THREAD,
        "SCMP_ACT_KILL_THREAD": pyseccomp.KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS": pyseccomp.KILL_PROCESS,
        _NOTIFY: pyseccomp.KILL_PROCESS,  # never installed: a native container's, or refused
        "SCMP_ACT_ERRNO": pyseccomp.ERRNO(errno.EPERM if errno_return is None else errno_return),
        "SCMP_ACT_TRACE": pyseccomp.TRACE(errno_return or 0),
    }
    if name not in actions:
        raise InvalidArgument(f"seccomp: action {name} is not known")
    return int(actions[name])


def _argument(argument: dict[str, Any]) -> Any:
    import pyseccomp

    operator = getattr(pyseccomp, str(argument.get("op", "")).removeprefix("SCMP_CMP_"), None)
    if operator is None:
        raise InvalidArgument(f"seccomp: operator {argument.get('op')} is not known")
    return pyseccomp.Arg(argument["index"], operator, argument.get("value", 0), argument.get("valueTwo", 0))


def _add_architecture(built: Any, name: str) -> None:
    import pyseccomp

    architecture = getattr(pyseccomp.Arch, name.removeprefix("SCMP_ARCH_"), None)
    if architecture is None:
        raise InvalidArgument(f"seccomp: architecture {name} is not known")
    if not built.exist_arch(architecture):
        built.add_arch(architecture)


def _export(built: Any) -> str:
    fd = os.memfd_create("shimd-bpf", os.MFD_CLOEXEC)
    with open(fd, "r+b", buffering=0) as file:
        built.export_bpf(file)
        return base64.b64encode(os.pread(fd, 1 << 20, 0)).decode()
