"""System calls by machine: those of this one by trying, and no other machine's in its stead."""

import ctypes
import errno
import os

import pytest

from shimd.errors import FailedPrecondition
from shimd.linux.machine import SYSCALLS, syscall_numbers


def test_a_machine_that_is_not_known_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="the machine s390x; it runs on x86_64, aarch64, riscv64"):
        syscall_numbers("s390x")


def test_each_machine_has_the_same_names() -> None:
    names = {machine: set(syscall_numbers(machine)) for machine in ("x86_64", "aarch64", "riscv64")}
    assert len({frozenset(one) for one in names.values()}) == 1


def test_this_machines_numbers() -> None:
    """By what each says to a descriptor, a process or a pointer that there is not."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, arguments, number in (
        ("setns", (-1, 0), errno.EBADF),
        ("close", (-1,), errno.EBADF),
        ("fchdir", (-1,), errno.EBADF),
        ("write", (-1, 0, 0), errno.EBADF),
        ("ioctl", (-1, 0), errno.EBADF),
        ("chdir", (0,), errno.EFAULT),
        ("unshare", (1,), errno.EINVAL),
        ("seccomp", (99,), errno.EINVAL),
        ("capset", (0, 0), errno.EFAULT),
        ("set_mempolicy", (99,), errno.EINVAL),
        ("move_mount", (-1, 0, -1, 0, 1 << 30), errno.EINVAL),
        ("close_range", (2, 1), errno.EINVAL),
    ):
        assert libc.syscall(SYSCALLS[name], *arguments) == -1, name
        assert ctypes.get_errno() in (number, errno.EPERM), (name, os.strerror(ctypes.get_errno()))
