"""Processes by descriptors (pidfd_open(2)): one names its process for good, whatever becomes of the number."""

import errno
import fcntl
import os
import signal
import struct

#: <linux/pidfd.h>, ``struct pidfd_info`` of Linux 6.13 (PIDFD_INFO_SIZE_VER0): mask, cgroupid, pid, tgid, ppid, the
#: four pairs of user and group ids, exit_code. Later kernels take it, too.
_INFO = struct.Struct("=QQ3I8Ii")
#: _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info), the same on x86 and asm-generic machines.
_PIDFD_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3
#: Of :func:`stat_fields`.
PARENT, START, _EXIT_CODE = 1, 19, 49


def start_time(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat``: with the pid it names a process for good (proc_pid_stat(5)).

    :raises OSError: it is gone
    """
    return int(stat_fields(pid)[START])


def parent_of(pid: int) -> int:
    """The number of a process's parent.

    :raises OSError: it is gone
    """
    return int(stat_fields(pid)[PARENT])


def zombie_status(pid: int, start: int) -> int | None:
    """The wait status of a process that has ended and that nobody has waited for yet (proc_pid_stat(5), field 52).

    ``None``: it is no zombie, or may not be looked at.
    """
    try:
        fields = stat_fields(pid)
    except OSError:
        return None
    return int(fields[_EXIT_CODE]) if fields[0] == b"Z" and int(fields[START]) == start else None


def is_zombie(pid: int) -> bool:
    """Returns whether a process has ended, and nobody has waited for it yet."""
    try:
        return stat_fields(pid)[0] == b"Z"
    except OSError:
        return False


def stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on (proc_pid_stat(5)).

    :raises OSError: it is gone
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def open_process(pid: int, start: int) -> int:
    """A descriptor of the process that has this pid since ``start``.

    :raises ProcessLookupError: it is gone, whoever has its number now
    :raises OSError: as of pidfd_open(2)
    """
    pidfd = os.pidfd_open(pid)
    try:
        if start_time(pid) != start:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    except FileNotFoundError:  # it was waited for in between
        os.close(pidfd)
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def pid_of(pidfd: int) -> int:
    """The number of the process, as we see it; -1: it is gone (``/proc/PID/fdinfo``).

    :raises OSError: there is no room to look
    """
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def is_reaped(pidfd: int) -> bool:
    """Returns whether somebody has waited for the process."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that somebody has waited for (PIDFD_INFO_EXIT, Linux 6.15).

    ``None``: nobody has yet, or the kernel does not tell.
    """
    info = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:  # ENOTTY: a kernel before 6.13. ESRCH: before 6.15
        return None
    mask, *_others, status = _INFO.unpack(info)
    return status if mask & _PIDFD_INFO_EXIT else None


def wait_for_child(pidfd: int) -> int | None:
    """Wait for a child that has ended; its wait status. ``None``: it is no child of ours, or has not ended."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if info is None else _wait_status(info)


def status_of_child(pid: int) -> int | None:
    """The wait status of a child, which remains to be waited for. ``None``: it has not ended, or cannot be waited for.

    :raises ChildProcessError: it is no child of ours
    """
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None if info is None else _wait_status(info)


def _wait_status(info: os.waitid_result) -> int:
    dumped = 0x80 if info.si_code == os.CLD_DUMPED else 0
    return info.si_status << 8 if info.si_code == os.CLD_EXITED else info.si_status | dumped
