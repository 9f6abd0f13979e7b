"""An engine, used as shimd uses it: warmed here, as in the fork server; all else happens in forked children."""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shimd.engine import Engine, GuestTrap, Invocation, LoadsInside, RunsWithoutPython
from shimd.engines.registry import engine_reference, load_engine
from shimd.forkserver.zygote import Zygote
from shimd.linux.memory_file import memory_file
from shimd.protocol.packets import receive, send
from shimd.protocol.system_calls import SystemCalls
from shimd.protocol.worker import Enter, Ready, Start, decode_event
from shimd.seal import seal
from shimd.worker.compile import load_compiler
from shimd.zygote import available


@dataclass(frozen=True)
class ChildOutcome:
    """The outcome of a child: its exit code, or minus the signal that ended it, and what it wrote."""

    code: int
    out: str
    err: str


class ChildProcess:
    """A child that does something and ends."""

    def __init__(
        self, action: Callable[[], int], stdin: bytes = b"", spawn: Callable[[list[int]], int] | None = None
    ) -> None:
        """
        :param action: called in the child; its result is the exit code
        :param spawn: makes the child in fork's stead, with its standard streams, and returns its pid
        """
        pipes = [os.pipe() for _ in range(3)]
        os.write(pipes[0][1], stdin)
        os.close(pipes[0][1])
        stdio = [pipes[0][0], pipes[1][1], pipes[2][1]]
        try:
            self.pid = spawn(stdio) if spawn is not None else _forked(action, stdio)
        finally:
            for fd in stdio:
                os.close(fd)
        self._out, self._err = pipes[1][0], pipes[2][0]

    def end(self) -> ChildOutcome:
        with open(self._out) as out, open(self._err) as err:
            said, complained = out.read(), err.read()
        _pid, status = os.waitpid(self.pid, 0)
        return ChildOutcome(os.waitstatus_to_exitcode(status), said, complained)


def _forked(action: Callable[[], int], stdio: list[int]) -> int:
    """Fork a child, as workers with Python are forked; returns its pid."""
    pid = os.fork()
    if pid == 0:
        _act(action, stdio)
    return pid


def _act(action: Callable[[], int], stdio: list[int]) -> None:
    code = 99
    try:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 not pytest's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = action()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def load_inside(engine: Engine[object], module: object, artifact: Path) -> None:
    """Load the rest, as an engine does that can when all privileges are gone."""
    if isinstance(engine, LoadsInside):
        engine.load_inside(module, artifact)


@dataclass(frozen=True)
class Rig:
    """One engine, with a directory for artefacts."""

    engine: Engine[object]
    directory: Path

    def precompile(self, wasm: bytes | str) -> Path:
        """Compile a module in a child process; the child's error is raised here.

        :raises EngineError: the engine's own
        """
        artifact = self.directory / str(len(list(self.directory.iterdir())))
        data = _binary(wasm) if isinstance(wasm, str) else wasm

        def compile() -> None:
            load_compiler(self.engine, data)
            self.engine.precompile(data, artifact)

        self._elsewhere(compile)
        return artifact

    def check(self, artifact: Path, invocation: Invocation) -> None:
        """:raises EngineError: the engine's own"""
        self._elsewhere(lambda: load_inside(self.engine, self._checked(artifact, invocation), artifact))

    def start(self, artifact: Path, invocation: Invocation, stdin: bytes = b"") -> ChildProcess:
        def act() -> int:
            module = self._checked(artifact, invocation)
            seal("its entry into the container")
            load_inside(self.engine, module, artifact)
            try:
                return self.engine.run(module, invocation)
            except GuestTrap as trap:
                os.write(2, str(trap).encode())
                return 134

        return ChildProcess(act, stdin)

    def run(self, wasm: bytes | str, invocation: Invocation | None = None, stdin: bytes = b"") -> ChildOutcome:
        return self.start(self.precompile(wasm), invocation or Invocation(["app"]), stdin).end()

    def loaded(self, artifact: Path) -> object:
        """Load a program in this process."""
        module = self.engine.load(artifact)
        load_inside(self.engine, module, artifact)
        return module

    def _checked(self, artifact: Path, invocation: Invocation) -> object:
        module = self.engine.load(artifact)
        self.engine.check(module, invocation)
        return module

    def _elsewhere(self, action: Callable[[], None]) -> None:
        import shimd.engine as base

        def act() -> int:
            try:
                action()
            except base.EngineError as error:
                os.write(1, f"{type(error).__name__}\n{error}".encode())
                return 1
            return 0

        done = ChildProcess(act).end()
        if done.code == 1:
            kind, _, message = done.out.partition("\n")
            raise getattr(base, kind)(message)
        assert done.code == 0, done.err


@dataclass(frozen=True)
class RigWithoutPython(Rig):
    """An engine whose programs run in workers without Python, by its part in C, as far as that takes them."""

    def start(self, artifact: Path, invocation: Invocation, stdin: bytes = b"") -> ChildProcess:
        assert isinstance(self.engine, RunsWithoutPython)
        block = self.engine.pack(artifact, invocation)
        if block is None:
            return super().start(artifact, invocation, stdin)
        zygote = _zygote(self.engine.name)
        return ChildProcess(lambda: 0, stdin, lambda stdio: _spawned(zygote, block, artifact.parent, stdio))


def _spawned(zygote: Zygote, block: bytes, entry: Path, stdio: list[int]) -> int:
    """Have the zygote fork a worker, and start it; returns its pid.

    :param entry: the directory with the artefact
    """
    calls = SystemCalls()
    calls.barrier()
    files = [memory_file("block", block), memory_file("calls", calls.packed()), os.open(entry, os.O_PATH)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with ours:
        try:
            pid = zygote.spawn([*stdio, theirs.fileno()], None, None)
            theirs.close()
            send(ours, Enter(), files)
            packet = receive(ours, decode_event)
            assert packet is not None and isinstance(packet[0], Ready), packet
            send(ours, Start())
            return pid
        finally:
            for fd in files:
                os.close(fd)


@cache
def _zygote(name: str) -> Zygote:
    engine = _warmed(name)
    assert isinstance(engine, RunsWithoutPython)
    command = engine.library()
    assert command is not None
    return Zygote(command)


def runs_without_python(name: str) -> bool:
    """Returns whether an engine has a part in C here, which was built."""
    engine = load_engine(engine_reference(name))
    return isinstance(engine, RunsWithoutPython) and available() and engine.library() is not None


def _binary(text: str) -> bytes:
    """Convert text to the binary format, since engines need not have the other; what is no module stays as it is."""
    import wasmtime

    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError:
        return text.encode()


def make_rig(name: str, directory: Path, *, python: bool = True) -> Rig:
    """Make a rig of an engine, which is warmed once for all tests of this process.

    :param python: true if its workers are to have an interpreter
    """
    return (Rig if python else RigWithoutPython)(_warmed(name), directory)


@cache
def _warmed(name: str) -> Engine[object]:
    engine = load_engine(engine_reference(name))
    engine.warm()
    return engine
