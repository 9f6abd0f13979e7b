"""Numbers that both ends of a connection know, in Python and in C.

``tools/headers.py`` writes them into ``shimd/zygote/constants.h``, and ``make lint`` checks that it has been run.
"""

from enum import IntEnum, IntFlag

#: What supervisor and fork server speak; raised with every change that the other end would not understand.
VERSION = 7

#: Largest packet, bytes; plans travel in memory files, so messages are small.
MAX_PACKET = 65536
#: Most descriptors of a packet: SCM_MAX_FD (unix(7)).
MAX_FDS = 253

#: Where a fork server finds its listening socket, and a jailer its connection.
LISTEN_FD = 3
#: Where a worker has its connection to the supervisor; below it are its streams.
CONTROL_FD = 3
#: Where a worker has its jail's descriptors, the root file system first.
JAIL_FD = 4
#: Descriptors below this are a worker's own, or about to be: others are moved out of their way.
HIGH_FD = 512

#: Exit code of a worker that failed before its app could run; the supervisor has the reason.
EXIT_FAILED = 70


#: Beside an artefact: the name of the engine that runs it, if that is another than the one that compiled it.
RUNNER_FILE = "engine"


class Birth(IntFlag):
    """The place where a worker is forked, as the zygote is told: more descriptors come with all but the first."""

    NEW_PID = 1
    IN_CGROUP = 2
    JOIN_PID = 4


#: In the place of that: the zygote is to say that it lives.
ZYGOTE_PING = 8


class Policy(IntEnum):
    """The consequence of a system call that fails."""

    FAIL = 0
    WARN = 1
    IF_THERE = 2
    """Nothing, if what it names does not exist."""
    TRY = 3


class SpecialCall(IntEnum):
    """SystemCalls that are no system calls; in the upper half of the number's word stands 1."""

    OPEN = 0
    """Open a path at a given descriptor."""
    BARRIER = 1
    """Let others do their part."""
    BOUND = 2
    """Drop all capabilities but some from the bounding set, which takes a call for each."""
    LOAD = 3
    """Let the engine map the program: here if it can, inside the container and without privileges."""
    READABLE = 4
    """Have a Landlock ruleset allow the program's directories of the cache, whose descriptors only the worker knows."""


#: Words of a call: number, six arguments, policy, packet.
CALL_WORDS = 9
