"""Native code in a process's place, as if a guest had taken over its worker: system calls with that one's own
credentials, namespaces, descriptors, seccomp filter and Landlock domain.

By ptrace: the process waits in a system call, whose instruction is used again for others, and then for the first one.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Whether there can be any here: the registers are x86-64's.
POSSIBLE = platform.machine() == "x86_64"
#: Of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
NUMBERS: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction".split()
    )
} | {
    "pread64": 17, "pwrite64": 18, "ioctl": 16, "getpid": 39, "socket": 41, "connect": 42, "clone": 56, "execve": 59,
    "recvmsg": 47, "kill": 62, "fcntl": 72, "ftruncate": 77, "getdents64": 217, "fchmod": 91, "chown": 92,
    "ptrace": 101, "personality": 135, "mknod": 133, "pivot_root": 155, "prctl": 157, "chroot": 161, "mount": 165,
    "umount2": 166, "reboot": 169, "init_module": 175, "tgkill": 234, "add_key": 248, "openat": 257, "unshare": 272,
    "setns": 308, "perf_event_open": 298, "open_by_handle_at": 304, "process_vm_readv": 310, "bpf": 321,
    "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430,
    "pidfd_open": 434, "pidfd_getfd": 438, "mount_setattr": 442, "clone3": 435, "linkat": 265,
}  # fmt: skip
AT_FDCWD = -100
_SINGLESTEP, _GETREGS, _SETREGS, _ATTACH, _DETACH = 9, 12, 13, 16, 17
_WALL = 0x40000000
_MASK = (1 << 64) - 1


class _Registers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in (
            "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
            "ds es fs gs"
        ).split()
    ]


_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class NotWaiting(Exception):
    """It is busy just now."""


class NativeCode:
    """Code in a process whose main thread waits in a system call."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._trace(_ATTACH)
        os.waitpid(pid, _WALL)
        self._before = _Registers()
        self._trace(_GETREGS, self._before)
        self._memory = open(f"/proc/{pid}/mem", "r+b", buffering=0)  # noqa: SIM115 — closed with the process
        self._memory.seek(self._before.rip - 2)
        if self._memory.read(2) != b"\x0f\x05":
            self._trace(_DETACH)
            self._memory.close()
            raise NotWaiting("it waits in no system call")
        self._places: list[tuple[int, int]] = []
        self._scratch = (self._before.rsp - 65536) & ~0xFFF

    def close(self) -> None:
        """Let it go on as if nothing had happened."""
        self.call("getpid")  # with what a trapped call has left pending: it would end a process that is no init
        self._trace(_SETREGS, self._before)
        self._trace(_DETACH)
        self._memory.close()

    def call(self, name: str, *arguments: "int | bytes") -> int:
        """A system call; bytes are what an argument points to, and :meth:`read_back` has what became of them.

        :raises OSError: the kernel's, or EPERM for what a filter catches
        """
        words: list[int] = []
        self._places = []
        for argument in arguments:
            words.append(self._put(argument) if isinstance(argument, bytes) else argument & _MASK)
        registers = _Registers.from_buffer_copy(self._before)
        registers.rip, registers.rax, registers.orig_rax = self._before.rip - 2, NUMBERS[name], _MASK
        padded = (*words, 0, 0, 0, 0, 0, 0)
        registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9 = padded[:6]
        self._trace(_SETREGS, registers)
        while registers.rip != self._before.rip:  # another stop may come first: then nothing was called yet
            self._trace(_SINGLESTEP)
            _pid, status = os.waitpid(self.pid, _WALL)
            if not os.WIFSTOPPED(status):
                raise ChildProcessError(f"{name} ended it: {status}")
            if os.WSTOPSIG(status) == signal.SIGSYS:
                raise PermissionError(errno.EPERM, f"{name}: trapped")
            self._trace(_GETREGS, registers)
        result = ctypes.c_longlong(registers.rax).value
        if result < 0:
            raise OSError(-result, f"{name}: {os.strerror(-result)}")
        return result

    def open(self, path: str, flags: int = os.O_RDONLY, directory: int = AT_FDCWD) -> int:
        return self.call("openat", directory, path.encode() + b"\0", flags, 0o666)

    def read(self, fd: int, size: int = 4096) -> bytes:
        count = self.call("read", fd, bytes(size), size)
        return self.read_back(0)[:count]

    def receive(self, sock: int) -> int:
        """A descriptor that comes with one byte by a socket."""
        name, name_size, flags, control_size = 0, 0, 0, 64
        parts, byte, control = self._scratch + 64, self._scratch + 128, self._scratch + 192
        header = struct.pack("=7Q", name, name_size, parts, 1, control, control_size, flags)
        blob = header.ljust(64, b"\0") + struct.pack("=2Q", byte, 1).ljust(192, b"\0")
        self.call("recvmsg", sock, blob, 0)
        (fd,) = struct.unpack_from("=i", self.read_back(0), 192 + 16)
        return int(fd)

    def read_back(self, number: int) -> bytes:
        """The last call's ``number``-th argument of bytes."""
        address, size = self._places[number]
        self._memory.seek(address)
        return self._memory.read(size)

    def descriptors(self) -> dict[int, str]:
        """All that it has, and where they lead."""
        base = f"/proc/{self.pid}/fd"
        return {int(name): os.readlink(f"{base}/{name}") for name in os.listdir(base)}

    def _put(self, data: bytes) -> int:
        address: int = self._places[-1][0] + (self._places[-1][1] + 63 & ~63) if self._places else self._scratch
        assert address + len(data) < self._before.rsp - 256
        self._places.append((address, len(data)))
        self._memory.seek(address)
        self._memory.write(data)
        return address

    def _trace(self, request: int, registers: _Registers | None = None) -> None:
        where = None if registers is None else ctypes.addressof(registers)
        if _ptrace(request, self.pid, None, where) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _found_waiting(pid: int) -> NativeCode:
    for _ in range(100):
        try:
            return NativeCode(pid)
        except NotWaiting:
            time.sleep(0.05)
    raise NotWaiting(f"process {pid} never waits in a system call")


@contextmanager
def taken_over(pid: int) -> Iterator[NativeCode]:
    """Native code in the place of a process, which goes on afterwards."""
    code = _found_waiting(pid)
    try:
        yield code
    finally:
        code.close()
