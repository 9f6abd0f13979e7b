"""The worker: what the forked child does, from the fork to the guest's exit.

A worker is one app. It prepares everything that can fail *before* it reports ready (so that Create fails with one clear
sentence), waits for Start, and runs the guest on its only thread. It is inside the container, without privileges,
before the guest's first instruction, and before the engine maps the compiled module if it can; else that is done while
the host's files are in sight. Engines that run without Python have the same in C (``zygote.c``).
"""

import ctypes
import fcntl
import gc
import os
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, assert_never

from shimd.engine import (
    EXIT_ENGINE,
    EXIT_TRAP,
    Composed,
    Engine,
    EngineError,
    EntersContainers,
    GuestTrap,
    HandlesSignals,
    LoadsInside,
    NoApplication,
    OtherEngine,
    Packed,
    PacksApplications,
    RunsApplications,
    RunsArtifacts,
)
from shimd.errors import (
    NotFound,
    from_code,
)
from shimd.linux.memory_file import memory_file, read_file
from shimd.linux.spawn import reset_c_librarys
from shimd.oci import Process
from shimd.oci.programs import IsDirectory, find_program, open_file
from shimd.protocol.constants import CONTROL_FD, EXIT_FAILED, JAIL_FD
from shimd.protocol.faults import describe, sentence
from shimd.protocol.invocation import environment, invocation_of
from shimd.protocol.packets import read_message, receive, send
from shimd.protocol.plans import (
    App,
    Compilation,
    ContainerApp,
    HookCommand,
    HostApp,
    NativeCommand,
    Pause,
    WorkerPlan,
    decode_worker_plan,
)
from shimd.protocol.system_calls import CallRunner, SystemCalls
from shimd.protocol.worker import (
    Answer,
    Artifact,
    AskProgram,
    Content,
    HandsOver,
    Held,
    Ready,
    Refusal,
    Warning,
    decode_answer,
    decode_order,
)
from shimd.protocol.worker import OtherEngine as RunsElsewhere
from shimd.seal import seal

_TERMINAL = (signal.SIGINT, signal.SIGHUP)
_DEADLY = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_libc = ctypes.CDLL(None)


class Entry:
    """The entry into what the jailer made, at ``JAIL_FD``, in parts, since the engine loads
    between them. (``shimd run`` has no jail, and calls all the same.)

    :param readable: descriptors of the program's directories of the cache
    """

    def __init__(self, calls: bytes, readable: Sequence[int]) -> None:
        self._runner = CallRunner(calls or SystemCalls().packed(), readable)

    def open(self, path: str) -> int:
        """Open a file of the container's, wherever its symlinks lead inside the root.

        :raises NotFound: there is none
        """
        return open_file(JAIL_FD, path)

    def join(self) -> list[str]:
        """Be accounted for; returns warnings."""
        return self._runner.run()

    def enter(self) -> list[str]:
        """Go inside for good and drop privileges, or as far as something else has to be done; returns warnings."""
        return self._runner.run()

    @property
    def loads(self) -> bool:
        """Whether the engine is to load now, in the container."""
        return self._runner.loads

    @property
    def entered(self) -> bool:
        """Whether nothing else was to be waited for."""
        return self._runner.done


class Received(NamedTuple):
    """The plan of a worker, and what came with it."""

    plan: WorkerPlan
    control: socket.socket
    calls: bytes
    """Of a container; else empty."""
    jail: int
    """How many descriptors there are from ``JAIL_FD`` on."""


def take(fds: Sequence[int], control: int) -> Received:
    """Close all that is not ours, first: the fork server may have no descriptor left. Read what is to be read, and make
    the rest the streams, ``control`` and the jail.

    :param fds: as they come with a spawn (:mod:`shimd.protocol.fork_server`)
    """
    _close_others([0, 1, 2, *fds, control])
    streams, plan, calls, jail = fds[:3], fds[3], fds[4:5], fds[5:]
    received = read_message(plan, decode_worker_plan), read_file(calls[0]) if calls else b""
    ours = (*streams, control, *jail)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(ours)) for fd in ours]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=False)
    os.closerange(len(high), 1 << 30)
    return Received(received[0], socket.socket(fileno=CONTROL_FD), received[1], len(jail))


def _close_others(kept: Sequence[int]) -> None:
    first = 0
    for fd in sorted(kept):
        if fd > first:  # an empty range from 0 would be all
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 30)


def main(engine: Engine[object], received: Received) -> NoReturn:
    """Prepare, report, wait, run, exit."""
    plan, control = received.plan, received.control
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        ready = _make_ready(engine, received)
        send(control, Ready([int(number) for number in ready.signals]))
    except OtherEngine as other:
        send(control, RunsElsewhere(other.engine))
        os._exit(EXIT_FAILED)
    except _IsPacked as packed:
        packed.send(control)
        os._exit(EXIT_FAILED)
    except Exception as error:  # a bug of ours or a binding's, too, must be seen by who waits for this app
        send(control, describe(error))
        os._exit(EXIT_FAILED)
    if isinstance(plan, Compilation):
        os._exit(0)
    if receive(control, decode_order) is None:  # deleted before it was started
        os._exit(EXIT_FAILED)
    control.close()
    os._exit(_run(ready.run))


def prepare_signals() -> None:
    """For the fork server, once: its workers inherit what a guest needs, and only unblock.

    A guest dies of any signal whose default action is to terminate. Python's own dispositions go, since its handlers
    never run inside a guest. For process 1 of a pid namespace, whom the kernel spares the default action
    (pid_namespaces(7)), a handler in C does the same at once, inside a spinning guest, too: a terminal's ^C and an
    operator's kill end the app. (The supervisor delivers its own signals as SIGKILL: ``supervisor/task/signals.py``.)
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL)  # they are for the supervisor
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])  # what cannot be told is no reason to end
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    reset_c_librarys()
    for number in _DEADLY:
        _libc.signal(number, _die_in_c)


def _die(number: int) -> None:
    os._exit(128 + number)


_die_in_c = ctypes.CFUNCTYPE(None, ctypes.c_int)(_die)


class _IsPacked(Exception):
    """A worker without Python is to take this one's place."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def send(self, control: socket.socket) -> None:
        block, descriptors, directories = self._packed
        fds = [memory_file("shimd-program", block), *descriptors, *directories]
        send(control, HandsOver(len(directories)), fds)


class Prepared(NamedTuple):
    """A process that waits for its start."""

    run: Callable[[], int]
    signals: Collection[int] = ()
    """That the app handles itself."""


def _make_ready(engine: Engine[object], received: Received) -> Prepared:
    """Prepare what is to be run at Start. What few workers need, they import themselves, before the seal: the others
    need not carry it."""
    plan = received.plan
    match plan:
        case ContainerApp() | HostApp():
            return _prepare(engine, plan, received)
        case Compilation():
            from shimd.worker import compile

            compile.run(engine, plan)
            return Prepared(lambda: 0)
        case Pause():
            from shimd.worker import pause

            return Prepared(pause.prepare(plan, lambda: _be_held(received.control)))
        case NativeCommand():
            from shimd.worker import native

            return native.become(plan)
        case HookCommand():
            from shimd.worker import hook

            return hook.become(plan, received.calls or SystemCalls().packed())
        case _:
            assert_never(plan)


def _prepare(engine: Engine[object], plan: App, received: Received) -> Prepared:
    control = received.control
    directories = ProgramDirectories()
    entry = Entry(received.calls, directories.fds)
    _warn(control, entry.join())
    module = _load(engine, plan, entry, control, directories)
    invocation = invocation_of(plan, _listening(engine, plan))
    if plan.hands_over and isinstance(engine, PacksApplications):
        packed = engine.pack_all(module, invocation, JAIL_FD + received.jail)
        if packed is not None:
            raise _IsPacked(packed)
    engine.check(module, invocation)
    if invocation.contained and isinstance(engine, EntersContainers):
        engine.enter_container()
    seal("its entry into the container")
    _enter(engine, module, entry, control, directories)
    signals = engine.signals(module) if isinstance(engine, HandlesSignals) else ()
    return Prepared(lambda: engine.run(module, invocation), signals)


def _enter(
    engine: Engine[object], module: object, entry: Entry, control: socket.socket, directories: "ProgramDirectories"
) -> None:
    """Into the container; the engine loads on the way, if it can do it so late."""
    loaded = False
    while not (entry.entered and loaded):
        _warn(control, entry.enter())
        if not loaded and (entry.loads or entry.entered):
            loaded = True
            if isinstance(engine, LoadsInside):
                directories.inside(lambda artifact: engine.load_inside(module, artifact))
            directories.close()
        elif not entry.entered:
            _be_held(control)


def _be_held(control: socket.socket) -> None:
    """Wait for the container's hooks, before the guest's privileges are all that is left."""
    send(control, Held())
    if receive(control, decode_order) is None:
        os._exit(EXIT_FAILED)


def _warn(control: socket.socket, warnings: list[str]) -> None:
    for warning in warnings:
        send(control, Warning(warning))


class ProgramDirectories:
    """The directories of compiled modules that came with messages: open until all is loaded, and not longer, since they
    lead to what else the cache has of a module."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self._names: list[str] = []

    def path(self, fd: int, name: str) -> Path:
        """A file of such a directory, whose descriptor is ours from now on."""
        self.fds.append(fd)
        self._names.append(name)
        return Path(f"/proc/self/fd/{fd}/{name}")

    def inside(self, load: Callable[[Path], None]) -> None:
        """Have the one program loaded by its name alone: there need not be a ``/proc`` to find it by.

        :raises OSError: this user cannot come back to the working directory, which the jailer has seen to
        """
        back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self.fds[-1])
        try:
            load(Path(self._names[-1]))
        finally:
            os.fchdir(back)
            os.close(back)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def _load(
    engine: Engine[object], plan: App, entry: Entry, control: socket.socket, directories: ProgramDirectories
) -> object:
    process = plan.process
    if isinstance(plan, HostApp) and plan.application:
        from shimd.worker import local

        return local.load(engine, plan, control, directories)
    first = isinstance(plan, ContainerApp) and plan.first
    if isinstance(engine, RunsApplications) and first:
        programs = engine.programs(lambda path: _read(entry, path), environment(process))
        if programs is not None:
            return engine.load_all(
                {name: fetch(entry.open, path, control, directories) for name, path in programs.items()}
            )
    if isinstance(engine, RunsArtifacts) and first and (missing := _missing(process)):
        from shimd.worker import image

        try:
            found = image.load(engine, control, directories, lambda path: _read(entry, path), environment(process))
        except NoApplication as error:
            raise NotFound(f"{missing}: {error}") from None
        if found is not None:
            return found
    if plan.artifact:
        return engine.load(directories.path(plan.view, Path(plan.artifact).name))
    return engine.load(_fetch_own(process, control, directories))


def _read(entry: Entry, path: str) -> bytes | None:
    try:
        with open(entry.open(path), "rb") as file:
            return file.read()
    except IsDirectory as error:
        raise IsADirectoryError(str(error)) from None
    except NotFound:
        return None


def _fetch_own(process: Process, control: socket.socket, directories: ProgramDirectories) -> Path:
    """The compiled form of ``args[0]``, for an engine of applications whose container is none."""
    path, fd, missing = find_program(JAIL_FD, process)
    if fd is None:  # an image's layer may hold it
        send(control, AskProgram(path, missing))
    else:
        send(control, AskProgram(path), [fd])
        os.close(fd)
    return compiled(control, directories)


def fetch(
    open: Callable[[str], int], program: str | Composed[str], control: socket.socket, directories: ProgramDirectories
) -> Path:
    """The compiled form of a module that an application names.

    :raises NotFound: there is none
    """
    if isinstance(program, Composed):
        from shimd.worker import composed

        return composed.fetch(program, open, control, directories)
    fd = open(program)
    send(control, AskProgram(program), [fd])
    os.close(fd)
    return compiled(control, directories)


def compiled(control: socket.socket, directories: ProgramDirectories) -> Path:
    """What the supervisor's answer names: a compiled module, or a directory of files."""
    answer, (fd,) = answered(control)
    assert isinstance(answer, Artifact)
    return directories.path(fd, answer.name)


def answered(control: socket.socket) -> tuple[Artifact | Content, list[int]]:
    """The supervisor's answer, with its descriptors.

    :raises ShimdError: it refuses
    """
    packet = receive(control, decode_answer)
    if packet is None:
        os._exit(EXIT_FAILED)
    answer: Answer = packet[0]
    if isinstance(answer, Refusal):
        raise from_code(answer.code, answer.message)
    return answer, packet[1]


def _listening(engine: Engine[object], plan: App) -> Sequence[int]:
    if not plan.listen:
        return ()
    from shimd.worker import listen

    return listen.listening(engine, plan)


def _missing(process: Process) -> str:
    """Why there is no file of ``args[0]``; empty: it is there."""
    program = find_program(JAIL_FD, process)
    if program.file is not None:
        os.close(program.file)
    return program.missing


def _run(run: Callable[[], int]) -> int:
    """Run the guest; what goes wrong in it is told on the app's own stderr."""
    gc.enable()
    try:
        return run()
    except GuestTrap as trap:
        return _complain(str(trap), EXIT_TRAP)
    except EngineError as error:
        return _complain(f"shimd: {sentence(error)}", EXIT_ENGINE)


def _complain(text: str, code: int) -> int:
    data = text.rstrip("\n").encode(errors="replace") + b"\n" if text else b""
    while data:
        try:
            data = data[os.write(2, data) :]
        except OSError:  # nobody listens any more
            break
    return code
