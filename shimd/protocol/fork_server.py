"""Supervisor ⇄ fork server, on its listening socket, one supervisor at a time; the fork server outlives it.

Both begin with :class:`Hello`, which every version understands. Where the versions differ the fork server is retired:
it takes no new workers, and leaves with its last. Until then the next version follows them, so that what it takes for
that (all but ``Spawn`` and ``Follow``) stays as it is from :data:`LASTING` on.

======================== ===================================================== =========================================
the supervisor says      with descriptors                                      and is answered
======================== ===================================================== =========================================
:class:`Hello`           –                                                     ``Hello`` + its own pidfd, which came
                                                                               before; or :class:`Refused`, and the end
                                                                               of the connection
:class:`Spawn`           stdin, stdout, stderr; with Python also a plan        :class:`Spawned` + control, pidfd; or
                         (:mod:`.plans`), and of a container the system calls  :class:`Failed`: the fork itself failed
                         its jail's
:class:`Follow`          –                                                     as a spawn
:class:`Forget`          –                                                     –
:class:`End`             –                                                     –
:class:`Retire`          –                                                     –
:class:`List`            –                                                     ``Spawned`` + control, pidfd; or
                                                                               :class:`Exited` for all that is not
                                                                               forgotten, then :class:`Listed`
:class:`Ping`            –                                                     :class:`Pong`
======================== ===================================================== =========================================

``Exited`` comes by itself, whenever a worker has ended.
"""

from dataclasses import dataclass
from typing import TypeAlias

from shimd.protocol.codec import Decoder

#: Since this version of the protocol its successors follow the workers of a fork server that speaks it.
LASTING = 4


@dataclass(frozen=True)
class Hello:
    """A greeting, the first message in both directions."""

    version: int
    """The version of the protocol (``constants.VERSION``)."""
    engine: str = ""
    """The fork server's: ``module:class``."""
    engine_version: str = ""
    """The version of the engine that it has loaded."""
    release: str = ""
    """The fork server's own (:mod:`shimd.release`); empty: it was loaded while another one was being installed."""


@dataclass(frozen=True)
class Spawn:
    """Fork a worker."""

    key: str
    """Its name from here on, chosen by the supervisor."""
    pidns: str | None = None
    """The pid namespace that it is born in: ``new``, the path of one, or the fork server's."""
    cgroup: str | None = None
    """The version 2 cgroup that it is born in: a directory."""
    python: bool = True
    """``False``: a worker without Python, of the zygote's, which is told later what to run."""


@dataclass(frozen=True)
class Follow:
    """Report a process that a worker left behind, as a worker."""

    key: str
    pid: int


@dataclass(frozen=True)
class Forget:
    """Drop a worker whose exit is on record."""

    key: str


@dataclass(frozen=True)
class End:
    """Kill a worker, and drop it when it has ended."""

    key: str


@dataclass(frozen=True)
class Ping:
    """Say that you live."""


@dataclass(frozen=True)
class List:
    """Tell of all workers, after a reconnection."""


@dataclass(frozen=True)
class Retire:
    """Take no new workers any more, and leave with the last."""


@dataclass(frozen=True)
class Refused:
    """It serves another supervisor, which lives."""


@dataclass(frozen=True)
class Spawned:
    key: str
    pid: int
    start: int
    """Start time in clock ticks since boot; with the pid it names the process for good (proc_pid_stat(5))."""


@dataclass(frozen=True)
class Failed:
    key: str
    code: int
    """A gRPC status code; UNIMPLEMENTED: it takes Python here."""
    message: str


@dataclass(frozen=True)
class Exited:
    key: str
    pid: int
    status: int
    """The wait status (wait(2))."""
    at: int
    """Nanoseconds since the epoch."""
    start: int = 0
    """As of ``Spawned``; 0: of a process that was followed only after its end."""


@dataclass(frozen=True)
class Listed:
    """All have been told."""


@dataclass(frozen=True)
class Pong:
    """It lives."""


Request: TypeAlias = Hello | Spawn | Follow | Forget | End | List | Ping | Retire
Event: TypeAlias = Hello | Refused | Spawned | Failed | Exited | Listed | Pong
decode_request = Decoder[Request](Hello, Spawn, Follow, Forget, End, List, Ping, Retire)
decode_event = Decoder[Event](Hello, Refused, Spawned, Failed, Exited, Listed, Pong)
