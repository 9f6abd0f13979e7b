"""A container: its processes, its cgroup, and what happens to them.

Every method either does the whole of what it says, or raises a ShimdError and leaves nothing of it behind.
"""

import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import anyio
from betterproto2 import Message

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
from shimd.formats.magic import NativeProgram
from shimd.isolation.seccomp import worker_filter
from shimd.log import logger
from shimd.protocol.journal import DeletedExec, ProcessRecord, TaskRecord, task_name
from shimd.protocol.worker import Start
from shimd.supervisor.task import bundle as bundle_files
from shimd.supervisor.task import plans
from shimd.supervisor.task.context import Context
from shimd.supervisor.task.hooks import Hooks
from shimd.supervisor.task.native import Native
from shimd.supervisor.task.options import Options
from shimd.supervisor.task.process import Process
from shimd.supervisor.task.spawn import spawn
from shimd.supervisor.task.state import State, Step
from shimd.supervisor.task.stdio import OPENED, Kept, Stdio, Streams
from shimd.supervisor.threads import in_thread
from shimd.supervisor.tracing.steps import step
from shimd.supervisor.workers.fork_client import Worker
from shimd.supervisor.workers.jailers import During, nothing
from shimd.timestamp import timestamp

_log = logger(__name__)
#: Seconds for undoing what failed, whoever is cancelled.
_UNDO = 40.0
#: Seconds for the end of a process that was killed.
_DYING = 30.0
#: Seconds until memory is watched again, where something was short.
_PAUSE = 1.0
#: Execs that are gone and still known, for a Delete whose answer a supervisor did not live to give.
_DELETED_EXECS = 8


class Earlier(Protocol):
    """What an earlier supervisor has left."""

    def worker(self, record: ProcessRecord) -> Worker:
        """The worker of a process, whether or not it lives."""
        ...

    def take(self, name: str) -> list[int] | None:
        """Descriptors that were kept (:meth:`Context.keep`), which are the caller's then."""
        ...


class Container:
    """Made by :meth:`create`; its requests are serialised by ``_lock`` where their order matters."""

    def __init__(self, context: Context, id: str, bundle: Path, spec: oci.Spec, streams: Streams) -> None:
        self.context = context
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.options = Options()
        self.rootfs: list[oci.RootfsMount] = []
        self.cgroup: Cgroup | None = None
        self.native: Native | None = None
        """What makes the processes, if the program is none for an engine."""
        self.hooks = Hooks(context, id, bundle, spec)
        """A native container's are its runtime's."""
        self.init = Process("", spec["process"], streams)
        self.execs: dict[str, Process] = {}
        self._lock = anyio.Lock(fast_acquire=True)
        self._watch = anyio.CancelScope()
        self._may_be_frozen = False
        """From the first pause on, whatever became of it and of what came after: one thaw too many is no harm."""
        self._killed = 0
        """Processes that the kernel has killed for memory, as far as we have told."""
        self.interrupted: set[str] = set()
        """Native execs whose start an earlier supervisor had begun, and not finished: they may run, or have run."""
        self._deleted: deque[DeletedExec] = deque(maxlen=_DELETED_EXECS)
        self._earlier_control: list[int] | None = None

    # Create, and its undoing

    @classmethod
    async def create(
        cls,
        context: Context,
        id: str,
        bundle: Path,
        rootfs: list[oci.RootfsMount],
        streams: Streams,
        options: Options,
        attempts: int = 0,
    ) -> "Container":
        """Set everything up, as far as the guest's first instruction.

        :param attempts: how often earlier supervisors have tried
        :raises ShimdError: what could not be set up; all that was is gone again
        """
        self = cls(context, id, bundle, oci.load_spec(bundle), streams)
        self.rootfs, self.options = rootfs, options
        self.init.attempts = attempts
        self.init.begin()
        context.commit(self.record(), required=True)
        self.hooks.begin()
        try:
            await self._make_init(options)
            assert self.cgroup is not None
            native = self.native.state if self.native is not None else None
            bundle_files.write_record(bundle, self.init.pid, self._worker_start, self.cgroup.directories, native)
        except BaseException:
            with anyio.move_on_after(_UNDO, shield=True) as undoing:
                await self._undo()
            if undoing.cancelled_caught:
                _log.error("container %s: what was made of it could not be removed within %g s", id, _UNDO)
            await self.run_last_hooks()
            context.forget(self.record())
            raise
        self.init.advance(Step.CREATE)
        self._start_copying(self.init)
        self._keep_control()
        self._commit(self._created(rootfs))
        self.init.handed_over()
        context.tasks.start_soon(self._monitor, self.init)
        if not self._alone:
            context.tasks.start_soon(self._watch_memory)
        return self

    # Recovery

    @classmethod
    def recovered(cls, context: Context, record: TaskRecord, earlier: Earlier) -> "Container":
        """As an earlier supervisor knew it; :meth:`go_on` or :meth:`undo` it next.

        :raises ShimdError: its bundle cannot be read any more
        """
        bundle = Path(record.bundle)
        init, *execs = record.processes
        self = cls(context, record.id, bundle, oci.load_spec(bundle), Streams())
        self.options = Options(record.systemd, record.runtime)
        self.rootfs = [cast(oci.RootfsMount, mount) for mount in record.rootfs]
        self._may_be_frozen, self._killed = record.may_be_frozen, record.killed
        self._deleted.extend(record.deleted)
        if record.has_cgroup or init.state == State.CREATING.value:
            self.cgroup = context.cgroup(self._cgroups_path, systemd=record.systemd)
            self.cgroup.find(scope=record.scope)
        if record.native:
            self.native = Native(context, record.id, bundle, self.spec, self.options)
        self.init = self._recovered(init, self.spec["process"], earlier)
        for one in execs:
            self.execs[one.name] = self._recovered(one, cast(oci.Process, one.spec or {}), earlier)
        return self

    def _recovered(self, record: ProcessRecord, spec: oci.Process, earlier: Earlier) -> Process:
        process = Process.recorded(record, spec, earlier.worker(record) if record.key else None)
        if process.worker is not None:
            self.context.drop(self._kept(process).name(OPENED))  # it has them
            if process.name == "":
                self._earlier_control = earlier.take(self._control)
            process.stdio = Stdio.resumed(self._kept(process), earlier.take, record.logger)
        elif process.state in (State.CREATING, State.ADDED):
            process.earlier_streams = earlier.take(self._kept(process).name(OPENED)) or ()
            if process.begun and process.state is State.ADDED:
                process.begun = False
                if self.native is not None:
                    self.interrupted.add(process.name)
        return process

    def close_earlier_streams(self) -> None:
        """Of what is not being made anew: nobody has asked for it."""
        for process in (self.init, *self.execs.values()):
            if not process.asked_for:
                self._close_earlier_streams(process)

    def _close_earlier_streams(self, process: Process) -> None:
        if process.earlier_streams:
            self.context.drop(self._kept(process).name(OPENED))
            for fd in process.earlier_streams:
                os.close(fd)
            process.earlier_streams = ()

    @property
    def _control(self) -> str:
        """The name of the connection by which a worker is told to start, which ends without any to it."""
        return self._kept(self.init).name("control")

    def _keep_control(self) -> None:
        worker = self.init.worker
        if worker is not None and worker.control is not None:
            self.context.keep_soon(self._control, [worker.control.fileno()])  # its fork server has it, too

    def _take_control(self) -> None:
        """In place of its fork server's, if that is gone."""
        worker, fds = self.init.worker, self._earlier_control
        if worker is None or fds is None:
            return
        control = socket.socket(fileno=fds[0])
        if worker.control is None and worker.status is None and self.init.state is State.CREATED:
            control.setblocking(False)
            worker.control = control
        else:
            control.close()
        if worker.control is not None:
            self._keep_control()
        else:
            self.context.drop(self._control)

    def go_on(self) -> None:
        """Go on where the earlier supervisor has ended."""
        processes = [one for one in (self.init, *self.execs.values()) if one.worker is not None]
        for process in processes:
            if process.stdio is not None:
                process.stdio.start(self.context.tasks)  # a terminal's output may end long after its process
        self._take_control()
        for process in processes:
            if process.stdio is None or process.exit is not None:
                continue
            if process.state is State.CREATED and process.begun:
                self._start_again(process)
            self.context.tasks.start_soon(self._monitor, process)
        if self.init.exit is None and not self._alone:
            self.context.tasks.start_soon(self._watch_memory)
        if self._may_be_frozen and self.init.state is not State.PAUSED:
            self.context.tasks.start_soon(self._thaw_half_paused)

    async def _thaw_half_paused(self) -> None:
        """A pause that was begun is done again by who asks for it again."""
        async with self._lock:
            if self.init.state is not State.PAUSED:
                await self._thaw_what_is_left()

    def _start_again(self, process: Process) -> None:
        """It may have been started: once more is no harm."""
        if self.native is not None and process is self.init:
            process.starting.acquire_nowait()  # before an exit is told of
            self.context.tasks.start_soon(self._start_native_again, self.native, process)
        else:
            with suppress(Unavailable):  # it runs, or has ended: it does not listen any more
                self._release(process)
                return
            self._has_started(process)

    async def _start_native_again(self, native: Native, process: Process) -> None:
        try:
            try:
                await native.start()
            except (ShimdError, OSError) as error:
                if not native.was_started:
                    _log.warning("container %s: it cannot be started again: %s", self.id, error)
                    process.begun = False
                    return
            self._has_started(process)
        finally:
            process.starting.release()

    async def undo(self) -> None:
        """Remove what an earlier supervisor had made of it when it ended, but for the record that it was to be made."""
        with anyio.move_on_after(_UNDO) as undoing:
            await self._undo()
        if undoing.cancelled_caught:
            _log.error("container %s: what was made of it could not be removed within %g s", self.id, _UNDO)
        await self.run_last_hooks()

    def record(self) -> TaskRecord:
        """All that the next supervisor has to know, if this is the end of this one."""
        return TaskRecord(
            engine=self.context.engine,
            namespace=self.context.namespace,
            events_address=self.context.events_address,
            grpc_address=self.context.grpc_address,
            id=self.id,
            bundle=str(self.bundle),
            systemd=self.options.systemd,
            runtime=self.options.runtime,
            rootfs=self.rootfs,
            has_cgroup=self.cgroup is not None,
            scope=self.cgroup is not None and self.cgroup.scope is not None,
            native=self.native is not None,
            may_be_frozen=self._may_be_frozen,
            killed=self._killed,
            processes=[self.init.record(), *(process.record() for process in self.execs.values())],
            deleted=list(self._deleted),
        )

    def _commit(self, event: Message | None = None) -> None:
        """Record what has happened, then tell of it; both or nothing, whenever this process ends."""
        self.context.commit(self.record(), event)

    async def _make_cgroup(self, cgroup: Cgroup) -> None:
        """In this thread, but for systemd's: handing it to another takes longer than making it (docs/design.md)."""
        resources = self.spec.get("linux", {}).get("resources", {})
        bundle_files.begin_record(self.bundle, cgroup.directories)
        if cgroup.asks_systemd:
            await in_thread(partial(cgroup.make, resources), "making the cgroup", undo=cgroup.remove)
        else:
            cgroup.make(resources)
        self.cgroup = cgroup

    async def _make_init(self, options: Options) -> None:
        cgroup = self.context.cgroup(self._cgroups_path, systemd=options.systemd)
        during: During = partial(self._make_cgroup, cgroup)
        if plans.shows_cgroup(self.spec):
            await during()
            during = nothing
        streams = self.init.streams
        plan = plans.init(self.id, self.bundle, self.spec, self.rootfs, cgroup, terminal=streams.terminal)
        self.init.emulate_signals = plan.emulates_signals
        async with self._opened(self.init):  # once only: a reader takes their being closed for the end
            try:
                self.init.worker = await spawn(
                    self.context,
                    self.id,
                    plan,
                    self._fds(self.init),
                    during,
                    partial(self._run_create_hooks, cgroup),
                )
            except NativeProgram:
                self.init.worker = await self._become_native(options)
        if cgroup.scope is not None:
            await in_thread(cgroup.has_processes, "giving systemd's scope over")

    @property
    def _cgroups_path(self) -> str:
        return self.spec.get("linux", {}).get("cgroupsPath") or f"/{self.context.namespace}/{self.id}"

    async def _run_create_hooks(self, cgroup: Cgroup, worker: Worker) -> None:
        """With a record of what they may leave in the cgroup, too."""
        bundle_files.write_record(self.bundle, worker.pid, worker.start, cgroup.directories)
        await self.hooks.creating(worker.pid, cgroup)

    async def _become_native(self, options: Options) -> Worker:
        """The worker found a program for the host, and is gone: the native runtime makes the container in its place."""
        self.init.emulate_signals = False
        assert self.cgroup is not None
        await in_thread(self.cgroup.give_up, "giving systemd's scope up")
        self.native = Native(self.context, self.id, self.bundle, self.spec, options)
        self._commit()
        return await self.native.create(self.init, self.rootfs)

    @asynccontextmanager
    async def _opened(self, process: Process) -> AsyncIterator[None]:
        """With the streams open, of which the process gets duplicates within."""
        size = process.spec.get("consoleSize", {"height": 0, "width": 0})
        process.stdio = await Stdio.open(
            process.streams, self.id, self.context.namespace, (size["height"], size["width"]), self._kept(process)
        )
        try:
            yield
        except BaseException:
            with anyio.move_on_after(_UNDO, shield=True):
                await process.stdio.close()
            raise

    def _start_copying(self, process: Process) -> None:
        if process.stdio is not None:
            process.stdio.start(self.context.tasks)

    def _kept(self, process: Process) -> Kept:
        context = self.context
        name = task_name(context.engine, context.events_address, context.namespace, self.id)
        return Kept(context, f"{name}:{process.name}")

    def _fds(self, process: Process) -> tuple[int, int, int]:
        assert process.stdio is not None
        return process.stdio.fds

    @property
    def _worker_start(self) -> int:
        assert self.init.worker is not None
        return self.init.worker.start

    async def _undo(self) -> None:
        if self.init.worker is not None:
            await self._end(self.init)
        await self._remove_what_is_left()

    async def _remove_what_is_left(self) -> None:
        if self.native is not None:
            await self.native.delete(forget=self.hooks.claim_last())
        await self._remove_cgroup()
        if not self._has_last_hooks:
            bundle_files.remove_record(self.bundle)

    @property
    def _has_last_hooks(self) -> bool:
        return self.native is None and self.hooks.are_last

    async def run_last_hooks(self) -> None:
        """poststop, once all else is gone. If nobody waits for them any more, the record stays, and the launcher's
        ``delete`` runs them."""
        if self._has_last_hooks:
            await self.hooks.stopped()
            bundle_files.remove_record(self.bundle)

    async def _end(self, process: Process) -> None:
        """Kill a worker whose process never came to be, and forget it."""
        assert process.worker is not None
        process.handed_over()  # whoever reads its output need not wait for it
        with suppress(NotFound):
            process.kill(9)
        await process.worker.exited.wait()
        await self._release_worker(process)

    async def _remove_cgroup(self) -> None:
        if self.cgroup is None:
            return
        try:
            if self.hooks.run_inside:
                await in_thread(self.cgroup.kill, "ending what hooks have left")
            if not self.cgroup.remove_at_once():
                await in_thread(self.cgroup.remove, "removing the cgroup")
        except OSError as error:  # a container must be deletable, whatever somebody else put into its cgroup
            _log.error("container %s: its cgroup cannot be removed: %s", self.id, error)

    async def _forget(self, process: Process) -> None:
        assert process.worker is not None
        with suppress(ShimdError):  # a fork server that died has forgotten already
            await process.worker.forks.forget(process.worker)

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
        process.asked_for = True
        async with self._lock:
            if process is self.init:
                await self._start_init(process)
            else:
                async with process.starting:
                    await self._start_exec(process)
        await self.finish_start(process)
        return process.pid

    async def finish_start(self, process: Process) -> None:
        """Once it runs: who wants to end it need not wait for its hooks."""
        if process is self.init and self.native is None:
            await self._unless_it_fails(self.hooks.started(process.pid))

    async def _start_init(self, process: Process) -> None:
        async with process.starting:
            process.check(Step.START)
            if self.native is None and self.hooks.run_before_start:
                await self._unless_it_fails(self._while_it_lives(self.hooks.starting(process.pid, self._own_cgroup)))
            process.begun = True
            self._commit()
            if self.native is not None:
                await self.native.start()
            self._release(process)

    async def _while_it_lives(self, hooks: Awaitable[None]) -> None:
        """Hooks that come to nothing once the container's process is gone.

        :raises FailedPrecondition: it is gone
        """
        worker = self.init.worker
        assert worker is not None
        outcome: ShimdError | OSError | None = FailedPrecondition(
            f"container {self.id} has ended while its startContainer hooks ran"
        )

        async def cancel(scope: anyio.CancelScope) -> None:
            await worker.exited.wait()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel, tasks.cancel_scope)
            try:
                await hooks
                outcome = None
            except (ShimdError, OSError) as error:
                outcome = error
            tasks.cancel_scope.cancel()
        if outcome is not None:  # raised here, since a task group would wrap it
            raise outcome

    async def _unless_it_fails(self, hooks: Awaitable[None]) -> None:
        """A container whose hooks fail is stopped."""
        try:
            await hooks
        except (ShimdError, OSError):
            with suppress(NotFound):
                self.init.kill(signal.SIGKILL)
            raise

    @property
    def _own_cgroup(self) -> Cgroup:
        assert self.cgroup is not None
        return self.cgroup

    def _release(self, process: Process) -> None:
        # No await between the worker, the state and the event: an exit must find the start published.
        assert process.worker is not None
        with step("run", pid=process.pid):
            if self.native is None:
                self._drop_control(process)
                process.worker.send(Start())
            self._has_started(process)

    def _drop_control(self, process: Process) -> None:
        if process is self.init:
            self.context.drop(self._control)

    def _has_started(self, process: Process) -> None:
        process.advance(Step.START)
        self._commit(self._started(process))

    def _started(self, process: Process) -> Message:
        if process is self.init:
            return TaskStart(container_id=self.id, pid=process.pid)
        return TaskExecStarted(container_id=self.id, exec_id=process.name, pid=process.pid)

    async def _start_exec(self, process: Process) -> None:
        if process.state is not State.ADDED:
            raise FailedPrecondition(f"process {process.name} of container {self.id} has been started already")
        if self.init.state is not State.RUNNING or self._is_over:
            raise FailedPrecondition(f"container {self.id} is not running")
        process.begin()
        self._commit()
        try:
            async with self._opened(process):
                worker = await self._make_exec(process)
                await self._end_without_init(worker)
                process.worker = worker
        except BaseException as error:
            process.begun, process.attempts = False, 0
            self._commit()
            if isinstance(error, ShimdError):
                self._tell_of_kills()  # that may be why
            raise
        finally:
            self._close_earlier_streams(process)
        process.advance(Step.CREATE)
        process.begun = True
        self._start_copying(process)
        self._commit()
        process.handed_over()
        self.context.tasks.start_soon(self._monitor, process)  # first: it may be gone already, and others wait for it
        self._release(process)

    async def _end_without_init(self, worker: Worker) -> None:
        """An exec's, which was made while the init ended: who ended the others knew nothing of it.

        :raises FailedPrecondition: so it is
        """
        if self._is_over:
            await worker.forks.end(worker)
            raise FailedPrecondition(f"container {self.id} is not running")

    @property
    def _is_over(self) -> bool:
        """Whether the init has ended, told or not."""
        return self.init.worker is not None and self.init.worker.status is not None

    async def _make_exec(self, process: Process) -> Worker:
        if self.native is not None:
            return await self.native.exec(process)
        assert self.cgroup is not None
        plan = plans.exec(
            f"{self.id}/{process.name}",
            self.spec,
            process.spec,
            self.cgroup,
            self.init.pid,
            terminal=process.streams.terminal,
            seccomp=worker_filter(self.spec),
        )
        return await spawn(self.context, self.id, plan, self._fds(process))

    async def add_exec(self, exec_id: str, spec: oci.Process, streams: Streams) -> None:
        """Register a process to be started by :meth:`start`."""
        oci.check_process(spec, f"exec {exec_id}")
        async with self._lock:
            if exec_id in self.execs:
                raise AlreadyExists(f"process {exec_id} of container {self.id} exists already")
            if self.init.state is not State.RUNNING:
                raise FailedPrecondition(f"container {self.id} is not running")
            self.execs[exec_id] = Process.added(exec_id, spec, streams)
        self._commit(TaskExecAdded(container_id=self.id, exec_id=exec_id))

    async def kill(self, exec_id: str, number: int, everything: bool) -> None:
        """Deliver a signal to a process, or to all processes of the container."""
        process = self.process(exec_id)
        try:
            if process.notes_signal(number):
                self._commit()
            process.kill(number)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
        if everything:
            self._kill_others(number)
        if number == signal.SIGKILL and self._may_be_frozen:
            with anyio.move_on_after(_UNDO, shield=True):
                await self._thaw()  # a frozen process does not die (cgroup-v1/freezer-subsystem.rst)

    def _kill_others(self, number: int) -> None:
        for other in self.execs.values():
            with suppress(NotFound):
                other.kill(number)
        if self.native is not None:  # whose processes have children
            known = {self.init.pid, *(other.pid for other in self.execs.values())}
            for pid in set(self.pids()) - known:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    async def _thaw(self) -> None:
        with suppress(Unimplemented, FileNotFoundError):  # no freezer, or no cgroup any more: nothing is frozen
            await in_thread(self._own_cgroup.thaw, "thawing the cgroup")

    async def pause(self) -> None:
        """Freeze all processes.

        :raises FailedPrecondition: it does not run, ends meanwhile, or cannot be frozen; then all that runs goes on
        """
        async with self._lock:
            self.init.check(Step.PAUSE)
            self._may_be_frozen = True
            self._commit()
            try:
                await in_thread(self._own_cgroup.freeze, "freezing the cgroup")
                self._refuse_to_freeze_the_dying()
                self.init.advance(Step.PAUSE)
            except BaseException:
                with anyio.move_on_after(_UNDO, shield=True):
                    await self._thaw_what_is_left()
                raise
            self._commit(TaskPaused(container_id=self.id))

    def _refuse_to_freeze_the_dying(self) -> None:
        """Refuse it: who kills it while it is being frozen finds no paused task to thaw.

        :raises FailedPrecondition: it was killed
        """
        if any(process.dying for process in (self.init, *self.execs.values()) if process.exit is None):
            raise FailedPrecondition(f"a process of container {self.id} was killed while it was to be paused")

    async def resume(self) -> None:
        """Let all processes go on.

        :raises FailedPrecondition: it is not paused
        """
        async with self._lock:
            self.init.check(Step.RESUME)
            await self._thaw()
            self.init.advance(Step.RESUME)
            self._commit(TaskResumed(container_id=self.id))

    async def update(self, resources: dict[str, Any]) -> None:
        """Change the cgroup's limits (``linux.resources`` of the runtime spec)."""
        async with self._lock:
            if self.cgroup is None or self.init.state is State.STOPPED:
                raise FailedPrecondition(f"container {self.id} is not running")
            await in_thread(partial(self.cgroup.apply, resources), "setting the cgroup's limits")

    def pids(self) -> list[int]:
        """All processes; the init's pid until Delete (containerd 2.x reaps a stopped task that has none)."""
        found = self.cgroup.pids() if self.cgroup is not None else []
        return sorted({*found, self.init.pid})

    # Exit

    async def _monitor(self, process: Process) -> None:
        """Wait for a process's exit and tell everybody: execs before the init that they lived under."""
        assert process.worker is not None
        await process.worker.exited.wait()
        for part in [self._tell_of_a_kill, *([self._end_rest] if process is self.init else [])]:
            try:
                await part(process)
            except Exception as error:  # its exit must be told, whatever has become of all else
                _log.error("container %s: not all could be done after an exit: %r", self.id, error)
        async with process.starting:
            pass
        exit = process.has_exited()
        process.exited.set()
        with step("exit", pid=process.pid, exit_status=exit.code):
            self._commit(
                TaskExit(
                    container_id=self.id,
                    id=process.name or self.id,
                    pid=process.pid,
                    exit_status=exit.code,
                    exited_at=timestamp(exit.at),
                )
            )

    async def _tell_of_a_kill(self, process: Process) -> None:
        if process.worker is not None and process.worker.status == signal.SIGKILL:
            self._tell_of_kills()

    async def _end_rest(self, _init: Process) -> None:
        self._watch.cancel()
        await self._thaw_what_is_left()
        await self._end_execs()
        await self._end_children()

    async def _thaw_what_is_left(self) -> None:
        """After a pause that failed; or a process of a paused container ended by itself, for want of memory say."""
        if self._may_be_frozen:
            try:
                await self._thaw()
            except (ShimdError, OSError) as error:
                _log.error("container %s: what is left of it cannot be thawed: %s", self.id, error)

    async def _end_execs(self) -> None:
        for process in list(self.execs.values()):
            if process.begun:  # it comes to be, or fails, since nothing is left to live in; no other is begun with
                with anyio.move_on_after(_DYING):
                    async with process.starting:
                        pass
            if process.worker is not None:
                await self._ended(process)

    async def _ended(self, process: Process) -> bool:
        """Kill a process; returns whether it has ended. The kernel may not let it, on a volume that does not answer."""
        with suppress(NotFound):
            process.kill(signal.SIGKILL)
        with anyio.move_on_after(_DYING):
            await process.exited.wait()
        if process.exit is None:
            _log.error("container %s: process %d was killed, and has not ended", self.id, process.pid)
        return process.exit is not None

    async def _end_children(self) -> None:
        """End the children of a native program in a pid namespace that is not its own, whose end is not theirs."""
        if self.native is None or plans.pid_namespace(self.spec) == "new":
            return
        try:
            await in_thread(self._own_cgroup.kill, "ending what its process has left")
        except (ShimdError, OSError) as error:  # its exit must be told, whatever has become of its cgroup
            _log.error("container %s: what its process left cannot be killed: %s", self.id, error)

    @property
    def _alone(self) -> bool:
        """Whether the kernel can kill nothing here but processes whose exit we are told of."""
        return self.init.worker is not None and self.init.worker.alone

    async def _watch_memory(self) -> None:
        """Tell of each time the kernel killed something for memory, where no exit may tell."""
        assert self.cgroup is not None
        with self._watch:
            while True:
                try:
                    async for _kill in self.cgroup.oom_kills():
                        self._tell_of_kills()
                    return
                except OSError as error:  # no descriptor left, say: those kills are told of later
                    _log.warning("container %s: its memory is not watched for now: %s", self.id, from_os(error))
                    await anyio.sleep(_PAUSE)

    def _tell_of_kills(self) -> None:
        """For memory, that are new."""
        count = self.cgroup.oom_count() if self.cgroup is not None else 0
        while self._killed < count:
            self._killed += 1
            self._commit(TaskOom(container_id=self.id))

    # Delete

    def deleted_exec(self, exec_id: str) -> DeletedExec | None:
        """One that was deleted not long ago."""
        return next((one for one in self._deleted if one.name == exec_id), None)

    async def delete(self, exec_id: str, *, tell: bool = True) -> Process:
        """Remove a process that has stopped, and with the init the container and what its last hooks do. It may be
        called again, whatever an earlier call came to.

        :param tell: whether containerd is told of the container's deletion, or tells of it itself
        :raises FailedPrecondition: it runs
        :raises NotFound: another call was first
        """
        process = self.process(exec_id)
        async with self._lock:
            await self._stop_created(process)
            if process.state is State.DELETED:  # by another call, which was before us
                raise NotFound(f"process {exec_id or self.id} of container {self.id} does not exist")
            process.check(Step.DELETE)
            with anyio.move_on_after(_UNDO, shield=True) as finishing:  # whether or not the caller still waits
                await self._discard(process)
            if finishing.cancelled_caught:
                raise Unavailable(f"what is left of container {self.id} could not be removed within {_UNDO:g} s")
            if process is self.init:
                await self.run_last_hooks()
            process.advance(Step.DELETE)
            self._commit(self._deletion() if tell and process is self.init else None)  # as with runc, of no exec's
        return process

    async def _discard(self, process: Process) -> None:
        await self._release_worker(process)
        if process is not self.init:
            if self.execs.pop(process.name, None) is process:
                code, at = (process.exit.code, process.exit.at) if process.exit else (0, 0)
                self._deleted.append(DeletedExec(process.name, process.pid, code, at))
            return
        for other in self.execs.values():  # execs that nobody deleted end with their container
            await self._release_worker(other)
        self.execs.clear()
        await self._remove_what_is_left()

    async def _release_worker(self, process: Process) -> None:
        self._close_earlier_streams(process)
        if process.worker is not None and process.stdio is not None:
            self._drop_control(process)
            await self._forget(process)
            await process.stdio.close()

    async def _stop_created(self, process: Process) -> None:
        """A process that was never started may be deleted at once (as runc does)."""
        if process.state is State.CREATED and not await self._ended(process):
            raise Unavailable(f"process {process.pid} of container {self.id} has not ended within {_DYING:g} s")

    def _deletion(self) -> TaskDelete:
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
