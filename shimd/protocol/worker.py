"""Supervisor ⇄ worker, on the connection that came with :class:`~shimd.protocol.fork_server.Spawned`.

A worker without Python gets :class:`Enter` before all else. A worker may then ask (:class:`AskProgram` …
:class:`AskFiles`), each time for one answer; it tells warnings, and that it waits for hooks (:class:`Held`, answered by
:class:`Go`). It ends with :class:`Ready`, and runs when it gets :class:`Start`; or with :class:`Error`,
:class:`OtherEngine` or :class:`HandsOver`, and exits.

A compile worker says ``Ready`` when the artefact is complete, and exits. A worker that becomes another program (a
runtime's command, a hook) says nothing if it can: the connection ends there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shimd.engine import Layer
from shimd.protocol.codec import ITEMS, Decoder

# From the worker


@dataclass(frozen=True)
class AskProgram:
    """The compiled form of a program: of the file that comes with it, or of an image's layer. Answer: ``Artifact`` +
    the directory that it is in."""

    name: str
    missing: str = ""
    """Why no file comes with it; the image may have it all the same."""
    layer: str = ""
    """The digest of a layer that is one."""


@dataclass(frozen=True)
class AskImage:
    """The layers of the container's image. Answer: ``Content`` + a file with ``Layers``."""


@dataclass(frozen=True)
class AskLayer:
    """One of them, to be read. Answer: ``Content`` + the file."""

    digest: str


@dataclass(frozen=True)
class AskFiles:
    """A directory of the files in ``FileTable``, which comes with it in a file. Answer: as to ``AskProgram``."""


@dataclass(frozen=True)
class OtherEngine:
    """Another engine runs the program, for which its compiled form is the same; the worker exits."""

    name: str


@dataclass(frozen=True)
class HandsOver:
    """A worker without Python is to run the application, and this one exits. With it come the block for the engine's
    part in C, and the application's descriptors, the directories of its compiled modules last: those of the jail stand
    before them in that worker."""

    entries: int
    """How many directories."""


@dataclass(frozen=True)
class Held:
    """It is in its namespaces, and hooks are to be run."""


@dataclass(frozen=True)
class Ready:
    """All is set up, and no guest has run."""

    signals: Sequence[int] = ()
    """Those that the app handles itself."""


@dataclass(frozen=True)
class Error:
    """The reason why it is not ready; it exits."""

    code: int
    """A gRPC status code."""
    message: str
    """One sentence."""


@dataclass(frozen=True)
class Warning:
    """Something that may be missing was (a capability of the host)."""

    message: str


Question: TypeAlias = AskProgram | AskImage | AskLayer | AskFiles
Event: TypeAlias = Question | OtherEngine | HandsOver | Held | Ready | Error | Warning

# To the worker


@dataclass(frozen=True)
class Enter:
    """Load a program, and step into the jail: to a worker without Python. With it come the block for its engine's part
    in C, its system calls, its jail's descriptors, an application's own, and directories of compiled modules."""

    entries: int = 1
    """How many of those."""
    own: int = 0
    """How many descriptors of an application's stand before them: directories that it may read."""


@dataclass(frozen=True)
class Artifact:
    """A compiled module, or a directory of files: ``name`` in the directory that comes with it."""

    name: str


@dataclass(frozen=True)
class Content:
    """The file that comes with it."""


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer."""

    code: int
    message: str


@dataclass(frozen=True)
class Go:
    """Hooks have been run."""


@dataclass(frozen=True)
class Start:
    """Let the guest run."""


Answer: TypeAlias = Artifact | Content | Refusal
Order: TypeAlias = Go | Start

# In files


@dataclass(frozen=True)
class Layers:
    """The layers of an image."""

    layers: Sequence[Layer] = field(metadata={ITEMS: Layer})


@dataclass(frozen=True)
class FileTable:
    """Files of a directory, by their paths in it: each has the ``digest`` of a layer, or is ``data`` (base64)."""

    files: dict[str, dict[str, str]]


decode_event = Decoder[Event](
    AskProgram, AskImage, AskLayer, AskFiles, OtherEngine, HandsOver, Held, Ready, Error, Warning
)
decode_answer = Decoder[Answer](Artifact, Content, Refusal)
decode_order = Decoder[Order](Go, Start)
decode_layers = Decoder[Layers](Layers)
decode_files = Decoder[FileTable](FileTable)
