"""System calls as data: what a worker still has to do when its jail is made.

The jailer (:mod:`shimd.jailer`) decides them, the worker makes them: in C (``zygote.c``) where it is a worker without
Python, else here. Both stop at the first that fails, and tell the supervisor in the words that come with it.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Sequence
from ctypes import c_long, c_uint64
from functools import lru_cache

from shimd.errors import Code, from_code, in_go
from shimd.linux import libc
from shimd.linux.machine import SYSCALLS
from shimd.linux.packed import Block, Packable, pack
from shimd.protocol.codec import encode
from shimd.protocol.constants import CALL_WORDS, Policy, SpecialCall
from shimd.protocol.worker import Error, Warning, decode_event

#: In the upper half of the number's word of what is no system call.
_OWN = 1 << 32
_PAUSES = (_OWN | SpecialCall.BARRIER, _OWN | SpecialCall.LOAD)
#: How a packet ends that is sent in two parts: the message is its last field.
_END = b'"}'


@lru_cache(maxsize=1024)
def _packet(says: str, policy: Policy, code: Code) -> bytes:
    """The packet that is sent if a call fails, up to the system's reason, so that who sends it needs no JSON."""
    message = Warning(f"{says}: ") if policy is Policy.WARN else Error(int(code), f"{says}: ")
    return encode(message).removesuffix(_END)


class SystemCalls:
    """A list of calls, in the making."""

    def __init__(self) -> None:
        self._calls: list[Packable] = []

    def add(
        self,
        name: str,
        *arguments: Packable,
        says: str,
        policy: Policy = Policy.FAIL,
        code: Code = Code.INVALID_ARGUMENT,
    ) -> None:
        """Add a system call.

        :param arguments: ``bytes`` for a pointer to them, and so on (:mod:`shimd.linux.packed`)
        :param says: the sentence for its failure, up to the system's reason
        """
        self._append(SYSCALLS[name], arguments, says, policy, code)

    def open(self, path: str, flags: int, fd: int, says: str, policy: Policy = Policy.FAIL) -> None:
        """Open a file as descriptor ``fd``, which is closed first if it is in use."""
        self._append(_OWN | SpecialCall.OPEN, (os.fsencode(path), flags, fd), says, policy, Code.INVALID_ARGUMENT)

    def write(self, path: str, data: bytes, says: str, policy: Policy = Policy.FAIL) -> None:
        """Write to a file, at once."""
        self.open(path, os.O_WRONLY, _FD, says, policy)
        self.add("write", _FD, data, len(data), says=says, policy=policy)
        self.add("close", _FD, says=says, policy=Policy.TRY)

    def join_cgroup(self, directories: Sequence[str], unified: str | None) -> None:
        """Join the hierarchies of version 1, by ``tasks`` (:mod:`shimd.linux.cgroup`): in version 2 it is born."""
        for directory in directories:
            if directory != unified:
                self.write(f"{directory}/tasks", b"0", f"cgroup {directory}")

    def bound(self, keep: int, last: int, says: str) -> None:
        """Drop from the bounding set all capabilities up to ``last`` that are not in the mask ``keep``."""
        self._append(_OWN | SpecialCall.BOUND, (keep, last), says, Policy.FAIL, Code.INVALID_ARGUMENT)

    def barrier(self) -> None:
        """Let others do their part here: the engine, which loads the program; after that the container's hooks."""
        self._append(_OWN | SpecialCall.BARRIER, (), "", Policy.FAIL, Code.INTERNAL)

    def load(self) -> None:
        """Let the engine map the program here."""
        self._append(_OWN | SpecialCall.LOAD, (), "", Policy.FAIL, Code.INTERNAL)

    def keep_readable(self, ruleset: int, access: int, says: str) -> None:
        """Allow ``access`` to the program's directories of the cache, in a Landlock ruleset."""
        self._append(_OWN | SpecialCall.READABLE, (ruleset, access), says, Policy.FAIL, Code.INVALID_ARGUMENT)

    def _append(self, number: int, arguments: tuple[Packable, ...], says: str, policy: Policy, code: Code) -> None:
        padding = (0,) * (6 - len(arguments))
        self._calls.append((number, *arguments, *padding, int(policy), _packet(says, policy, code)))

    def packed(self) -> bytes:
        return pack((len(self._calls), self._calls))

    def take(self) -> list[str]:
        """Make the calls in this process, at once.

        :returns: warnings
        :raises ShimdError: as the call that failed says
        """
        runner = CallRunner(self.packed())
        warnings = runner.run()
        while not runner.done:
            warnings += runner.run()
        return warnings


def of_host() -> SystemCalls:
    """The calls of ``shimd run``: no daemon looks after the app once its fork server is gone."""
    calls = SystemCalls()
    calls.barrier()
    calls.load()
    calls.add("prctl", libc.PR_SET_PDEATHSIG, signal.SIGKILL, says="cannot be tied to its fork server")
    return calls


#: A descriptor that a worker has not otherwise, before its engine loads.
_FD = 300


class CallRunner:
    """Makes the calls of a packed list, in this process.

    :param readable: descriptors of the program's directories of the cache
    """

    def __init__(self, packed: bytes, readable: Sequence[int] = ()) -> None:
        self._block = Block(packed)
        self._count, self._calls = Block.words(self._block.root, 2)
        self._next = 0
        self._readable = readable
        self.loads = False
        """Whether it has stopped for the engine to map the program."""

    @property
    def done(self) -> bool:
        return self._next >= self._count

    def run(self) -> list[str]:
        """Up to the next pause, or the end; returns warnings.

        :raises ShimdError: as the call that failed says
        """
        warnings: list[str] = []
        self.loads = False
        while not self.done:
            number, *arguments, policy, packet = Block.words(self._calls + self._next * CALL_WORDS * 8, CALL_WORDS)
            self._next += 1
            if number in _PAUSES:
                self.loads = number == _OWN | SpecialCall.LOAD
                break
            error = self._call(number, arguments)
            if error and not _excused(error, policy):
                match decode_event(ctypes.string_at(packet) + in_go(os.strerror(error)).encode() + _END):
                    case Warning(sentence):
                        warnings.append(sentence)
                    case Error(code, sentence):
                        raise from_code(code, sentence)
        return warnings

    def _call(self, number: int, arguments: list[int]) -> int:
        """Make a call; returns its errno, or 0."""
        match number & ~_OWN if number & _OWN else None:
            case SpecialCall.OPEN:
                return _open(*arguments[:3])
            case SpecialCall.BOUND:
                return _bound(*arguments[:2])
            case SpecialCall.READABLE:
                return _allow(arguments[0], arguments[1], self._readable)
        ctypes.set_errno(0)
        return ctypes.get_errno() if _syscall(c_long(number), *map(c_uint64, arguments)) < 0 else 0


def _excused(error: int, policy: int) -> bool:
    return policy == Policy.TRY or (policy == Policy.IF_THERE and error in (errno.ENOENT, errno.ENOTDIR))


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = c_long


def _bound(keep: int, last: int) -> int:
    try:
        for number in range(last + 1):
            if not keep >> number & 1:
                libc.prctl(libc.PR_CAPBSET_DROP, number)
    except OSError as error:
        assert error.errno is not None
        return error.errno
    return 0


def _allow(ruleset: int, access: int, directories: Sequence[int]) -> int:
    try:
        for directory in directories:
            libc.landlock_add_rule(ruleset, access, directory)
    except OSError as error:
        assert error.errno is not None
        return error.errno
    return 0


def _open(path: int, flags: int, target: int) -> int:
    try:
        fd = os.open(ctypes.string_at(path), flags | os.O_CLOEXEC)
        if fd != target:
            os.dup2(fd, target, inheritable=False)
            os.close(fd)
    except OSError as error:
        assert error.errno is not None
        return error.errno
    return 0
