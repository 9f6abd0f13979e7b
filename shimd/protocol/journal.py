"""A supervisor → the next one: what it knew of containers and endpoints, as it happened (``recovery/journal.py``).

A field that a later release adds has a default, so that it reads what an earlier one has written, and is ignored by
that, so that one can go back. One that changes its meaning takes another ``VERSION``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from shimd.protocol.codec import ITEMS, Decoder

#: Of the records. One of a later version is not read.
VERSION = 1


@dataclass
class ProcessRecord:
    """A process of a container."""

    name: str
    """The exec's id; empty for the init."""
    state: str
    """``supervisor.task.state.State``, its value."""
    begun: bool = False
    """Whether the next step had been begun: its creation, or its start."""
    attempts: int = 0
    """How often it had been, by supervisors that ended over it and by the last one."""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    spec: dict[str, Any] | None = None
    """``process`` of the runtime specification, of an exec; once that runs, its ``args`` only. The init's is in its
    bundle."""
    key: str = ""
    """The worker's name with its fork server; empty: there is none yet."""
    pid: int = 0
    start: int = 0
    """Start time in clock ticks since boot; with the pid it names the process for good (proc_pid_stat(5))."""
    handled: Sequence[int] = ()
    """Signals that the app handles itself."""
    alone: bool = False
    """Whether the app is one process, whatever it does."""
    emulates_signals: bool = False
    dying: bool = False
    """Whether it was sent SIGKILL."""
    killed_by: int = 0
    """The signal that a SIGKILL stood for."""
    created_at: int = 0
    """Nanoseconds since the epoch, as all times."""
    started_at: int = 0
    code: int | None = None
    """Its exit code, once it has ended."""
    exited_at: int = 0
    logger: Sequence[int] = ()
    """Of a logging program: pid and start time."""


@dataclass(frozen=True)
class DeletedExec:
    """An exec that is gone, for a Delete that is asked for again."""

    name: str
    pid: int
    code: int
    exited_at: int


@dataclass(frozen=True)
class Published:
    """The event that tells of what was recorded with it."""

    number: int
    """In the order of all events for its containerd."""
    message: str
    """The name of its type in ``shimd.api.containerd.events``."""
    data: str
    """The event, base64."""
    at: int
    """When it happened; nanoseconds since the epoch."""


@dataclass
class TaskRecord:
    """A container with all its processes."""

    engine: str
    namespace: str
    events_address: str
    grpc_address: str
    id: str
    bundle: str
    systemd: bool = False
    runtime: str = "runc"
    rootfs: Sequence[Mapping[str, object]] = ()
    """Mounts, as ``oci.RootfsMount``."""
    has_cgroup: bool = False
    """Whether its cgroup was made, or might have been."""
    scope: bool = False
    """Whether that is a unit of systemd's."""
    native: bool = False
    """Whether a native runtime has made it."""
    may_be_frozen: bool = False
    killed: int = 0
    """Processes that the kernel has killed for memory, as far as it was told."""
    processes: Sequence[ProcessRecord] = field(default=(), metadata={ITEMS: ProcessRecord})
    """The init first."""
    deleted: Sequence[DeletedExec] = field(default=(), metadata={ITEMS: DeletedExec})
    """The latest last."""
    published: Sequence[Published] = field(default=(), metadata={ITEMS: Published})
    """None, or the one that came with the last change."""


@dataclass(frozen=True)
class EndpointRecord:
    """A task socket that a containerd knows."""

    engine: str
    namespace: str
    events_address: str
    grpc_address: str


Record: TypeAlias = TaskRecord | EndpointRecord
decode_record = Decoder[Record](TaskRecord, EndpointRecord, foreign=True)


def name_of(record: Record) -> str:
    """The name of a record's file."""
    match record:
        case TaskRecord():
            return task_name(record.engine, record.events_address, record.namespace, record.id)
        case EndpointRecord():
            return f"endpoint-{_digest(record.engine, record.events_address, record.namespace)}"


def task_name(engine: str, events_address: str, namespace: str, id: str) -> str:
    """The name of a container's file."""
    return f"task-{_digest(engine, events_address, namespace, id)}"


@lru_cache(4096)
def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:24]
