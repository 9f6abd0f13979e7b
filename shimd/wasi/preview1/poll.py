"""poll_oneoff, where sockets are concerned: they, the standard streams and clocks can be waited for together."""

import array
import fcntl
import math
import select
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shimd.wasi.preview1 import abi

#: No socket is concerned: the engine's own function is to be called. Not one of WASI's error numbers.
FOREIGN = -1
_STANDARD = (0, 1, 2)


@dataclass
class Subscription:
    userdata: int
    kind: int
    fd: int | None = None
    """The process's descriptor; ``None``: a clock's, or a file's, which is always ready."""
    deadline: float = math.inf
    """The deadline of a clock, in seconds of the host's monotonic one."""
    error: int = abi.SUCCESS

    @property
    def interest(self) -> int:
        return select.POLLIN if self.kind == abi.EVENTTYPE_READ else select.POLLOUT


def oneoff(
    memory: memoryview, socket_of: Callable[[int], int | None], asked: int, events: int, count: int, happened: int
) -> int:
    """:param socket_of: the process's descriptor of a guest's socket, ``None`` for what is none"""
    concerned = [socket_of(fd) for fd in _descriptors(memory, asked, count)]
    if all(fd is None for fd in concerned):
        return FOREIGN
    subscriptions = [_read(memory, asked + index * abi.SUBSCRIPTION_SIZE, socket_of) for index in range(count)]
    number = 0
    for subscription, flags in _wait(subscriptions):
        _write(memory, events + number * abi.EVENT.size, subscription, flags)
        number += 1
    abi.SIZE.pack_into(memory, happened, number)
    return abi.SUCCESS


def _descriptors(memory: memoryview, asked: int, count: int) -> Iterator[int]:
    for index in range(count):
        at = asked + index * abi.SUBSCRIPTION_SIZE
        if abi.SUBSCRIPTION.unpack_from(memory, at)[1] != abi.EVENTTYPE_CLOCK:
            yield abi.U32.unpack_from(memory, at + abi.SUBSCRIPTION_AT)[0]


def _read(memory: memoryview, at: int, socket_of: Callable[[int], int | None]) -> Subscription:
    userdata, kind = abi.SUBSCRIPTION.unpack_from(memory, at)
    if kind == abi.EVENTTYPE_CLOCK:
        return _clock(userdata, *abi.SUBSCRIPTION_CLOCK.unpack_from(memory, at + abi.SUBSCRIPTION_AT))
    number = abi.U32.unpack_from(memory, at + abi.SUBSCRIPTION_AT)[0]
    fd = number if number in _STANDARD else socket_of(number)
    return Subscription(userdata, kind, fd, deadline=math.inf if fd is not None else -math.inf)


def _clock(userdata: int, clock: int, nanoseconds: int, _precision: int, flags: int) -> Subscription:
    """Convert a clock's subscription to one by the host's monotonic clock, whichever it was by."""
    left = nanoseconds
    if flags & abi.SUBCLOCK_ABSTIME:
        left -= time.time_ns() if clock == abi.CLOCK_REALTIME else time.monotonic_ns()
    known = clock in (abi.CLOCK_REALTIME, abi.CLOCK_MONOTONIC)
    deadline = time.monotonic() + left / 1e9 if known else -math.inf
    return Subscription(userdata, abi.EVENTTYPE_CLOCK, deadline=deadline, error=abi.SUCCESS if known else abi.INVAL)


def _wait(subscriptions: list[Subscription]) -> list[tuple[Subscription, int]]:
    """Wait until something has happened. Returns what, and the host's flags (select.POLL…) of it."""
    poller, interests = select.poll(), dict[int, int]()
    for one in subscriptions:
        if one.fd is not None:
            interests[one.fd] = interests.get(one.fd, 0) | one.interest
            poller.register(one.fd, interests[one.fd])
    nearest = min(one.deadline for one in subscriptions)
    while True:
        left = nearest - time.monotonic()
        found = dict(poller.poll(None if left == math.inf else max(0.0, left * 1000)))
        now = time.monotonic()
        ready = [(one, found.get(one.fd, 0) if one.fd is not None else 0) for one in subscriptions]
        happened = [(one, flags) for one, flags in ready if one.deadline <= now or flags & (one.interest | _ALWAYS)]
        if happened:
            return happened


_ALWAYS = select.POLLHUP | select.POLLERR | select.POLLNVAL


def _write(memory: memoryview, at: int, one: Subscription, flags: int) -> None:
    error = abi.BADF if flags & select.POLLNVAL else one.error
    waiting = _waiting(one.fd) if one.fd is not None and one.kind == abi.EVENTTYPE_READ and not error else 0
    hangup = abi.EVENT_HANGUP if flags & select.POLLHUP else 0
    abi.EVENT.pack_into(memory, at, one.userdata, error, one.kind, waiting, hangup)


def _waiting(fd: int) -> int:
    """Returns the number of bytes that can be read (FIONREAD); 1 for a listening socket, which has none to count."""
    size = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, size)
    except OSError:
        return 1
    return size[0]
