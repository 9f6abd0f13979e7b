"""``wasi:io``: errors, pollables and byte streams (https://github.com/WebAssembly/wasi-io, 0.2)."""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import NoReturn

from shimd.component.results import Case, Err
from shimd.wasi.waiting import first, wait_for

#: Most that a guest may write at once after ``check-write``, bytes.
WRITABLE = 64 << 10
#: Most that ``read`` returns at once, whatever was asked for, bytes: it is copied several times on its way.
READABLE = 64 << 10


class Error:
    """``wasi:io/error.error``: what went wrong with a stream."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.message = message
        self.cause = cause

    def to_debug_string(self) -> str:
        return self.message


def closed() -> NoReturn:
    raise Err(Case("closed"))


def failed(message: str, cause: BaseException | None = None) -> NoReturn:
    raise Err(Case("last-operation-failed", Error(message, cause)))


class Pollable:
    """``wasi:io/poll.pollable``."""

    def __init__(self, ready: Callable[[], bool], wait: Callable[[], Awaitable[None]]) -> None:
        self.ready = ready
        self.wait = wait
        """Waits until it may be ready; awaited in the event loop."""

    def block(self) -> None:
        while not self.ready():
            wait_for(self.wait)


def always_ready() -> Pollable:
    """Returns a pollable for what never has to be waited for."""

    async def wait() -> None:
        return

    return Pollable(lambda: True, wait)


class Poll:
    """``wasi:io/poll``."""

    def poll(self, pollables: list[Pollable]) -> list[int]:
        """:raises ValueError: there are none, which is a trap by the specification"""
        if not pollables:
            raise ValueError("poll was called with an empty list")
        while not (ready := [index for index, pollable in enumerate(pollables) if pollable.ready()]):
            wait_for(first, [pollable.wait for pollable in pollables])
        return ready


class InputStream(ABC):
    """``wasi:io/streams.input-stream``."""

    @abstractmethod
    def ready(self) -> bool:
        """Returns whether :meth:`read_available` has something to give, or the end."""

    @abstractmethod
    async def wait(self) -> None:
        """Wait until it is ready; called in the event loop."""

    @abstractmethod
    def read_available(self, length: int) -> bytes:
        """Read up to ``length`` bytes of what is there; called when it is ready.

        :raises Err: ``closed`` at the end, or ``last-operation-failed``
        """

    def read(self, length: int) -> bytes:
        return self.read_available(min(length, READABLE)) if length and self.ready() else b""

    def blocking_read(self, length: int) -> bytes:
        self.subscribe().block()
        return self.read(length)

    def skip(self, length: int) -> int:
        return len(self.read(length))

    def blocking_skip(self, length: int) -> int:
        return len(self.blocking_read(length))

    def subscribe(self) -> Pollable:
        return Pollable(self.ready, self.wait)


class OutputStream(ABC):
    """``wasi:io/streams.output-stream``."""

    @abstractmethod
    def check_write(self) -> int:
        """Returns how many bytes may be written now.

        :raises Err: ``closed`` or ``last-operation-failed``
        """

    @abstractmethod
    async def wait(self) -> None:
        """Wait until it can be written to; called in the event loop."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """:raises Err: as :meth:`check_write`"""

    def flush(self) -> None:
        """Ask for all that was written to be passed on: here it is, at once."""
        return

    def blocking_flush(self) -> None:
        self.flush()
        self.subscribe().block()

    def subscribe(self) -> Pollable:
        return Pollable(self._ready, self.wait)

    def _ready(self) -> bool:
        try:
            return self.check_write() > 0
        except Err:
            return True

    def blocking_write_and_flush(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self.subscribe().block()
            count = min(len(rest), self.check_write())
            self.write(bytes(rest[:count]))
            rest = rest[count:]
        self.flush()

    def write_zeroes(self, length: int) -> None:
        self.write(bytes(length))

    def blocking_write_zeroes_and_flush(self, length: int) -> None:
        self.blocking_write_and_flush(bytes(length))

    def splice(self, source: InputStream, length: int) -> int:
        data = source.read(min(length, self.check_write()))
        self.write(data)
        return len(data)

    def blocking_splice(self, source: InputStream, length: int) -> int:
        self.subscribe().block()
        data = source.blocking_read(min(length, self.check_write()))
        self.write(data)
        return len(data)


class Streams:
    """``wasi:io/streams``; all its functions are the streams' own."""


class FileInput(InputStream):
    """A file or our stdin: reading blocks the guest's thread only."""

    def __init__(self, fd: int, offset: int | None = None, *, owned: bool = False) -> None:
        self._fd = fd
        self._offset = offset
        self._owned = owned

    def ready(self) -> bool:
        return True

    async def wait(self) -> None:
        return

    def read_available(self, length: int) -> bytes:
        try:
            if self._offset is None:
                data = os.read(self._fd, length)
            else:
                data = os.pread(self._fd, length, self._offset)
                self._offset += len(data)
        except OSError as error:
            failed(error.strerror or str(error), error)
        return data or closed()

    def close(self) -> None:
        if self._owned:
            os.close(self._fd)


class FileOutput(OutputStream):
    """A file, or our stdout and stderr."""

    def __init__(self, fd: int, offset: int | None = None, *, owned: bool = False) -> None:
        self._fd = fd
        self._offset = offset
        self._owned = owned

    def check_write(self) -> int:
        return WRITABLE

    async def wait(self) -> None:
        return

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                if self._offset is None:
                    count = os.write(self._fd, rest)
                else:
                    count = os.pwrite(self._fd, rest, self._offset)
                    self._offset += count
                rest = rest[count:]
        except OSError as error:
            failed(error.strerror or str(error), error)

    def close(self) -> None:
        if self._owned:
            os.close(self._fd)
