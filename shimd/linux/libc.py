"""The system calls that Python 3.11 lacks, by ctypes: each raises OSError with the system's reason.

Prototypes are made once, at import, in the fork server; workers only call. (``os.unshare`` and ``os.setns`` come with
3.12.)
"""

import ctypes
import errno
import os
import struct
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p
from typing import Any

from shimd.linux.machine import SYSCALLS

_libc = ctypes.CDLL(None, use_errno=True)

# <linux/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT = 1, 2, 4, 8, 16, 32
MS_MANDLOCK, MS_NOSYMFOLLOW, MS_SILENT, MS_I_VERSION, MS_LAZYTIME = 64, 256, 1 << 15, 1 << 23, 1 << 25
MS_DIRSYNC, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 128, 1024, 2048, 4096, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME = 0, 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x200000
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000

# <linux/sched.h>
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x80

# <linux/prctl.h>
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_CAPBSET_DROP = 1, 4, 8, 15, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4

# <linux/openat2.h>
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x02, 0x04, 0x08, 0x10

# System call numbers that are the same on every architecture since Linux 5 (asm-generic/unistd.h and x86's table).
_SYS_OPEN_TREE, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 437, 442
_OPEN_TREE_CLONE = 1
#: openat2 gives up on a path with ".." if something on the node was renamed or mounted meanwhile (EAGAIN).
_ATTEMPTS = 128
_SYS_PIVOT_ROOT, _SYS_SECCOMP = SYSCALLS["pivot_root"], SYSCALLS["seccomp"]
_SECCOMP_SET_MODE_FILTER = 1
_LANDLOCK_RULE_PATH_BENEATH = 1


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64)]


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    ]


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", c_void_p)]


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", c_int)]


def _function(name: str, *arguments: Any, result: Any = c_int) -> Any:
    function = _libc[name]
    function.argtypes, function.restype = arguments, result
    return function


_mount = _function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _function("umount2", c_char_p, c_int)
_unshare = _function("unshare", c_int)
_setns = _function("setns", c_int, c_int)
_prctl = _function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capset = _function("capset", c_void_p, c_void_p)
_setdomainname = _function("setdomainname", c_char_p, c_size_t)
_setfsuid = _function("setfsuid", ctypes.c_uint)
_setfsgid = _function("setfsgid", ctypes.c_uint)
_syscall = _libc.syscall
_syscall.restype = c_long


def _check(result: int, *names: str | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *[name for name in names if name][:1])
    return result


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)"""
    _check(_mount(_bytes(source), _bytes(target), _bytes(fstype), flags, _bytes(data)))


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)"""
    _check(_umount2(_bytes(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)"""
    _check(_syscall(_SYS_PIVOT_ROOT, _bytes(new), _bytes(old)))


def mount_setattr_readonly(fd: int) -> None:
    """Make a mount and all below it read-only (mount_setattr(2), Linux 5.12)."""
    mount_setattr_recursive(fd, MOUNT_ATTR_RDONLY)


def mount_setattr_recursive(fd: int, add: int, clear: int = 0) -> None:
    """Change attributes of a mount and of all below it (mount_setattr(2), Linux 5.12)."""
    _mount_setattr(fd, add, AT_RECURSIVE, clear)


def _mount_setattr(fd: int, add: int, how: int = 0, clear: int = 0) -> None:
    attributes = _MountAttr(attr_set=add, attr_clr=clear)
    size = c_size_t(ctypes.sizeof(attributes))
    _check(_syscall(_SYS_MOUNT_SETATTR, fd, b"", c_uint(AT_EMPTY_PATH | how), ctypes.byref(attributes), size))


def clone_tree(path: str, recursive: bool, flags: int) -> int:
    """Make a detached copy of the mount at ``path`` (open_tree(2), OPEN_TREE_CLONE), with some of ``MS_RDONLY``,
    ``MS_NOSUID``, ``MS_NODEV`` and ``MS_NOEXEC`` (mount_setattr(2)'s attributes have the same numbers)."""
    how = _OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    fd = _check(_syscall(_SYS_OPEN_TREE, -100, _bytes(path), c_uint(how)), path)
    try:
        _mount_setattr(fd, flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC))
    except BaseException:
        os.close(fd)
        raise
    return fd


def clone_readonly(path: str) -> int:
    """Make a detached, read-only copy of the mount at ``path``, without what is mounted below."""
    return clone_tree(path, False, MS_RDONLY)


def unshare(flags: int) -> None:
    """unshare(2)"""
    _check(_unshare(flags))


def setns(fd: int, flags: int) -> None:
    """setns(2)"""
    _check(_setns(fd, flags))


def setfsuid(uid: int) -> None:
    """setfsuid(2), which reports no failure"""
    _setfsuid(uid)


def setfsgid(gid: int) -> None:
    """setfsgid(2), likewise"""
    _setfsgid(gid)


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process chrooted to the directory ``root`` would (openat2(2), RESOLVE_IN_ROOT), by no link of
    /proc that is a file itself."""
    return _openat2(root, path.lstrip("/") or ".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_without_links(root: int, path: str, flags: int) -> int:
    """Open ``path`` as :func:`open_in_root` does, if no symbolic link is on it (RESOLVE_NO_SYMLINKS; else ELOOP)."""
    return _openat2(root, path.lstrip("/") or ".", flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` relative to ``directory``, unless it leads out of it (openat2(2), RESOLVE_BENEATH; EXDEV)."""
    return _openat2(directory, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def open_by_links(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` relative to ``directory``, links leading wherever they do in this process's root, but by no link of
    /proc that is a file itself (openat2(2), RESOLVE_NO_MAGICLINKS)."""
    return _openat2(directory, path, flags, mode, RESOLVE_NO_MAGICLINKS)


def _openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    size = c_size_t(ctypes.sizeof(how))
    for attempt in range(_ATTEMPTS):
        fd = _syscall(_SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), size)
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN or attempt == _ATTEMPTS - 1:
            break
    return _check(fd, path)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)"""
    return _check(_prctl(option, *(*arguments, 0, 0, 0, 0)[:4]))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2), 64-bit sets"""
    header = _CapHeader(0x20080522, 0)
    halves = [(word >> shift) & 0xFFFFFFFF for shift in (0, 32) for word in (effective, permitted, inheritable)]
    _check(_capset(ctypes.byref(header), (ctypes.c_uint32 * 6)(*halves)))


def setdomainname(name: str) -> None:
    """setdomainname(2)"""
    data = os.fsencode(name)
    _check(_setdomainname(data, len(data)))


def landlock_create_ruleset(attributes: bytes, flags: int) -> int:
    """landlock_create_ruleset(2); its attributes are as long as they are"""
    number, given = SYSCALLS["landlock_create_ruleset"], attributes or None
    return _check(_syscall(number, given, c_size_t(len(attributes)), c_uint(flags)))


def landlock_add_rule(ruleset: int, access: int, fd: int) -> None:
    """landlock_add_rule(2): allow ``access`` beneath what ``fd`` is"""
    rule = struct.pack("=Qi", access, fd)
    _check(_syscall(SYSCALLS["landlock_add_rule"], ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0))


def seccomp_filter(program: bytes) -> None:
    """Install a BPF program as this thread's filter (seccomp(2), SECCOMP_SET_MODE_FILTER); 8 bytes an instruction."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    _check(_syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(header)))
