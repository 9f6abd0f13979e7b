"""The contract between shimd and a WebAssembly runtime: all that an engine is.

An engine knows nothing of container managers or of sockets. It is found by its name in the entry points group
``shimd.engines`` and used in three kinds of process. (The supervisor asks it for what it knows without its runtime: its
version, its family, and what :meth:`RunsWithoutPython.pack` packs.)

* the *compile worker*, a throw-away unprivileged process: :meth:`Engine.precompile`;
* the *fork server*, one per engine, single-threaded, never runs a guest: :meth:`Engine.warm`;
* the *worker*, forked from it, one per app: :meth:`Engine.load` while it still sees the host's files as root, then,
  inside the container and with dropped privileges, :meth:`LoadsInside.load_inside`, if it has that, and
  :meth:`Engine.run`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from shimd.formats.outline import Outline

#: Exit code of an app whose guest trapped: what a native abort() gives (128 + SIGABRT).
EXIT_TRAP = 134
#: Exit code of an app whose engine failed (runwasi's convention).
EXIT_ENGINE = 137


class EngineError(Exception):
    """The engine cannot do what was asked. The message is one clear sentence for an operator."""

    def __init__(self, message: str = "", *, use: str = "") -> None:
        """:param use: the name of an engine that can, at which the message ends: operators are told its runtime, too"""
        super().__init__(message)
        self.use = use


class InvalidModule(EngineError):
    """The bytes are not a module or component that this engine takes."""


class BrokenArtifact(EngineError):
    """An artefact of :meth:`Engine.precompile` does not load: it is thrown away and made again."""


class UnsupportedFeature(EngineError):
    """The engine's binding lacks something that the app needs; the message names the way out."""


class InvalidSetting(EngineError):
    """An environment variable or annotation that the engine reads has a value of the wrong kind."""


class NoApplication(InvalidSetting):
    """Neither the container's files nor its image are an application of the engine's."""


class MissingRuntime(EngineError):
    """The node lacks what the engine runs on, which no Python package brings along: a library, say."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found = found
        self.remedy = remedy


class OtherEngine(EngineError):
    """The program is for another engine of this installation, which takes this one's artefacts (:class:`OfFamily`).

    Raised by :meth:`Engine.load`: the worker ends, and one of that engine's takes its place.
    """

    def __init__(self, engine: str) -> None:
        super().__init__(f"the program is run by the engine {engine}")
        self.engine = engine


class GuestTrap(Exception):
    """The guest trapped. ``str()`` is the trap's message with the Wasm backtrace, for the app's stderr; empty if the
    engine has written it there."""


@dataclass(frozen=True)
class Preopen:
    """A directory of the worker's own file system that the guest may open."""

    host: str
    guest: str
    read_only: bool = False


@dataclass(frozen=True)
class Invocation:
    """One run of a guest. Its stdio are the process's own descriptors 0, 1 and 2."""

    args: Sequence[str]
    """``argv``, the program's name first."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    """The guest's working directory, absolute; the process's own is the same."""
    preopens: Sequence[Preopen] = ()
    entry: str = "_start"
    """The exported function to call; ``_start`` also means a component's ``wasi:cli/run``."""
    network: bool = False
    """True if the guest may use the sockets of the worker's network namespace, where the engine gives it any."""
    contained: bool = False
    """True if the worker's root is the container's: then a symbolic link leads where the kernel says, and an absolute
    one not out of the preopened ``/``. Else no link may lead out of the directory that a path is relative to."""
    listening: Sequence[int] = ()
    """Descriptors of listening sockets that the guest gets as its first ones, from 3 (:class:`TakesSockets`)."""


@dataclass(frozen=True)
class Layer:
    """A layer of a container's image that is no file system's."""

    digest: str
    media_type: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Content:
    """A file of an application: a layer, part of a layer that is an archive, or here in place."""

    digest: str = ""
    data: bytes = b""
    """The file's bytes, if there is no digest."""


PartT_co = TypeVar("PartT_co", covariant=True)


@dataclass(frozen=True)
class Composed(Generic[PartT_co]):
    """A program that is put together of several when it is compiled, by the engine that names them."""

    name: str
    """What it is, for messages."""
    plan: str
    """How: what :meth:`Engine.precompile` gets with the parts (:mod:`shimd.formats.parts`)."""
    parts: Sequence[PartT_co]


class Image(Protocol):
    """The image of a container, as far as its layers are no file system's."""

    @property
    def layers(self) -> Sequence[Layer]: ...

    def read(self, layer: Layer) -> bytes:
        """Returns a layer's bytes, all at once: for descriptions, not for data."""
        ...

    def files(self, contents: Mapping[str, Content]) -> int:
        """Make a directory of those files, by their paths in it; read-only, and shared with others that have the same.

        :returns: a descriptor of it
        :raises NotFound: no layer has one of them
        """
        ...


ModuleT = TypeVar("ModuleT")
ModuleT_co = TypeVar("ModuleT_co", covariant=True)
ModuleT_contra = TypeVar("ModuleT_contra", contravariant=True)


class Engine(Protocol[ModuleT]):
    """A WebAssembly runtime. Constructed without arguments; construction is cheap and imports nothing heavy."""

    name: ClassVar[str]

    def version(self) -> str:
        """Returns the version that compiled artefacts depend on: of the engine, its configuration and the target.

        It is part of the cache's key and of a file name: letters, digits, ``.``, ``-``, ``_``, ``+`` only. It is asked
        by the supervisor, so it imports no heavy parts of the engine if there is another way.

        :raises MissingRuntime: it cannot run on this node
        """
        ...

    def warm(self) -> None:
        """Called once in the fork server: import and build all that is safe to share by fork. Starts no thread.

        Where :meth:`version` raises ``MissingRuntime`` it does nothing: native containers and pods need a fork server,
        too.
        """
        ...

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        """Compile a binary or text (``.wat``) module or component into ``artifact``, a file or a directory that does
        not exist yet. May use threads and all the CPU it likes, and imports nothing (:class:`LoadsCompiler`).

        :raises InvalidModule: with the engine's own reason, in one sentence
        """
        ...

    def load(self, artifact: Path) -> ModuleT:
        """Map a compiled artefact that :meth:`precompile` of this node made (trusted). Starts no thread: namespaces and
        privileges are still to be changed.

        :raises EngineError: the artefact does not load (truncated, other version)
        """
        ...

    def check(self, module: ModuleT, invocation: Invocation) -> None:
        """Fail before Start for what can be known by then: the entry function is missing or takes parameters, an
        import that this engine does not give, a feature that its binding lacks.

        :raises EngineError: one clear sentence
        """
        ...

    def run(self, module: ModuleT, invocation: Invocation) -> int:
        """Run the guest to its end on the calling (main) thread and return its exit code, 0 to 255.

        The node's files are out of sight: what is not loaded by :meth:`warm`, :meth:`load` or :meth:`check` cannot be
        imported any more. The process must die by the default action of any signal meanwhile, a spinning guest
        included.

        :raises GuestTrap: the guest trapped
        :raises EngineError: the engine failed
        """
        ...


@runtime_checkable
class LoadsInside(Protocol[ModuleT_contra]):
    """An engine that maps machine code when its process has nothing left to lose: what is wrong with an artefact can do
    no more then than its guest could. Optional, and what each engine does that can."""

    def load_inside(self, module: ModuleT_contra, artifact: Path) -> None:
        """Map what :meth:`Engine.load` has only looked at. Called once, in the container and without privileges, before
        :meth:`Engine.run`; nothing can be imported. Not called for applications of several modules.

        :param artifact: relative to the working directory, for this call
        :raises EngineError: the artefact does not load
        """
        ...


@runtime_checkable
class LoadsCompiler(Protocol):
    """An engine that compiles with more than :meth:`Engine.warm` has loaded. Optional."""

    def load_compiler(self, *, text: bool) -> None:
        """Import and open all that :meth:`Engine.precompile` will use; called in the compile worker, which sees no
        file of the node's afterwards. Starts no thread.

        :param text: true if the program is in the text format
        """
        ...


@runtime_checkable
class HandlesSignals(Protocol[ModuleT_contra]):
    """An engine whose apps end in their own way: a server that finishes its requests. Optional."""

    def signals(self, module: ModuleT_contra) -> Collection[int]:
        """Returns the signals that :meth:`Engine.run` has handlers for, from its first moment on. They are delivered as
        is; any other has its default action."""
        ...


@runtime_checkable
class EntersContainers(Protocol):
    """An engine that prepares each process for a container's files (:attr:`Invocation.contained`). Optional."""

    def enter_container(self) -> None:
        """Called in the worker, last before it enters the container and gives up its privileges."""
        ...


@runtime_checkable
class RunsApplications(Protocol[ModuleT_co]):
    """An engine whose containers run applications of several modules, described by a file. Optional."""

    def programs(
        self, read: Callable[[str], bytes | None], env: Mapping[str, str]
    ) -> Mapping[str, str | Composed[str]] | None:
        """Returns the paths of the modules in the container, by names of the engine's choice; called in the worker,
        which is root and not yet confined.

        :param read: a file of the container's; ``None`` if it is not there, IsADirectoryError if it is a directory
        :param env: the container's environment
        :returns: ``None`` if the container is no application: then it is run as any other
        :raises EngineError: what is wrong with the description
        """
        ...

    def load_all(self, artifacts: Mapping[str, Path]) -> ModuleT_co:
        """Load all modules, as :meth:`Engine.load` does one."""
        ...


@runtime_checkable
class RunsLocally(RunsApplications[ModuleT_co], Protocol[ModuleT_co]):
    """An engine whose applications are run where they are made, too, by ``shimd run``. Optional."""

    def take(self, manifest: str) -> None:
        """Have the application be the one that this file describes, and its files be beside it, rather than at the
        root of a container. Called before :meth:`RunsApplications.programs`, which may read any file then.
        """
        ...


@runtime_checkable
class RunsArtifacts(RunsApplications[ModuleT_co], Protocol[ModuleT_co]):
    """An engine whose applications also come as artifacts: layers of an image instead of files. Optional."""

    def artifact(
        self, image: Image, read: Callable[[str], bytes | None], env: Mapping[str, str]
    ) -> Mapping[str, Layer | Composed[Layer]] | None:
        """Returns the layers of the modules, where :meth:`RunsApplications.programs` has found nothing.

        :returns: ``None`` if the image is no application
        :raises NoApplication: nor anything else that could be run
        """
        ...


@runtime_checkable
class RunsWithoutPython(Protocol):
    """An engine with a part in C (``engine.h``) that does :meth:`Engine.load` and :meth:`Engine.run` for most programs,
    in workers that have no use for an interpreter and its memory. Optional."""

    def library(self) -> list[str] | None:
        """Returns the shared library with its ``shimd_engine``, and that function's arguments; ``None``: it was not
        built."""
        ...

    def pack(self, artifact: Path, invocation: Invocation) -> bytes | None:
        """Returns what that part needs to know of a program, as a block (:mod:`shimd.linux.packed`); called in the
        supervisor, where nothing was warmed. It finds the artefact by its name alone (``artifact.name``), in its
        working directory.

        :returns: ``None`` if this program needs Python
        :raises EngineError: as :meth:`Engine.check` does
        """
        ...


class Packed(NamedTuple):
    """An application for an engine's part in C."""

    block: bytes
    descriptors: Sequence[int]
    """Directories that the application reads, which the block names by numbers; the caller closes them."""
    directories: Sequence[int]
    """The directories of its compiled modules, which it also names, until it is loaded; they come after the others, and
    the last is the working directory then."""


@runtime_checkable
class PacksApplications(RunsWithoutPython, Protocol[ModuleT_contra]):
    """An engine whose applications' workers need no Python, once all of an application is known. Optional."""

    def load_part(self) -> None:
        """Called after :meth:`Engine.warm`, where all workers have Python: load the part in C, too."""
        ...

    def pack_all(self, module: ModuleT_contra, invocation: Invocation, first: int) -> Packed | None:
        """Returns what the part in C needs to know of an application; called in the worker that knows it, instead of
        :meth:`Engine.check`.

        :param first: the first number of a descriptor there
        :returns: ``None`` if it needs Python
        :raises EngineError: as :meth:`Engine.check` does
        """
        ...


@runtime_checkable
class Foresees(Protocol):
    """An engine that can tell by a program's outline that it would be compiled in vain, which may take minutes.
    Optional."""

    def foresee(self, program: Outline, runs_on: str) -> None:
        """Called in the compile worker, confined, before :meth:`Engine.precompile`; takes milliseconds.

        :param runs_on: the engine that will run it: this one, or one of which it is the family
        :raises UnsupportedFeature: it cannot run there, whatever the compiler makes of it
        """
        ...


@runtime_checkable
class ChoosesEngine(Protocol):
    """An engine that compiles for several of its family (:class:`OfFamily`), by what a program is. Optional."""

    def runner(self, artifact: Path) -> str:
        """Returns the name of the engine that runs a program; empty: this one. Called in the compile worker, confined,
        after :meth:`Engine.precompile`. Where it was not asked, :meth:`Engine.load` raises :class:`OtherEngine`."""
        ...


@runtime_checkable
class TakesLayers(Protocol):
    """An engine whose programs come in layers of images that others do not know. Optional."""

    layers: ClassVar[Collection[str]]
    """Media types, besides those of WebAssembly."""


@runtime_checkable
class TakesSockets(Protocol):
    """An engine whose guests may be given sockets that listen already (:attr:`Invocation.listening`). Optional."""

    sockets_without_python: ClassVar[bool]
    """Whether those guests run in workers without Python, too (:class:`RunsWithoutPython`)."""


@runtime_checkable
class OfFamily(Protocol):
    """An engine that takes the artefacts of another: modules are compiled by that one, once for both. Optional."""

    family: ClassVar[str]


@runtime_checkable
class CompilesForFamily(OfFamily, Protocol):
    """An engine that compiles as its family's does, so that a node which needs no other of them has no other's
    processes. Optional."""

    compiles_for_family: ClassVar[bool]
