"""Nothing is imported once the node's files are out of sight; whoever tries is told what was missing."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shimd.jailer import main as jailer
from shimd.protocol.constants import LISTEN_FD
from shimd.protocol.plans import Compilation
from shimd.seal import seal
from shimd.worker import compile
from tests.unit.inside import inside

_LATE = "imported_by_nothing_else"


@pytest.fixture(autouse=True)
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that could be imported."""
    (tmp_path / "modules").mkdir()
    (tmp_path / f"modules/{_LATE}.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "modules")


def _import_late() -> None:
    __import__(_LATE)


def test_an_import_is_an_error_that_names_the_module() -> None:
    def act() -> None:
        seal("the test")
        _import_late()

    assert inside(act) == f"ImportError: the module {_LATE} is imported after the test: it has to be loaded before"


def test_what_is_loaded_stays() -> None:
    def act() -> object:
        seal("the test")
        import json.decoder

        return json.decoder.JSONDecoder.__name__

    assert inside(act) == "JSONDecoder"


def test_forked_processes_are_sealed_too() -> None:
    def act() -> object:
        seal("the test")
        return inside(_import_late)

    assert f"the module {_LATE} is imported after the test" in inside(act)


class Late:
    """An engine that imports when it should not."""

    def __init__(self, load: Callable[[], None] | None = None) -> None:
        self._load = load

    def load_compiler(self, *, text: bool) -> None:
        if self._load is not None and text:
            self._load()

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        _import_late()
        artifact.write_bytes(wasm)


def _compile(engine: Any, directory: Path, program: bytes) -> str:
    fd = os.memfd_create("program")
    os.pwrite(fd, program, 0)

    def act() -> object:
        os.dup2(fd, 0)
        return compile.run(engine, Compilation(str(directory / "artifact")))  # type: ignore[func-returns-value]

    try:
        return inside(act)
    finally:
        os.close(fd)


def test_a_compile_worker_is_sealed_by_whomever_it_is_run(tmp_path: Path) -> None:
    said = _compile(Late(), tmp_path, b"(module)")
    assert said.startswith(f"ImportError: the module {_LATE} is imported after its confinement")


@pytest.mark.parametrize(("program", "compiles"), [(b"(module)", True), (b"\0asm\x01\0\0\0", False)])
def test_an_engine_loads_what_its_compiler_needs_for_the_format(tmp_path: Path, program: bytes, compiles: bool) -> None:
    assert (_compile(Late(_import_late), tmp_path, program) == "None") == compiles


def test_the_sandboxer_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests come with anybody's files in sight."""

    def act() -> object:
        monkeypatch.setattr(jailer, "receive", lambda _sock, _decode: _import_late())
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.dup2(one.fileno(), LISTEN_FD)
        other.close()
        return jailer.main()  # type: ignore[func-returns-value]

    assert f"the module {_LATE} is imported after the jailer's start" in inside(act)
