"""A container: its processes, its cgroup, and what happens to them.

Every method either does the whole of what it says, or raises a ShimdError and leaves nothing of it behind.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from shimd import oci
from shimd.api.containerd.events import (
    TaskCreate,
    TaskDelete,
    TaskExecAdded,
    TaskExecStarted,
    TaskExit,
    TaskIo,
    TaskOom,
    TaskPaused,
    TaskResumed,
    TaskStart,
)
from shimd.api.containerd.types import Mount
from shimd.cgroup import Cgroup
from shimd.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ShimdError
from shimd.log import logger
from shimd.task import bundle as bundle_files
from shimd.task.context import Context
from shimd.task.process import Process
from shimd.task.seccomp import worker_filter
from shimd.task.spawn import spawn
from shimd.task.state import State, Step
from shimd.task.stdio import Stdio, Streams
from shimd.task.timestamp import timestamp
from shimd.worker.messages import Plan

_log = logger(__name__)


class Container:
    """Made by :meth:`create`; its requests are serialised by ``_lock`` where their order matters."""

    def __init__(self, context: Context, id: str, bundle: Path, spec: oci.Spec, streams: Streams) -> None:
        self.context = context
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.rootfs: list[oci.RootfsMount] = []
        self.cgroup: Cgroup | None = None
        self.init = Process("", spec["process"], streams)
        self.execs: dict[str, Process] = {}
        self._lock = anyio.Lock()
        self._watch = anyio.CancelScope()

    # Create, and its undoing

    @classmethod
    async def create(
        cls, context: Context, id: str, bundle: Path, rootfs: list[oci.RootfsMount], streams: Streams, systemd: bool
    ) -> "Container":
        """Set everything up, as far as the guest's first instruction.

        :raises ShimdError: what could not be set up; all that was is gone again
        """
        self = cls(context, id, bundle, oci.load_spec(bundle), streams)
        self.rootfs = rootfs
        try:
            self.cgroup = await to_thread.run_sync(self._make_cgroup, systemd)
            await self._spawn(self.init, self._init_plan())
            bundle_files.write_record(bundle, self.init.pid, self._worker_start, self.cgroup.directories)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._undo()
            raise
        self.init.state = State.CREATED
        context.publish(self._created(rootfs))
        context.tasks.start_soon(self._monitor, self.init)
        context.tasks.start_soon(self._watch_memory)
        return self

    def _make_cgroup(self, systemd: bool) -> Cgroup:
        linux = self.spec.get("linux", {})
        path = linux.get("cgroupsPath") or f"/{self.context.namespace}/{self.id}"
        return Cgroup.create(path, linux.get("resources", {}), systemd=systemd)

    def _init_plan(self) -> Plan:
        assert self.cgroup is not None
        return Plan(
            kind="init",
            id=self.id,
            bundle=str(self.bundle),
            spec=self.spec,
            process=self.init.spec,
            rootfs=self.rootfs,
            cgroup=list(self.cgroup.directories),
            unified=self.cgroup.unified,
            terminal=self.init.streams.terminal,
            pidns=_pid_namespace(self.spec),
            seccomp=worker_filter(self.spec),
        )

    async def _spawn(self, process: Process, plan: Plan) -> None:
        size = process.spec.get("consoleSize", {"height": 0, "width": 0})
        process.stdio = await Stdio.open(
            process.streams, self.id, self.context.namespace, (size["height"], size["width"])
        )
        process.emulate_signals = plan.get("pidns") == "new"
        try:
            process.worker = await spawn(self.context, self.id, plan, process.stdio.fds)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await process.stdio.close()
            raise
        process.stdio.handed_over(self.context.tasks)

    @property
    def _worker_start(self) -> int:
        assert self.init.worker is not None
        return self.init.worker.start

    async def _undo(self) -> None:
        if self.init.worker is not None:
            await self._end(self.init)
        await self._remove_cgroup()
        bundle_files.remove_record(self.bundle)

    async def _end(self, process: Process) -> None:
        """Kill a worker whose process never came to be, and forget it."""
        assert process.worker is not None
        with suppress(NotFound):
            process.kill(9)
        await process.worker.exited.wait()
        await self._release_worker(process)

    async def _remove_cgroup(self) -> None:
        if self.cgroup is None:
            return
        try:
            await to_thread.run_sync(self.cgroup.remove)
        except OSError as error:  # a container must be deletable, whatever somebody else put into its cgroup
            _log.error("container %s: its cgroup cannot be removed: %s", self.id, error)

    async def _forget(self, process: Process) -> None:
        assert process.worker is not None
        with suppress(ShimdError):  # a fork server that died has forgotten already
            await (await self.context.forks()).forget(process.worker)

    # Life

    def process(self, exec_id: str) -> Process:
        """:raises NotFound: no such exec"""
        if not exec_id:
            return self.init
        try:
            return self.execs[exec_id]
        except KeyError:
            raise NotFound(f"process {exec_id} of container {self.id} does not exist") from None

    async def start(self, exec_id: str) -> int:
        """Let the guest run; returns the pid."""
        process = self.process(exec_id)
        async with self._lock:
            if process is not self.init and process.state is None:
                await self._start_exec(process)
            else:
                self._release(process)
                self.context.publish(TaskStart(container_id=self.id, pid=process.pid))
        return process.pid

    def _release(self, process: Process) -> None:
        # No await between the state, the worker and the event: an exit must find the start published.
        process.take(Step.START)
        assert process.worker is not None
        process.worker.send({"op": "start"})

    async def _start_exec(self, process: Process) -> None:
        if self.init.state is not State.RUNNING:
            raise FailedPrecondition(f"container {self.id} is not running")
        await self._spawn(process, self._exec_plan(process))
        process.state = State.CREATED
        self._release(process)
        self.context.publish(TaskExecStarted(container_id=self.id, exec_id=process.name, pid=process.pid))
        self.context.tasks.start_soon(self._monitor, process)

    def _exec_plan(self, process: Process) -> Plan:
        assert self.cgroup is not None
        return Plan(
            kind="exec",
            id=f"{self.id}/{process.name}",
            bundle=str(self.bundle),
            spec=self.spec,
            process=process.spec,
            cgroup=list(self.cgroup.directories),
            unified=self.cgroup.unified,
            init_pid=self.init.pid,
            terminal=process.streams.terminal,
            pidns=f"/proc/{self.init.pid}/ns/pid" if _pid_namespace(self.spec) else None,
            seccomp=worker_filter(self.spec),
        )

    async def add_exec(self, exec_id: str, spec: oci.Process, streams: Streams) -> None:
        """Register a process to be started by :meth:`start`."""
        oci.check_process(spec, f"exec {exec_id}")
        async with self._lock:
            if exec_id in self.execs:
                raise AlreadyExists(f"process {exec_id} of container {self.id} exists already")
            if self.init.state is not State.RUNNING:
                raise FailedPrecondition(f"container {self.id} is not running")
            self.execs[exec_id] = Process(exec_id, spec, streams)
        self.context.publish(TaskExecAdded(container_id=self.id, exec_id=exec_id))

    async def kill(self, exec_id: str, number: int, everything: bool) -> None:
        """Deliver a signal to a process, or to all processes of the container."""
        process = self.process(exec_id)
        try:
            process.kill(number)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
        if everything:
            for other in self.execs.values():
                with suppress(NotFound):
                    other.kill(number)
        if self.init.state is State.PAUSED and number == 9:
            await self._thaw()  # a frozen process does not die

    async def _thaw(self) -> None:
        if self.cgroup is not None:
            await to_thread.run_sync(self.cgroup.thaw)

    async def pause(self) -> None:
        async with self._lock:
            self.init.take(Step.PAUSE)
            assert self.cgroup is not None
            try:
                await to_thread.run_sync(self.cgroup.freeze)
            except BaseException:
                if self.init.state is State.PAUSED:
                    self.init.take(Step.RESUME)
                raise
        self.context.publish(TaskPaused(container_id=self.id))

    async def resume(self) -> None:
        async with self._lock:
            self.init.take(Step.RESUME)
            await self._thaw()
        self.context.publish(TaskResumed(container_id=self.id))

    async def update(self, resources: dict[str, Any]) -> None:
        """Change the cgroup's limits (``linux.resources`` of the runtime spec)."""
        async with self._lock:
            if self.cgroup is None or self.init.state is State.STOPPED:
                raise FailedPrecondition(f"container {self.id} is not running")
            await to_thread.run_sync(self.cgroup.apply, resources)

    def pids(self) -> list[int]:
        """All processes; the init's pid until Delete (containerd 2.x reaps a stopped task that has none)."""
        found = self.cgroup.pids() if self.cgroup is not None else []
        return sorted({*found, self.init.pid})

    # Exit

    async def _monitor(self, process: Process) -> None:
        """Wait for a process's exit and tell everybody: execs before the init that they lived under."""
        assert process.worker is not None
        await process.worker.exited.wait()
        if process is self.init:
            await self._end_execs()
            self._watch.cancel()
        exit = process.has_exited()
        process.exited.set()
        self.context.publish(
            TaskExit(
                container_id=self.id,
                id=process.name or self.id,
                pid=process.pid,
                exit_status=exit.code,
                exited_at=timestamp(exit.at),
            )
        )

    async def _end_execs(self) -> None:
        for process in list(self.execs.values()):
            if process.worker is not None:
                with suppress(NotFound):
                    process.kill(9)
                await process.exited.wait()

    async def _watch_memory(self) -> None:
        """Tell of each time the kernel killed something for memory."""
        assert self.cgroup is not None
        with self._watch:
            async for _kill in self.cgroup.oom_kills():
                self.context.publish(TaskOom(container_id=self.id))

    # Delete

    async def delete(self, exec_id: str) -> Process:
        """Remove a process that has stopped, and with the init the container.

        :raises FailedPrecondition: it runs
        """
        process = self.process(exec_id)
        async with self._lock:
            await self._stop_created(process)
            if process.state is None:
                process.state = State.STOPPED
            process.take(Step.DELETE)
            with anyio.CancelScope(shield=True):  # from here on it is deleted, whether or not the caller still waits
                await self._discard(process)
        return process

    async def _discard(self, process: Process) -> None:
        await self._release_worker(process)
        if process is not self.init:
            del self.execs[process.name]
            return
        for other in self.execs.values():  # execs that nobody deleted end with their container
            await self._release_worker(other)
        self.execs.clear()
        await self._remove_cgroup()
        bundle_files.remove_record(self.bundle)

    async def _release_worker(self, process: Process) -> None:
        if process.worker is not None and process.stdio is not None:
            await self._forget(process)
            await process.stdio.close()

    async def _stop_created(self, process: Process) -> None:
        """A process that was never started may be deleted at once (as runc does)."""
        if process is self.init and process.state is State.CREATED:
            with suppress(NotFound):
                process.kill(9)
            await process.exited.wait()

    def deleted(self) -> TaskDelete:
        exit = self.init.exit
        return TaskDelete(
            container_id=self.id,
            pid=self.init.pid,
            exit_status=exit.code if exit else 0,
            exited_at=timestamp(exit.at) if exit else None,
        )

    def _created(self, rootfs: list[oci.RootfsMount]) -> TaskCreate:
        streams = self.init.streams
        return TaskCreate(
            container_id=self.id,
            bundle=str(self.bundle),
            rootfs=[Mount(**mount) for mount in rootfs],
            io=TaskIo(stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr, terminal=streams.terminal),
            checkpoint="",
            pid=self.init.pid,
        )


def _pid_namespace(spec: oci.Spec) -> str | None:
    """``new``, the path of one to join, or ``None`` for the host's."""
    for namespace in spec.get("linux", {}).get("namespaces", []):
        if namespace["type"] == "pid":
            return namespace.get("path") or "new"
    return None
