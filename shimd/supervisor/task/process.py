"""One process of a container: the init or an exec. Its state, its worker, its streams and its exit."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from shimd import oci
from shimd.errors import FailedPrecondition, NotFound, from_os
from shimd.protocol.journal import ProcessRecord
from shimd.supervisor.task.signals import Action, default_action
from shimd.supervisor.task.state import IllegalStep, State, Step, after
from shimd.supervisor.task.stdio import Stdio, Streams
from shimd.supervisor.workers.fork_client import Worker


@dataclass(frozen=True)
class Exit:
    code: int
    """0 to 255; 128 + n for a process that signal n killed."""
    at: int
    """Nanoseconds since the epoch."""


@dataclass(eq=False)
class Process:
    """``name`` is the exec's id, empty for the init."""

    name: str
    spec: oci.Process
    streams: Streams
    worker: Worker | None = None
    stdio: Stdio | None = None
    exit: Exit | None = None
    exited: anyio.Event = field(default_factory=anyio.Event)
    emulate_signals: bool = False
    """Process 1 of its pid namespace: the kernel would drop what has a default action (``signals.py``)."""
    created_at: int = field(default_factory=time.time_ns)
    """When it was asked for, by Create or Exec; nanoseconds since the epoch, as all times."""
    started_at: int = 0
    starting: anyio.Semaphore = field(default_factory=partial(anyio.Semaphore, 1, fast_acquire=True))
    """Held while it is started: an exit that comes meanwhile is told after the start."""
    dying: bool = False
    """Whether it was sent SIGKILL, so that it must not be frozen."""
    begun: bool = False
    """Whether its creation or its start has been begun, and is not done."""
    attempts: int = 0
    """How often it has been begun: supervisors may end over it, again and again."""
    asked_for: bool = False
    """Whether its start was asked for."""
    earlier_streams: Sequence[int] = ()
    """What an earlier supervisor had opened for it when it ended: open until it is made anew."""
    _state: State = State.CREATING
    _killed_by: int = 0

    @classmethod
    def added(cls, name: str, spec: oci.Process, streams: Streams) -> "Process":
        """An exec, not started yet."""
        return cls(name, spec, streams, _state=State.ADDED)

    @property
    def state(self) -> State:
        """Changed by :meth:`advance` only."""
        return self._state

    @property
    def pid(self) -> int:
        return self.worker.pid if self.worker else 0

    def advance(self, step: Step) -> None:
        """Take a step, which has happened.

        :raises FailedPrecondition: the state table does not know it from here
        """
        self._state = self.check(step)
        self.begun = False
        if step is Step.START:
            self.started_at = time.time_ns()

    def check(self, step: Step) -> State:
        """The state that a step would lead to.

        :raises FailedPrecondition: the state table does not know it from here
        """
        try:
            return after(self._state, step)
        except IllegalStep as error:
            raise FailedPrecondition(str(error)) from None

    def handed_over(self) -> None:
        """Its worker has its streams, and is on record."""
        if self.stdio is not None:
            self.stdio.handed_over()

    def begin(self) -> None:
        """Its creation or its start is about to be recorded, and then begun with."""
        self.begun, self.attempts = True, self.attempts + 1

    def notes_signal(self, number: int) -> bool:
        """Note the signal that a SIGKILL will stand for; returns whether there is one to be noted.

        :raises ValueError: there is no such signal
        """
        if self._killed_by or default_action(number) is not Action.TERMINATE or not self._is_emulated(number):
            return False
        if self.worker is None or self.worker.has_ended:
            return False
        self._killed_by = number
        return True

    def _is_emulated(self, number: int) -> bool:
        return self.emulate_signals and self.worker is not None and number not in self.worker.handled

    def kill(self, number: int) -> None:
        """Deliver a signal.

        :raises NotFound: the process has exited
        :raises ResourceExhausted: there is no room for a descriptor of it
        :raises ValueError: there is no such signal
        """
        if self.worker is None or self.exit is not None or self.worker.has_ended:
            raise NotFound("process already finished")
        action = default_action(number)
        if action is Action.IGNORE and self.emulate_signals:
            return
        delivered = self._delivered(action, number)
        self.dying = self.dying or delivered == signal.SIGKILL
        try:
            self.worker.signal(delivered)
        except ProcessLookupError:
            raise NotFound("process already finished") from None
        except OSError as error:
            raise from_os(error) from error

    def _delivered(self, action: Action, number: int) -> int:
        if not self._is_emulated(number):
            return number
        if action is Action.TERMINATE:
            self.notes_signal(number)
            return signal.SIGKILL
        return signal.SIGSTOP if action is Action.STOP else number

    def record(self) -> ProcessRecord:
        """All that the next supervisor has to know of it."""
        worker, exit = self.worker, self.exit
        return ProcessRecord(
            name=self.name,
            state=self._state.value,
            begun=self.begun,
            attempts=self.attempts,
            stdin=self.streams.stdin,
            stdout=self.streams.stdout,
            stderr=self.streams.stderr,
            terminal=self.streams.terminal,
            spec=self._recorded_spec(),
            key=worker.key if worker else "",
            pid=self.pid,
            start=worker.start if worker else 0,
            handled=list(worker.handled) if worker else (),
            alone=worker.alone if worker else False,
            emulates_signals=self.emulate_signals,
            dying=self.dying,
            killed_by=self._killed_by,
            created_at=self.created_at,
            started_at=self.started_at,
            code=exit.code if exit else None,
            exited_at=exit.at if exit else 0,
            logger=self.stdio.logger if self.stdio else (),
        )

    def _recorded_spec(self) -> dict[str, Any] | None:
        """Of what runs, what operators are shown; an init's is in its bundle."""
        if self._state is State.ADDED:
            return dict(self.spec)
        return {"args": self.spec.get("args", [])} if self.name else None

    @classmethod
    def recorded(cls, record: ProcessRecord, spec: oci.Process, worker: Worker | None) -> "Process":
        """As an earlier supervisor knew it."""
        self = cls(
            record.name,
            spec,
            Streams(record.stdin, record.stdout, record.stderr, record.terminal),
            worker=worker,
            emulate_signals=record.emulates_signals,
            created_at=record.created_at,
            started_at=record.started_at,
            dying=record.dying,
            begun=record.begun,
            attempts=record.attempts,
            _state=State(record.state),
            _killed_by=record.killed_by,
        )
        if record.code is not None:
            self.exit = Exit(record.code, record.exited_at)
            self.exited.set()
        return self

    def has_exited(self) -> Exit:
        """Take the worker's exit over; called once, when it is known."""
        assert self.worker is not None and self.worker.status is not None
        self.exit = Exit(exit_code(self.worker.status, self._killed_by), self.worker.exited_at)
        self.advance(Step.EXIT)
        return self.exit


def exit_code(status: int, emulated: int = 0) -> int:
    """A wait status as a container's exit code; ``emulated`` is the signal that a SIGKILL of ours stood for."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    number = -code
    return 128 + (emulated if emulated and number == signal.SIGKILL else number)
