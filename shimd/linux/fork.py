"""fork(2) by way of clone3(2): a child that is born in a pid namespace and a cgroup, instead of moving there.

The move into a version 2 cgroup waits for an RCU grace period with the machine's fork lock held
(``cgroup_threadgroup_rwsem``): 7 to 14 ms were measured, in which nothing else forks. Being born there is free.
"""

import _thread
import ctypes
import errno
import os
import signal
from ctypes import c_int, c_long, c_size_t, c_uint64, c_void_p

from shimd.linux.machine import SYSCALLS

# <linux/sched.h>
_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID, _CLONE_INTO_CGROUP = 0x200000, 0x1000000, 0x200000000
_SYS_CLONE3 = SYSCALLS["clone3"]
_SYS_SET_ROBUST_LIST, _SYS_GET_ROBUST_LIST = SYSCALLS["set_robust_list"], SYSCALLS["get_robust_list"]
#: In glibc's ``struct pthread``, from the thread's id to its list of robust futexes; and the size of its head.
ROBUST_LIST, ROBUST_HEAD = 16, 24

# PyDLL keeps the interpreter's lock: another thread's taking it between the fork and its hooks would be the end.
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = c_long


class _CloneArgs(ctypes.Structure):
    """``struct clone_args`` as of Linux 5.7 (clone(2))."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


def fork(flags: int = 0, cgroup: int | None = None) -> int:
    """Fork; the child is in the namespaces that ``flags`` make (``CLONE_NEW…``) and in the version 2 cgroup that the
    directory ``cgroup`` is.

    For processes with one thread only: the C library's own preparations for a fork beside threads are left out.

    :raises OSError: ENOSYS: the kernel or the C library does not allow it. Others: as of clone3(2)
    """
    thread_id = _thread_id_address()
    arguments = _CloneArgs(
        flags=flags | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID,
        child_tid=thread_id,
        exit_signal=signal.SIGCHLD,
    )
    if cgroup is not None:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _syscall(_SYS_CLONE3, ctypes.byref(arguments), c_size_t(ctypes.sizeof(arguments)))
    number = ctypes.get_errno()
    if pid == 0:
        _syscall(_SYS_SET_ROBUST_LIST, c_void_p(thread_id + ROBUST_LIST), c_size_t(ROBUST_HEAD))  # as fork(3) does
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid


def _thread_id_address() -> int:
    """Returns the address of the C library's copy of this thread's id, which the kernel has to write anew in the child.

    glibc keeps it just before the list of robust futexes, whose place the kernel tells.
    """
    head, length = c_void_p(), c_size_t()
    result = _syscall(_SYS_GET_ROBUST_LIST, 0, ctypes.byref(head), ctypes.byref(length))
    if result == 0 and head.value:
        address = head.value - ROBUST_LIST
        if c_int.from_address(address).value == _thread.get_native_id():
            return address
    raise OSError(errno.ENOSYS, "unknown C library")
