"""Supervisor ⇄ keeper, on the keeper's listening socket (SEQPACKET), one supervisor at a time; the keeper outlives it.

A packet is :class:`Packet`: a kind, an id, four numbers and a name, with descriptors beside it. The keeper is in C
(``shimd/keeper/keeper.c``), and may be of an earlier or a later version than the supervisor.

=================== ======================= ========================= ==================================================
the supervisor says numbers                 with descriptors          and is answered
=================== ======================= ========================= ==================================================
``HELLO``           version, ``RESTARTS``   a command and its         ``HELLO`` (version, pid, error), or ``FAILED``
                                            descriptors, or nothing   (EBUSY): another supervisor is connected
``LIST``            –                       –                         ``KEPT`` with descriptors for each name,
                                                                      ``EXITED`` for each exit, then ``LISTED``
``QUIT``            ``REMOVES`` or          –                         –
                    ``HANDS_OVER``
``KEEP`` name       –                       the name's                only if it fails: ``FAILED`` (error) name
``HOLD`` id name    how many for reading,   paths of FIFOs, opened    ``HELD`` id (error; ENXIO: of one nobody reads)
                    too, the first ones     with O_PATH
``DROP`` name       –                       –                         –
``SPAWN`` id        –                       a command and its         ``SPAWNED`` id (pid, start) or
                                            descriptors               ``FAILED`` id (error)
``ACKNOWLEDGE``     pid, start              –                         –
=================== ======================= ========================= ==================================================

``EXITED`` (pid, start, wait status, nanoseconds since the epoch) comes by itself as well, of every child and every
orphan, and of those not acknowledged again with the next list.

* ``HELLO``, ``LIST``, ``QUIT``, what answers them and the form of a packet are the same in all versions. To a
  supervisor of another version the keeper says its own, and does no more than these for it.
* A supervisor whose connection ends without ``QUIT`` is started again by the command that its last ``HELLO`` left.
  If another one says ``HELLO``, what was started so gets a TERM: it waits for its turn, which is over.
  The error says that there was no room for this one: another ``HELLO`` brings it again.
* After ``QUIT`` the keeper keeps nothing, and ends when it has no children; another ``HELLO`` calls it back. With
  ``HANDS_OVER`` it does not end before a supervisor that lives was told of all exits, of whatever version that is.
* ``HOLD`` opens FIFOs, those that it can, and keeps them under the name, in place of what that had: so they are open
  before the supervisor has opened its own, and are still when it ends.
* What was sent is kept: the keeper reads all of it, even from a supervisor that is gone.
* A packet that is none of these ends its connection.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

#: Raised with every change that the other end would not understand.
VERSION = 2
#: Longest name, bytes.
MAX_NAME = 255
#: Most exits that are kept for who asks; beyond, the oldest are forgotten.
MAX_EXITS = 4096
#: Longest command, bytes: as of execve(2), an argument or variable may have 128 KiB.
MAX_COMMAND = 1 << 22

_HEAD = struct.Struct("=II4q")
_COUNTS = struct.Struct("=3I")


class Kind(IntEnum):
    """What a packet says."""

    HELLO = 1
    LIST = 2
    QUIT = 3
    KEPT = 4
    EXITED = 5
    LISTED = 6
    FAILED = 7
    KEEP = 8
    DROP = 9
    SPAWN = 10
    SPAWNED = 11
    ACKNOWLEDGE = 12
    HOLD = 13
    HELD = 14


#: Of HELLO: the command that comes with it starts the supervisor again; without, nothing does.
RESTARTS = 1
#: Of SPAWN: the id of one without a command, which fails at once, and tells that the keeper is not stopped.
PING = 0xFFFFFFFF
#: Of QUIT: the path of the socket is the keeper's to remove.
REMOVES = 1
#: Of QUIT: another keeper has all, but for the children and their exits, which the supervisor goes on to hear of.
HANDS_OVER = 2


@dataclass(frozen=True)
class Packet:
    """One message."""

    kind: Kind
    id: int = 0
    """The supervisor's, of a request; its answer has the same."""
    numbers: tuple[int, ...] = ()
    """Up to four; on arrival always four."""
    name: str = ""


#: Longest packet, bytes.
MAX_SIZE = _HEAD.size + MAX_NAME


class NotAPacket(ValueError):
    """What came is no packet of a keeper's."""


def encode(packet: Packet) -> bytes:
    """:raises ValueError: the name is too long"""
    name = packet.name.encode(errors="surrogateescape")
    if len(name) > MAX_NAME:
        raise ValueError(f"{packet.name} is too long for a keeper's name")
    return _HEAD.pack(packet.kind, packet.id, *(*packet.numbers, 0, 0, 0, 0)[:4]) + name


def decode(data: bytes) -> Packet:
    """:raises NotAPacket: it is none"""
    try:
        kind, number, *numbers = _HEAD.unpack_from(data)
        name = data[_HEAD.size :].decode(errors="surrogateescape")
        return Packet(Kind(kind), number, tuple(numbers), name)
    except (struct.error, ValueError) as error:
        raise NotAPacket(str(error)) from None


def encode_command(argv: Sequence[str], env: Mapping[str, str], targets: Sequence[int]) -> bytes:
    """The content of a command's file, the first descriptor of ``SPAWN`` and ``HELLO``: three counts, the numbers that
    the other descriptors get in the child, then arguments and variables, each with a zero behind it.

    :raises ValueError: one has a zero in it, or all are too long
    """
    variables = [f"{name}={value}" for name, value in env.items()]
    words = [word.encode(errors="surrogateescape") for word in (*argv, *variables)]
    data = _COUNTS.pack(len(argv), len(variables), len(targets)) + struct.pack(f"={len(targets)}I", *targets)
    data += b"".join(word + b"\0" for word in words)
    if len(data) > MAX_COMMAND or any(b"\0" in word for word in words):
        raise ValueError(f"{argv[0]} cannot be started with these arguments and variables")
    return data
