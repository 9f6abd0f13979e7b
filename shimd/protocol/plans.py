"""Plans: all that a process needs to know for what it is forked, or asked, to do. A kind of plan is a class.

They travel in memory files, since an OCI configuration may exceed a packet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shimd.engine import Preopen
from shimd.oci import Hook, Process, RootfsMount, Spec
from shimd.oci.listen import Address
from shimd.protocol.codec import ITEMS, Decoder


@dataclass(frozen=True)
class NewJail:
    """For a jailer: make the jail of a container's first process."""

    bundle: str
    spec: Spec
    rootfs: Sequence[RootfsMount]
    """Mounts that make up the root file system."""
    directories: Sequence[str]
    """The directories of the container's cgroup, one per hierarchy."""
    unified: str | None
    terminal: bool
    """Whether descriptor 0 is a terminal, to be made the controlling one."""
    listen: Sequence[Address] = field(default=(), metadata={ITEMS: Address})
    seccomp: str = ""
    """The worker's filter: a BPF program, base64; none if empty."""

    @property
    def process(self) -> Process:
        return self.spec["process"]


@dataclass(frozen=True)
class JoinJail:
    """For a jailer: find the jail of a container for a further process."""

    spec: Spec
    process: Process
    init_pid: int
    """The process whose namespaces are joined."""
    directories: Sequence[str]
    unified: str | None
    terminal: bool
    seccomp: str = ""
    is_hook: bool = False
    """Whether a program of the image's is executed there."""


JailPlan: TypeAlias = NewJail | JoinJail


@dataclass(frozen=True)
class ContainerApp:
    """An app in its jail."""

    id: str
    """The container's id (and ``/exec id``), for messages."""
    process: Process
    """``args``, ``env`` and ``cwd`` alone."""
    preopens: Sequence[Preopen] = field(metadata={ITEMS: Preopen})
    """The container's root, never read-only, since the kernel's mounts are; and each bind mount by itself, for engines
    that cannot just follow the kernel's."""
    first: bool
    """Whether it is the container's first process, which may be an application of several modules."""
    artifact: str | None = None
    """The compiled module, in the cache; ``None``: the worker asks for it."""
    view: int = -1
    """The descriptor of the directory that it is in, to be loaded by (``supervisor/modules/views.py``)."""
    listen: Sequence[Address] = field(default=(), metadata={ITEMS: Address})
    """Sockets that the app is to be given, listening."""
    listening: Sequence[int] = ()
    """Their descriptors, if they came with the jail."""
    hands_over: bool = False
    """Whether a worker without Python may take its place (``protocol.worker.HandsOver``)."""


@dataclass(frozen=True)
class HostApp:
    """An app of ``shimd run``, on the node itself."""

    id: str
    process: Process
    artifact: str
    view: int = -1
    preopens: Sequence[Preopen] = field(default=(), metadata={ITEMS: Preopen})
    network: bool = False
    """Whether the guest may use this machine's network."""
    listen: Sequence[Address] = field(default=(), metadata={ITEMS: Address})
    application: str = ""
    """The manifest of an application; empty: it is a program."""
    hands_over: bool = False
    """As of :class:`ContainerApp`."""


App: TypeAlias = ContainerApp | HostApp


@dataclass(frozen=True)
class Pause:
    """A process that holds a pod's namespaces."""

    bundle: str
    spec: Spec
    directories: Sequence[str]
    unified: str | None
    terminal: bool
    program: str
    """The one to become; empty: none is installed, and the worker itself waits."""


@dataclass(frozen=True)
class NativeCommand:
    """A command of a native container's runtime (``runc``)."""

    bundle: str
    command: Sequence[str]
    root: str = ""
    """Where ``rootfs`` is to be mounted before, on the node."""
    rootfs: Sequence[RootfsMount] = ()


@dataclass(frozen=True)
class HookCommand:
    """A container's hook."""

    hook: Hook
    directory: str = ""
    """The working directory, if the system calls do not lead to one."""
    executor: str = ""
    """In a container: the program that executes the hook's (``worker/pause.c``)."""


@dataclass(frozen=True)
class Compilation:
    """A program (descriptor 0) to be compiled."""

    artifact: str
    """Where to put it; the directory above has been made."""
    digest: str = ""
    """SHA-256 of the program, hexadecimal, under which its compiled form will be found; empty: it is not checked."""
    engine: str = ""
    """That will run it; empty: the fork server's own."""
    only_look: bool = False
    """Whether to end when it is known if compiling would be in vain."""
    seccomp: str = ""
    directories: Sequence[str] = ()
    """Cgroups to join, of a cgroup of its own."""
    limited: bool = False
    """Whether it is in such a cgroup, so that its memory needs no other limit."""


WorkerPlan: TypeAlias = ContainerApp | HostApp | Pause | NativeCommand | HookCommand | Compilation

decode_jail_plan = Decoder[JailPlan](NewJail, JoinJail)
decode_worker_plan = Decoder[WorkerPlan](ContainerApp, HostApp, Pause, NativeCommand, HookCommand, Compilation)
