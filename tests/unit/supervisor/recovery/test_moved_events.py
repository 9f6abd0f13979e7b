"""An outbox whose events are moved in memory, in whatever order they come and go."""

import os
import random
import socket
from collections import deque
from contextlib import suppress

import pytest

from shimd.supervisor.recovery.memory_log import MemoryLog
from shimd.supervisor.recovery.outbox import Outbox, stream_of
from shimd.ttrpc.envelope import Request


class Model:
    """The outbox, what is to be in it, and both ends of its connection."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.outbox = Outbox(MemoryLog.create("test"))
        self.expected: deque[tuple[int, bytes]] = deque()
        self.received = b""
        self._last = 0

    def append(self, size: int) -> None:
        self._last += 1
        payload = random.randbytes(size)
        self.outbox.append(self._last, Request("s", "m", payload))
        self.expected.append((self._last, payload))

    def send(self) -> None:
        if self.expected and not self.received:
            self.outbox.send(self.near)
            with suppress(BlockingIOError):
                self.far.recv(1 << 20)

    def receive(self) -> None:
        self.far.send(b"answer")
        self.received += self.outbox.receive(self.near)

    def taken(self) -> None:
        if self.expected:
            self.outbox.taken()
            self.expected.popleft()
            self.received = b""

    def drop(self) -> None:
        if len(self.expected) > 1:
            index = 1 if self.outbox.begun else 0
            assert self.outbox.drop_oldest().payload == self.expected[index][1]
            del self.expected[index]

    def reopen(self) -> None:
        """As a successor does."""
        fd = os.dup(self.outbox.fd)
        self.outbox.close()
        self.outbox = Outbox(MemoryLog.open(fd))

    def check(self) -> None:
        assert len(self.outbox) == len(self.expected)
        assert self.outbox.last_seq == self._last
        assert self.outbox.received() == self.received
        if self.expected:
            seq, payload = self.expected[0]
            assert self.outbox.stream_id == stream_of(seq)
            assert self.outbox.oldest().payload == payload

    def close(self) -> None:
        while self.expected:
            self.check()
            self.taken()
        self.outbox.close()
        self.near.close()
        self.far.close()


@pytest.mark.parametrize("seed", range(20))
def test_what_was_appended_is_there_until_it_is_taken(seed: int) -> None:
    random.seed(seed)
    model = Model()
    likely = random.choice([3, 6])
    for _ in range(600):
        (action,) = random.choices(
            [model.send, model.receive, model.taken, model.drop, model.reopen, None], [3, 2, 2, 1, 0.2, likely]
        )
        if action is None:
            model.append(random.choice([0, 10, 300, 3000]))
        else:
            action()
        model.check()
    model.close()
