"""containerd's Task service (``containerd.task.v2`` and ``v3``: the same 17 methods), as far as a message goes.

Each method finds the container, lets it act, and answers; what it means stands in ``container.py``. One service serves
one (engine, containerd, containerd namespace).
"""

import json
import os
import signal
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as AnyJson

import anyio

import shimd
from shimd import oci
from shimd.api.containerd.runc.v1 import ProcessDetails
from shimd.api.containerd.task import v3 as api
from shimd.api.containerd.types import Mount
from shimd.api.containerd.v1.types import ProcessInfo, Status
from shimd.api.google.protobuf import Any, Empty
from shimd.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ShimdError,
    Unavailable,
    Unimplemented,
    from_os,
)
from shimd.log import logger
from shimd.protocol.journal import DeletedExec, TaskRecord
from shimd.rpc import replayed
from shimd.supervisor.shortage import done_once_there_is_room
from shimd.supervisor.task import bundle as bundle_files
from shimd.supervisor.task import options
from shimd.supervisor.task.container import Container, Earlier
from shimd.supervisor.task.context import Context
from shimd.supervisor.task.metrics import metrics
from shimd.supervisor.task.process import Exit, Process
from shimd.supervisor.task.state import State
from shimd.supervisor.task.stdio import Streams
from shimd.timestamp import timestamp
from shimd.typeurl import pack

_log = logger(__name__)
#: Seconds after which a Delete that was done is taken for answered: or twice as many, with others.
_ANSWERED = 1.0
#: Supervisors that may end while they make one and the same thing, which may be why.
_ATTEMPTS = 6
_STATUS = {
    State.CREATING: Status.CREATED,
    State.ADDED: Status.CREATED,
    State.CREATED: Status.CREATED,
    State.RUNNING: Status.RUNNING,
    State.PAUSED: Status.PAUSED,
    State.STOPPED: Status.STOPPED,
    State.DELETED: Status.STOPPED,
}


@dataclass
class _HalfMade:
    """A container that an earlier supervisor had begun with: until it is made anew, or nobody asks for that."""

    container: Container
    undone: anyio.Event = field(default_factory=anyio.Event)
    is_gone: bool = False
    """Whether nothing is left of it."""


class TaskService(api.TaskBase):
    """The containers of one context, by id."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.containers: dict[str, Container] = {}
        self._creating: set[str] = set()
        self._half_made: dict[str, _HalfMade] = {}
        self._all_replayed = False
        self._gone: dict[str, TaskRecord] = {}
        """Containers that it had deleted, for requests that it did not live to answer."""
        self._deleted: list[TaskRecord] = []
        """Those that we have, and that are not answered for certain."""
        self._forgetting = False

    def recover(self, record: TaskRecord, earlier: Earlier) -> None:
        """Go on with a container of an earlier supervisor.

        :raises NotFound: a launcher has cleaned up after it while no daemon ran, and containerd knows
        :raises ShimdError: it cannot be gone on with
        :raises OSError: not now
        """
        state = State(record.processes[0].state)
        if state is State.DELETED:
            self._gone[record.id] = record
            return
        if state not in (State.CREATING, State.STOPPED) and not bundle_files.has_record(Path(record.bundle)):
            raise NotFound("its launcher has cleaned up after it")
        container = Container.recovered(self._context, record, earlier)
        if state is State.CREATING:
            self._half_made[record.id] = _HalfMade(container)
        else:
            container.go_on()
            self.containers[record.id] = container

    def undo(self, *, all_known: bool) -> None:
        """What an earlier supervisor was making when it ended is over: remove what is left.

        :param all_known: whether the workers of all this are gone: nobody knows whose they are that no record claims,
            where records cannot be read. Then it is a later supervisor's to do
        """
        for half_made in self._half_made.values():
            if all_known:
                self._context.tasks.start_soon(self._undo, half_made)
            else:
                half_made.undone.set()

    def recovered(self) -> None:
        """All requests that the earlier supervisor had begun with have been begun with again."""
        for record in self._gone.values():
            self._forget(record)
        self._gone.clear()
        for container in self.containers.values():
            container.close_earlier_streams()
        self._all_replayed = True
        for id in list(self._half_made):
            self._settle(id)

    async def _undo(self, half_made: "_HalfMade") -> None:
        container = half_made.container
        try:
            await done_once_there_is_room(container.undo, f"container {container.id}: removing what was made of it")
            half_made.is_gone = True
        except (ShimdError, OSError) as error:
            _log.error("container %s: what was made of it cannot be removed: %s", container.id, error)
        finally:
            half_made.undone.set()
            if self._all_replayed:
                self._settle(container.id)

    def _settle(self, id: str) -> None:
        """Once it has been made anew, or will not be."""
        half_made = self._half_made.get(id)
        if half_made is None or id in self._creating or not half_made.undone.is_set():
            return
        del self._half_made[id]
        half_made.container.close_earlier_streams()
        if half_made.is_gone:
            self._forget(half_made.container.record())

    async def _attempts(self, id: str) -> int:
        """How often earlier supervisors have tried to make it, of which nothing is left.

        :raises Unavailable: it shall not be tried again
        """
        half_made = self._half_made.get(id)
        if half_made is None:
            return 0
        await half_made.undone.wait()
        attempts = half_made.container.init.attempts
        if not half_made.is_gone:
            raise Unavailable(f"container {id}: shimd was restarted while it was being created, and something is left")
        if replayed() and attempts >= _ATTEMPTS:
            raise Unavailable(f"container {id}: shimd was restarted {attempts} times while it was being created")
        return attempts

    @property
    def is_needed(self) -> bool:
        """Whether there are containers, or will be, or something is left of them."""
        return bool(self.containers or self._creating or self._half_made)

    def _container(self, id: str) -> Container:
        try:
            return self.containers[id]
        except KeyError:
            raise NotFound(f"container {id} does not exist") from None

    def _process(self, id: str, exec_id: str) -> Process:
        return self._container(id).process(exec_id)

    async def create(self, message: api.CreateTaskRequest) -> api.CreateTaskResponse:
        id = message.id
        if replayed() and id in self.containers:
            return api.CreateTaskResponse(pid=self.containers[id].init.pid)
        if id in self.containers or id in self._creating:
            raise AlreadyExists(f"container {id} exists already")
        if message.checkpoint:
            raise Unimplemented(f"container {id}: WebAssembly apps cannot be restored from a checkpoint")
        self._creating.add(id)
        try:
            attempts = await self._attempts(id)
            container = await Container.create(
                self._context,
                id,
                Path(message.bundle),
                _mounts(message.rootfs),
                _streams(message),
                options.parse(message.options),
                attempts if replayed() else 0,
            )
            self.containers[id] = container
        except (ShimdError, OSError) as error:
            raise _named(error, id) from error
        finally:
            self._creating.discard(id)
            self._settle(id)
        return api.CreateTaskResponse(pid=container.init.pid)

    async def start(self, message: api.StartRequest) -> api.StartResponse:
        container = self._container(message.id)
        if replayed() and (pid := await self._started_before(container, message.exec_id)):
            return api.StartResponse(pid=pid)
        try:
            return api.StartResponse(pid=await container.start(message.exec_id))
        except (ShimdError, OSError) as error:
            raise _named(error, message.id) from error

    async def _started_before(self, container: Container, exec_id: str) -> int:
        """The pid of a process that an earlier supervisor has started; 0: it has not.

        :raises Unavailable: it was about to
        """
        process = container.process(exec_id)
        if exec_id in container.interrupted:
            raise Unavailable(
                f"container {container.id}: shimd was restarted while {exec_id} was being started: start it again"
            )
        if process.state is State.ADDED and process.attempts >= _ATTEMPTS:
            attempts, process.attempts = process.attempts, 0
            raise Unavailable(
                f"container {container.id}: shimd was restarted {attempts} times while {exec_id} was being started"
            )
        async with process.starting:  # by us, perhaps, once more
            pass
        if process.state in (State.ADDED, State.CREATED):
            return 0
        await container.finish_start(process)
        return process.pid

    async def delete(self, message: api.DeleteRequest) -> api.DeleteResponse:
        if replayed() and (deleted := self._deleted_before(message)) is not None:
            return deleted
        container = self._container(message.id)
        process = await container.delete(message.exec_id)
        if process is container.init:
            self.containers.pop(message.id, None)
            self._forget_soon(container.record())
        return api.DeleteResponse(pid=process.pid, **_exit(process))

    def _forget_soon(self, deleted: TaskRecord) -> None:
        self._deleted.append(deleted)
        if not self._forgetting:
            self._forgetting = True
            self._context.tasks.start_soon(self._forget_answered)

    async def _forget_answered(self) -> None:
        """All of a moment at once."""
        while answered := self._deleted:
            self._deleted = []
            await anyio.sleep(_ANSWERED)
            for record in answered:
                self._forget(record)
        self._forgetting = False

    def _forget(self, record: TaskRecord) -> None:
        if record.id not in self.containers and record.id not in self._creating:  # there is no other of its name
            self._context.forget(record)

    def _deleted_before(self, message: api.DeleteRequest) -> api.DeleteResponse | None:
        if not message.exec_id:
            gone = self._gone.get(message.id)
            if gone is None:
                return None
            init = gone.processes[0]
            found = DeletedExec("", init.pid, init.code or 0, init.exited_at)
        elif container := self.containers.get(message.id):
            exec = None if message.exec_id in container.execs else container.deleted_exec(message.exec_id)
            if exec is None:
                return None
            found = exec
        else:
            return None
        exited_at = timestamp(found.exited_at) if found.exited_at else None
        return api.DeleteResponse(pid=found.pid, exit_status=found.code, exited_at=exited_at)

    async def abandon(self, container: Container) -> Exit:
        """End a container that containerd has given up; containerd itself tells of its deletion."""
        with suppress(NotFound):
            await container.kill("", signal.SIGKILL, everything=True)
        await container.init.exited.wait()
        await container.delete("", tell=False)
        self.containers.pop(container.id, None)
        self._forget_soon(container.record())
        assert container.init.exit is not None
        return container.init.exit

    async def pids(self, message: api.PidsRequest) -> api.PidsResponse:
        container = self._container(message.id)
        execs = {process.pid: process.name for process in container.execs.values()}
        return api.PidsResponse(
            processes=[
                ProcessInfo(pid=pid, info=pack(ProcessDetails(exec_id=execs[pid])) if pid in execs else None)
                for pid in container.pids()
            ]
        )

    async def state(self, message: api.StateRequest) -> api.StateResponse:
        container = self._container(message.id)
        process = container.process(message.exec_id)
        streams = process.streams
        return api.StateResponse(
            id=process.name or container.id,
            bundle=str(container.bundle),
            pid=process.pid,
            status=_STATUS[process.state],
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
            exec_id=process.name,
            **_exit(process),
        )

    async def pause(self, message: api.PauseRequest) -> Empty:
        container = self._container(message.id)
        if not (replayed() and container.init.state is State.PAUSED):
            await container.pause()
        return Empty()

    async def resume(self, message: api.ResumeRequest) -> Empty:
        container = self._container(message.id)
        if not (replayed() and container.init.state is State.RUNNING):
            await container.resume()
        return Empty()

    async def checkpoint(self, message: api.CheckpointTaskRequest) -> Empty:
        self._container(message.id)
        raise Unimplemented(f"container {message.id}: WebAssembly apps cannot be checkpointed")

    async def kill(self, message: api.KillRequest) -> Empty:
        container = self._container(message.id)
        with suppress(NotFound) if replayed() else nullcontext():  # it may have ended of that very signal
            await container.kill(message.exec_id, message.signal, message.all)
        return Empty()

    async def exec(self, message: api.ExecProcessRequest) -> Empty:
        if replayed() and message.exec_id in self._container(message.id).execs:
            return Empty()
        spec: oci.Process = _json(message.spec, f"exec {message.exec_id}")
        spec["terminal"] = message.terminal
        await self._container(message.id).add_exec(message.exec_id, spec, _streams(message))
        return Empty()

    async def resize_pty(self, message: api.ResizePtyRequest) -> Empty:
        process = self._process(message.id, message.exec_id)
        if process.stdio is None:
            raise FailedPrecondition(f"process {message.exec_id} of container {message.id} is not running")
        process.stdio.resize(message.height, message.width)
        return Empty()

    async def close_io(self, message: api.CloseIoRequest) -> Empty:
        process = self._process(message.id, message.exec_id)
        if message.stdin and process.stdio is not None:
            process.stdio.close_stdin()
        return Empty()

    async def update(self, message: api.UpdateTaskRequest) -> Empty:
        await self._container(message.id).update(_json(message.resources, "resources"))
        return Empty()

    async def wait(self, message: api.WaitRequest) -> api.WaitResponse:
        process = self._process(message.id, message.exec_id)
        await process.exited.wait()
        return api.WaitResponse(**_exit(process))

    async def stats(self, message: api.StatsRequest) -> api.StatsResponse:
        cgroup = self._container(message.id).cgroup
        if cgroup is None:
            raise NotFound(f"container {message.id} has no cgroup")
        return api.StatsResponse(stats=pack(metrics(cgroup.stats())))

    async def connect(self, message: api.ConnectRequest) -> api.ConnectResponse:
        container = self.containers.get(message.id)
        pid = container.init.pid if container else 0
        return api.ConnectResponse(shim_pid=os.getpid(), task_pid=pid, version=shimd.__version__)

    async def shutdown(self, message: api.ShutdownRequest) -> Empty:
        """Comes after every Delete, for a shim of one's own. This one is shared: it stays."""
        return Empty()


def _named(error: ShimdError | OSError, id: str) -> ShimdError:
    """The same error, naming the container."""
    plain = from_os(error) if isinstance(error, OSError) else error
    return type(plain)(f"container {id}: {plain}")


def _exit(process: Process) -> dict[str, AnyJson]:
    exit = process.exit
    return {"exit_status": exit.code, "exited_at": timestamp(exit.at)} if exit else {}


def _streams(message: api.CreateTaskRequest | api.ExecProcessRequest) -> Streams:
    return Streams(message.stdin, message.stdout, message.stderr, message.terminal)


def _mounts(rootfs: list[Mount]) -> list[oci.RootfsMount]:
    return [
        oci.RootfsMount(type=mount.type, source=mount.source, target=mount.target, options=list(mount.options))
        for mount in rootfs
    ]


def _json(packed: Any | None, where: str) -> AnyJson:
    """A runtime-spec structure, which containerd packs as JSON."""
    try:
        value = json.loads(packed.value if packed else b"")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{where}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: not a JSON object")
    return value
