"""A log whose writer is killed between two stores."""

import os
import socket

from shimd.supervisor.recovery.memory_log import MemoryLog

#: Kinds of entries.
_REQUEST, _ANSWER = 1, 2


def test_nothing_counts_as_sent_of_what_has_anothers_place() -> None:
    """After two rewrites an entry may be where another was when the last send began."""
    near, far = socket.socketpair()
    near.setblocking(False)
    log = MemoryLog.create("test")
    with near, far:
        request = log.append(_REQUEST, 0, b"r" * 200)
        first, second = log.append(_ANSWER, 1, b"1" * 200), log.append(_ANSWER, 3, b"2" * 200)
        sent = log._sent.send
        log._sent.send = lambda fd, start, _size: sent(fd, start, 100)  # type: ignore[assignment,method-assign]
        assert log.send(near, first) == (100, 100)
        places = log.rewrite([log.entry(place) for place in (request, first, second)])
        first, second = log.rewrite([log.entry(place) for place in places[1:]])
        log._sent.clear()
        log._words[5] = log.sent(first)  # as send() does, and is killed there
        other = MemoryLog.open(os.dup(log.fd))
        assert [other.left(place) for place in (first, second)] == [100, 200]
        other.close()
    log.close()
