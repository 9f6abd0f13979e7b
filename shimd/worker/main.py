"""The worker: what the forked child does, from the fork to the guest's exit.

A worker is one app. It prepares everything that can fail *before* it reports ready (so that Create fails with one clear
sentence), waits for Start, and runs the guest on its only thread. It is inside the container, without privileges,
before the guest's first instruction; the engine maps the compiled module before that, while the host's files are in
sight.
"""

import ctypes
import fcntl
import gc
import os
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from shimd.engines.base import (
    EXIT_ENGINE,
    EXIT_TRAP,
    BrokenArtifact,
    Engine,
    EngineError,
    GuestTrap,
    HandlesSignals,
    InvalidModule,
    InvalidSetting,
    Invocation,
    OtherEngine,
    Preopen,
    RunsApplications,
    RunsArtifacts,
    UnsupportedFeature,
)
from shimd.errors import (
    Code,
    DataLoss,
    Internal,
    InvalidArgument,
    NotFound,
    ShimdError,
    Unimplemented,
    from_code,
    from_os,
)
from shimd.linux import libc
from shimd.oci import Process
from shimd.worker import sandbox
from shimd.worker.messages import Message, Plan, receive, send

#: Exit code of a worker that failed before the guest could run; the supervisor has the reason.
EXIT_FAILED = 70
_TERMINAL = (signal.SIGINT, signal.SIGHUP)
_DEADLY = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_CONTROL_FD = 3
_libc = ctypes.CDLL(None)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Place(Protocol):
    """Where the app will live: entered in two steps, since the engine loads between them."""

    def open(self, path: str) -> int:
        """Open a file of the container's, wherever its symlinks lead inside the root.

        :raises NotFound: there is none
        """
        ...

    def enter(self) -> list[str]:
        """Go inside for good and drop privileges; returns warnings."""
        ...


class Host:
    """No container at all: ``shimd run`` (the guest sees only what its preopens name)."""

    def open(self, path: str) -> int:
        raise NotFound(path)

    def enter(self) -> list[str]:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # no daemon looks after it once its fork server is gone
        return []


def take_descriptors(fds: Sequence[int], control: int) -> tuple[int, socket.socket]:
    """Make ``fds[1:4]`` the standard streams and close everything that is not ours; returns (plan, control)."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (*fds[1:4], control, fds[0])]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=False)
    os.closerange(len(high), 1 << 30)
    return _CONTROL_FD + 1, socket.socket(fileno=_CONTROL_FD)


def main(engine: Engine[object], plan: Plan, control: socket.socket) -> NoReturn:
    """Prepare, report, wait, run, exit."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        ready = _make_ready(engine, plan, control)
        send(control, {"ev": "ready", "signals": [int(number) for number in ready.signals]})
    except OtherEngine as other:
        send(control, {"ev": "engine", "name": other.engine})
        os._exit(EXIT_FAILED)
    except Exception as error:  # a bug of ours or a binding's, too, must be seen by who waits for this app
        send(control, {"ev": "error", **_describe(error)})
        os._exit(EXIT_FAILED)
    if plan["kind"] == "compile":
        os._exit(0)
    if receive(control) is None:  # deleted before it was started
        os._exit(EXIT_FAILED)
    control.close()
    os._exit(_run(ready.run))


def prepare_signals() -> None:
    """For the fork server, once: its workers inherit what a guest needs, and only unblock.

    A guest dies of any signal whose default action is to terminate. Python's own dispositions go, since its handlers
    never run inside a guest. For process 1 of a pid namespace, whom the kernel spares the default action
    (pid_namespaces(7)), a handler in C does the same at once, inside a spinning guest, too: a terminal's ^C and an
    operator's kill end the app. (The supervisor delivers its own signals as SIGKILL: ``task/signals.py``.)
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL)  # they are for the supervisor
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    for number in _DEADLY:
        _libc.signal(number, _die_in_c)


def _die(number: int) -> None:
    os._exit(128 + number)


_die_in_c = ctypes.CFUNCTYPE(None, ctypes.c_int)(_die)


class Ready(NamedTuple):
    """What Start sets going."""

    run: Callable[[], int]
    signals: Collection[int] = ()
    """That the app handles itself."""


def _make_ready(engine: Engine[object], plan: Plan, control: socket.socket) -> Ready:
    """What is to be run at Start. What few workers need, they import themselves: the others need not carry it."""
    match plan["kind"]:
        case "compile":
            from shimd.worker import compile

            compile.run(engine, plan)
            return Ready(lambda: 0)
        case "sandbox":
            from shimd.worker import pod

            return Ready(pod.prepare(plan))
        case "native":
            from shimd.worker import native

            native.become(plan)
    return _prepare(engine, plan, control)


def _prepare(engine: Engine[object], plan: Plan, control: socket.socket) -> Ready:
    place = _place(plan)
    process = plan["process"]
    program, entry = split_entry(process["args"][0])
    module = _load(engine, plan, place, control)
    invocation = _invocation(plan, program, entry)
    engine.check(module, invocation)
    for warning in place.enter():
        send(control, {"ev": "warning", "message": warning})
    signals = engine.signals(module) if isinstance(engine, HandlesSignals) else ()
    return Ready(lambda: engine.run(module, invocation), signals)


def _load(engine: Engine[object], plan: Plan, place: Place, control: socket.socket) -> object:
    process = plan["process"]
    if isinstance(engine, RunsApplications) and plan["kind"] == "init":
        programs = engine.programs(lambda path: _read(place, path), _environment(process))
        if programs is not None:
            return engine.load_all({name: Path(_fetch(place, path, control)) for name, path in programs.items()})
    program, _entry = split_entry(process["args"][0])
    if isinstance(engine, RunsArtifacts) and plan["kind"] == "init" and not _is_there(place, program, process):
        from shimd.worker import artifact

        found = artifact.load(engine, control, lambda path: _read(place, path), _environment(process))
        if found is not None:
            return found
    return engine.load(Path(plan.get("artifact") or _obtain(place, program, process, control)))


def _read(place: Place, path: str) -> bytes | None:
    try:
        with open(place.open(path), "rb") as file:
            return file.read()
    except NotFound:
        return None


def _fetch(place: Place, path: str, control: socket.socket) -> str:
    """The compiled form of a module that an application names.

    :raises NotFound: there is none
    """
    try:
        fd = place.open(path)
    except NotFound:
        raise NotFound(f"{path}: no such file in the container") from None
    send(control, {"ev": "entry", "name": path}, [fd])
    os.close(fd)
    return _compiled(control)


def _place(plan: Plan) -> Place:
    match plan["kind"]:
        case "init":
            return sandbox.enter_init(plan)
        case "exec":
            return sandbox.enter_exec(plan)
        case _:
            return Host()


def split_entry(arg: str) -> tuple[str, str]:
    """``path#func`` as runwasi reads it: the program, and the exported function (default ``_start``)."""
    program, _, entry = arg.partition("#")
    return program, entry or "_start"


def candidates(program: str, process: Process) -> list[str]:
    """Where a program may be: as it stands if it names a directory, else in PATH, then in the working directory."""
    if "/" in program:
        return [os.path.join(process["cwd"], program)]
    path = next((item[5:] for item in process.get("env", []) if item.startswith("PATH=")), _DEFAULT_PATH)
    return [os.path.join(directory, program) for directory in (*path.split(":"), process["cwd"]) if directory]


def _obtain(place: Place, program: str, process: Process, control: socket.socket) -> str:
    """Send the program's file to the supervisor, which answers with its compiled form."""
    fd, path = _find(place, program, process)
    if fd is None:
        send(control, {"ev": "entry", "name": path, "missing": f"{program}: no such file in the container"})
    else:
        send(control, {"ev": "entry", "name": path}, [fd])
        os.close(fd)
    return _compiled(control)


def _compiled(control: socket.socket) -> str:
    """The supervisor's answer to a program."""
    artifact: str = answer(control)[0]["artifact"]
    return artifact


def answer(control: socket.socket) -> tuple[Message, list[int]]:
    """The supervisor's answer, with its descriptors.

    :raises ShimdError: it is one
    """
    packet = receive(control)
    if packet is None:
        os._exit(EXIT_FAILED)
    message = packet[0]
    if message["op"] == "fail":
        raise from_code(message["code"], message["message"])
    return packet


def _find(place: Place, program: str, process: Process) -> tuple[int | None, str]:
    paths = candidates(program, process)
    for path in paths:
        try:
            return place.open(path), path
        except NotFound:
            continue
    return None, paths[-1]


def _is_there(place: Place, program: str, process: Process) -> bool:
    fd, _path = _find(place, program, process)
    if fd is not None:
        os.close(fd)
    return fd is not None


def _invocation(plan: Plan, program: str, entry: str) -> Invocation:
    process = plan["process"]
    return Invocation(
        args=[program, *process["args"][1:]],
        env=_environment(process),
        cwd=process["cwd"],
        preopens=_preopens(plan),
        entry=entry,
        network=plan["kind"] != "run" or plan.get("network", False),
    )


def _environment(process: Process) -> dict[str, str]:
    return dict(item.split("=", 1) for item in process.get("env", []) if "=" in item)


def _preopens(plan: Plan) -> list[Preopen]:
    """The root file system, and each bind mount by itself for engines that cannot just follow the kernel's."""
    if plan["kind"] == "run":
        return [Preopen(*item) for item in plan.get("preopens", [])]
    spec = plan["spec"]
    binds = [mount for mount in spec.get("mounts", []) if {"bind", "rbind"} & set(mount.get("options", []))]
    return [
        Preopen("/", "/", bool(spec["root"].get("readonly"))),
        *(Preopen(m["destination"], m["destination"], "ro" in m["options"]) for m in binds),
    ]


def _describe(error: Exception) -> Message:
    """An error as (code, one sentence)."""
    match error:
        case ShimdError():
            code: Code = error.code
        case InvalidModule() | InvalidSetting():
            code = InvalidArgument.code
        case BrokenArtifact():
            code = DataLoss.code
        case UnsupportedFeature():
            code = Unimplemented.code
        case OSError():
            return _describe(from_os(error))
        case EngineError():
            code = Internal.code
        case _:
            return {"code": int(Internal.code), "message": f"{type(error).__name__}: {error}"}
    return {"code": int(code), "message": str(error)}


def _run(run: Callable[[], int]) -> int:
    """Run the guest; what goes wrong in it is told on the app's own stderr."""
    gc.enable()
    try:
        return run()
    except GuestTrap as trap:
        return _complain(str(trap), EXIT_TRAP)
    except EngineError as error:
        return _complain(f"shimd: {error}", EXIT_ENGINE)


def _complain(text: str, code: int) -> int:
    data = text.rstrip("\n").encode(errors="replace") + b"\n" if text else b""
    while data:
        try:
            data = data[os.write(2, data) :]
        except OSError:  # nobody listens any more
            break
    return code
