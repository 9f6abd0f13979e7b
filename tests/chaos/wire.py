"""containerd's own services, as far as chaos speaks to them: Tasks, Containers and the stream of events, over gRPC.

shimd needs no client of these, so what the messages are is written here by hand
(https://github.com/containerd/containerd/tree/main/api/services, tasks/v1 and events/v1).
"""

# ruff: noqa: RUF009 - fields are betterproto2's way to say what they are
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any as AnyType

import betterproto2
from betterproto2.grpclib import ServiceStub

from shimd.api.containerd.types import Envelope, Mount
from shimd.api.containerd.v1.types import Process
from shimd.api.google.protobuf import Any, Empty, Timestamp

_TASKS = "/containerd.services.tasks.v1.Tasks/"


def _string(number: int) -> str:
    return betterproto2.field(number, betterproto2.TYPE_STRING)  # type: ignore[no-any-return]


def _uint32(number: int) -> int:
    return betterproto2.field(number, betterproto2.TYPE_UINT32)  # type: ignore[no-any-return]


def _bool(number: int) -> bool:
    return betterproto2.field(number, betterproto2.TYPE_BOOL)  # type: ignore[no-any-return]


def _message(number: int) -> AnyType:
    return betterproto2.field(number, betterproto2.TYPE_MESSAGE, optional=True)


def _messages(number: int) -> AnyType:
    return betterproto2.field(number, betterproto2.TYPE_MESSAGE, repeated=True)


def _strings(number: int) -> AnyType:
    return betterproto2.field(number, betterproto2.TYPE_STRING, repeated=True)


@dataclass(eq=False, repr=False)
class Create(betterproto2.Message):
    container_id: str = _string(1)
    rootfs: "list[Mount]" = _messages(3)
    stdin: str = _string(4)
    stdout: str = _string(5)
    stderr: str = _string(6)
    terminal: bool = _bool(7)


@dataclass(eq=False, repr=False)
class Created(betterproto2.Message):
    container_id: str = _string(1)
    pid: int = _uint32(2)


@dataclass(eq=False, repr=False)
class Which(betterproto2.Message):
    """Start, DeleteProcess, Get and Wait; without an exec Delete, Pause, Resume and ListPids, too."""

    container_id: str = _string(1)
    exec_id: str = _string(2)


@dataclass(eq=False, repr=False)
class Started(betterproto2.Message):
    pid: int = _uint32(1)


@dataclass(eq=False, repr=False)
class Deleted(betterproto2.Message):
    id: str = _string(1)
    pid: int = _uint32(2)
    exit_status: int = _uint32(3)
    exited_at: "Timestamp | None" = _message(4)


@dataclass(eq=False, repr=False)
class Exited(betterproto2.Message):
    exit_status: int = _uint32(1)
    exited_at: "Timestamp | None" = _message(2)


@dataclass(eq=False, repr=False)
class Got(betterproto2.Message):
    process: "Process | None" = _message(1)


@dataclass(eq=False, repr=False)
class Filter(betterproto2.Message):
    filter: str = _string(1)


@dataclass(eq=False, repr=False)
class Filters(betterproto2.Message):
    filters: "list[str]" = _strings(1)


@dataclass(eq=False, repr=False)
class Listed(betterproto2.Message):
    tasks: "list[Process]" = _messages(1)


@dataclass(eq=False, repr=False)
class Kill(betterproto2.Message):
    container_id: str = _string(1)
    exec_id: str = _string(2)
    signal: int = _uint32(3)
    all: bool = _bool(4)


@dataclass(eq=False, repr=False)
class Exec(betterproto2.Message):
    container_id: str = _string(1)
    stdin: str = _string(2)
    stdout: str = _string(3)
    stderr: str = _string(4)
    terminal: bool = _bool(5)
    spec: "Any | None" = _message(6)
    exec_id: str = _string(7)


@dataclass(eq=False, repr=False)
class Resize(betterproto2.Message):
    container_id: str = _string(1)
    exec_id: str = _string(2)
    width: int = _uint32(3)
    height: int = _uint32(4)


@dataclass(eq=False, repr=False)
class CloseIo(betterproto2.Message):
    container_id: str = _string(1)
    exec_id: str = _string(2)
    stdin: bool = _bool(3)


@dataclass(eq=False, repr=False)
class Update(betterproto2.Message):
    container_id: str = _string(1)
    resources: "Any | None" = _message(2)


class Tasks(ServiceStub):
    """containerd.services.tasks.v1.Tasks"""

    async def create(self, message: Create) -> Created:
        return await self._unary_unary(_TASKS + "Create", message, Created)

    async def start(self, message: Which) -> Started:
        return await self._unary_unary(_TASKS + "Start", message, Started)

    async def delete(self, message: Which) -> Deleted:
        """Of a process, if the message names an exec."""
        return await self._unary_unary(_TASKS + ("DeleteProcess" if message.exec_id else "Delete"), message, Deleted)

    async def get(self, message: Which) -> Got:
        return await self._unary_unary(_TASKS + "Get", message, Got)

    async def list(self) -> Listed:
        return await self._unary_unary(_TASKS + "List", Filter(), Listed)

    async def kill(self, message: Kill) -> Empty:
        return await self._unary_unary(_TASKS + "Kill", message, Empty)

    async def exec(self, message: Exec) -> Empty:
        return await self._unary_unary(_TASKS + "Exec", message, Empty)

    async def resize(self, message: Resize) -> Empty:
        return await self._unary_unary(_TASKS + "ResizePty", message, Empty)

    async def close_io(self, message: CloseIo) -> Empty:
        return await self._unary_unary(_TASKS + "CloseIO", message, Empty)

    async def pause(self, message: Which) -> Empty:
        return await self._unary_unary(_TASKS + "Pause", message, Empty)

    async def resume(self, message: Which) -> Empty:
        return await self._unary_unary(_TASKS + "Resume", message, Empty)

    async def pids(self, message: Which) -> Empty:
        """Who they are is not looked at."""
        return await self._unary_unary(_TASKS + "ListPids", message, Empty)

    async def update(self, message: Update) -> Empty:
        return await self._unary_unary(_TASKS + "Update", message, Empty)

    async def metrics(self, message: Filters) -> Empty:
        return await self._unary_unary(_TASKS + "Metrics", message, Empty)

    async def wait(self, message: Which) -> Exited:
        return await self._unary_unary(_TASKS + "Wait", message, Exited)


class Events(ServiceStub):
    """containerd.services.events.v1.Events"""

    async def subscribe(self) -> AsyncIterator[Envelope]:
        async for envelope in self._unary_stream(
            "/containerd.services.events.v1.Events/Subscribe", Filters(), Envelope
        ):
            yield envelope


def microseconds(at: Timestamp | None) -> int:
    return at.seconds * 1_000_000 + at.nanos // 1000 if at else 0
