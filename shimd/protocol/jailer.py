"""Supervisor ⇄ jailer, one request at a time.

``Make`` comes with a plan (:mod:`.plans`), and of a terminal its slave end. It is answered by ``Made`` + the system
calls, the jail's descriptors and if it was found the program; or by ``Error``. A jail that is ``held`` waits for hooks:
``Finish`` is answered by ``Finished`` or ``Error``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shimd.protocol.codec import Decoder
from shimd.protocol.worker import Error


@dataclass(frozen=True)
class Make:
    """Make or find a jail."""

    terminal: bool = False


@dataclass(frozen=True)
class Finish:
    """Hooks have been run."""


@dataclass(frozen=True)
class Made:
    path: str
    """Of the program that ``args[0]`` names, as far as it was looked for."""
    program: bool
    """Whether it was found, and comes with this."""
    missing: str
    """Why not."""
    digest: str
    """Its SHA-256, hexadecimal, if it is a small one."""
    listening: Sequence[int]
    """The worker's descriptors of its listening sockets."""
    held: bool
    """Whether hooks are to be run now."""


@dataclass(frozen=True)
class Finished:
    """The jail is complete."""


Request: TypeAlias = Make | Finish
Reply: TypeAlias = Made | Finished | Error
decode_request = Decoder[Request](Make, Finish)
decode_reply = Decoder[Reply](Made, Finished, Error)
