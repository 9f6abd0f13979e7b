"""An engine, used as shimd uses it: warmed here, as in the fork server; all else happens in forked children."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shimd.engine import Engine, GuestTrap, Invocation
from shimd.engines.registry import engine_reference, load_engine
from shimd.seal import seal
from shimd.worker.compile import load_compiler


@dataclass(frozen=True)
class Outcome:
    """The outcome of a child: its exit code, or minus the signal that ended it, and what it wrote."""

    code: int
    out: str
    err: str


class Child:
    """A forked child that does something and ends."""

    def __init__(self, action: Callable[[], int], stdin: bytes = b"") -> None:
        pipes = [os.pipe() for _ in range(3)]
        os.write(pipes[0][1], stdin)
        os.close(pipes[0][1])
        self.pid = os.fork()
        if self.pid == 0:
            _act(action, [pipes[0][0], pipes[1][1], pipes[2][1]])
        for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
            os.close(fd)
        self._out, self._err = pipes[1][0], pipes[2][0]

    def end(self) -> Outcome:
        with open(self._out) as out, open(self._err) as err:
            said, complained = out.read(), err.read()
        _pid, status = os.waitpid(self.pid, 0)
        return Outcome(os.waitstatus_to_exitcode(status), said, complained)


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


@dataclass(frozen=True)
class Rig:
    """One engine, with a directory for artefacts."""

    engine: Engine[object]
    directory: Path

    def precompile(self, wasm: bytes | str) -> Path:
        """In a child; its error is raised here.

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
        self._elsewhere(lambda: self.engine.check(self.engine.load(artifact), invocation))

    def start(self, artifact: Path, invocation: Invocation, stdin: bytes = b"") -> Child:
        def act() -> int:
            module = self.engine.load(artifact)
            self.engine.check(module, invocation)
            seal("its entry into the container")
            try:
                return self.engine.run(module, invocation)
            except GuestTrap as trap:
                os.write(2, str(trap).encode())
                return 134

        return Child(act, stdin)

    def run(self, wasm: bytes | str, invocation: Invocation | None = None, stdin: bytes = b"") -> Outcome:
        return self.start(self.precompile(wasm), invocation or Invocation(["app"]), stdin).end()

    def _elsewhere(self, action: Callable[[], None]) -> None:
        import shimd.engine as base

        def act() -> int:
            try:
                action()
            except base.EngineError as error:
                os.write(1, f"{type(error).__name__}\n{error}".encode())
                return 1
            return 0

        done = Child(act).end()
        if done.code == 1:
            kind, _, message = done.out.partition("\n")
            raise getattr(base, kind)(message)
        assert done.code == 0, done.err


def _binary(text: str) -> bytes:
    """Engines need not take the text format; what is no module is passed as it is."""
    import wasmtime

    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError:
        return text.encode()


def make_rig(name: str, directory: Path) -> Rig:
    """An engine, warmed once for all tests of this process."""
    return Rig(_warmed(name), directory)


@cache
def _warmed(name: str) -> Engine[object]:
    engine = load_engine(engine_reference(name))
    engine.warm()
    return engine
