"""Messages of one stream on their way from the connection's reader to the call's task."""

from collections import deque

import anyio


class Inbox:
    """A queue of messages, bounded by bytes, with an end that may be an error."""

    def __init__(self, limit: int) -> None:
        """
        :param limit: bytes in the queue from which on :meth:`put` waits; 0 lets one message wait
        """
        self._limit = limit
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._change = anyio.Event()

    async def put(self, message: bytes) -> None:
        """Wait for room, then add. Messages after the end are dropped."""
        while self._messages and self._size + len(message) > self._limit and not self._ended:
            await self._change.wait()
        self.put_nowait(message)

    def put_nowait(self, message: bytes) -> None:
        """Add, whatever the size of the queue."""
        if not self._ended:
            self._messages.append(message)
            self._size += len(message)
            self._changed()

    def end(self, error: Exception | None = None) -> None:
        """No more messages come. Those in the queue can be taken, then ``error`` is raised. The first end counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._changed()

    async def get(self) -> bytes | None:
        """The next message, or ``None`` at the end."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            await self._change.wait()
        message = self._messages.popleft()
        self._size -= len(message)
        self._changed()
        return message

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()
