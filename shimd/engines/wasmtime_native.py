"""wasmtime by the package ``shimd-wasmtime-native``: the crates, with WASI 0.2 and 0.3 as their makers have them
(``native/wasmtime/src``).

The library is an engine part (``engine.h``), so that workers have no Python in them; where there is no zygote, the same
functions are called from Python. Of what the crates lack, Slight's guests and Spin's are compiled for the package from
PyPI, and run by that (:mod:`.wasmtime`).
"""

import ctypes
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import shimd_wasmtime_native

from shimd.engine import BrokenArtifact, EngineError, InvalidModule, Invocation, OtherEngine, UnsupportedFeature
from shimd.engines import componentize, contained
from shimd.engines.core import (
    ACCEPTS_NONE,
    TAKES_NONE,
    WASI,
    check_command_entry,
    check_entry,
    environment,
    known_facts,
    read_facts,
    top_preopens,
)
from shimd.engines.http_settings import HttpSettings, for_guest
from shimd.engines.wasmtime import PORTABLE, WasmtimeEngine
from shimd.engines.wasmtime_artifact import REALLOC, TRIGGERS, outline_of
from shimd.formats import outline
from shimd.formats.outline import Outline
from shimd.linux.packed import Block, Packable, pack

#: Bumped when something changes that a compiled artefact depends on, besides the crates: settings, files.
_LAYOUT = 4
PROGRAM, FACTS = "native", "native.json"
#: What a component exports that serves HTTP.
_HTTP = ("wasi:http/incoming-handler@0.2.", "wasi:http/handler@0.3.")
#: What ``shimd_wasmtime_compile`` returns.
_DONE, _INVALID = 0, -2
#: No descriptor: nothing is asked of anybody.
NOBODY = 0
#: Kinds of programs, as the library numbers them: servers, and an application of such, are the last.
_MODULE, SERVER, SERVER_NEWER, _SPIN = 0, 3, 4, 5


@dataclass
class NativeProgram:
    facts: dict[str, Any]
    """``kind``; ``problem``, why it cannot run here, or null; of a module ``exports``, each with why it is no entry, or
    null; of a component ``no_command``, why it is none, ``spin``, why it is no part of a Spin application here, or
    null, and ``absent``, the interfaces that it imports of those that refuse all, as part of one."""
    invocation: Invocation | None = None
    loaded: ctypes.c_void_p | None = None
    handled: Collection[int] = ()
    """Signals, once it is loaded."""
    block: Block | None = None
    begin: Callable[[], None] = lambda: None
    """Called before it is run."""


class _Part(ctypes.Structure):
    """``struct engine`` of engine.h."""

    _fields_ = (
        ("load", ctypes.CFUNCTYPE(ctypes.c_void_p, *[ctypes.c_void_p] * 4, ctypes.c_size_t)),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)),
        ("context", ctypes.c_void_p),
    )


class NativeWasmtime:
    name: ClassVar[str] = "wasmtime"
    sockets_without_python: ClassVar[bool] = True

    def __init__(self) -> None:
        self._part: _Part

    def version(self) -> str:
        return f"{shimd_wasmtime_native.VERSION}-native-{_LAYOUT}-{WasmtimeEngine().version()}"

    def warm(self) -> None:
        arguments = self._library()[1:]
        make = _opened().shimd_engine
        make.restype = ctypes.POINTER(_Part)
        made = make(len(arguments), (ctypes.c_char_p * len(arguments))(*map(os.fsencode, arguments)))
        if not made:
            raise EngineError("wasmtime's native library cannot work here")
        self._part = made.contents

    def load_compiler(self, *, text: bool) -> None:
        from shimd.engines import composition, foresight, wasmtime_artifact  # noqa: F401

        _opened()
        componentize.library()
        if text or _may_be_portables(0):
            wasmtime_artifact.load_compiler()

    def foresee(self, program: Outline, runs_on: str) -> None:
        from shimd.engines import foresight  # in compile workers only

        foresight.for_wasmtime(program, runs_on, newer=True)

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        from shimd.engines.composition import whole
        from shimd.engines.core import from_text

        wasm = whole(wasm)
        binary = wasm if wasm.startswith(b"\0asm") else from_text(wasm)
        program = outline_of(binary)
        if not program.component and componentize.is_core(program):
            made = componentize.component(binary)
            if made is not None:
                self.precompile(made, artifact)
                return
        if is_portables(program):
            WasmtimeEngine().precompile(binary, artifact)
            return
        bridged = self._bridged(program)
        code, facts = self._compiled(binary, bridged)
        if facts["kind"] == _MODULE:
            facts["problem"] = _problem(program) or facts["problem"]
        facts["accepts"] = _may_accept(program)
        facts["bridged"] = bridged
        artifact.mkdir(exist_ok=True)
        facts["size"] = len(code)
        (artifact / FACTS).write_text(json.dumps(facts))
        (artifact / PROGRAM).write_bytes(code)

    def runner(self, artifact: Path) -> str:
        if (artifact / FACTS).exists():
            return ""
        return WasmtimeEngine().runner(artifact) or PORTABLE

    def load(self, artifact: Path) -> NativeProgram:
        """:raises OtherEngine: it is for the package from PyPI"""
        if not os.path.exists(f"{artifact}/{FACTS}"):
            raise OtherEngine(self.runner(artifact))
        return NativeProgram(noted(artifact))

    def load_inside(self, module: NativeProgram, artifact: Path) -> None:
        assert module.invocation is not None
        check_whole(module.facts, artifact)
        ask = self._ask(module) if module.facts["bridged"] else NOBODY
        self.load_packed(module, _packed(module.facts, f"{artifact}/{PROGRAM}", module.invocation, ask))

    def load_packed(self, module: NativeProgram, packed: bytes) -> None:
        """:raises BrokenArtifact: it does not load"""
        module.block = Block(packed)
        code, sentence = ctypes.c_int(), ctypes.create_string_buffer(4096)
        loaded = self._part.load(None, module.block.root, ctypes.byref(code), sentence, len(sentence))
        if not loaded:
            raise BrokenArtifact(sentence.value.decode(errors="replace"))
        module.loaded = ctypes.c_void_p(loaded)
        module.handled = [number for number in range(1, 32) if code.value >> number - 1 & 1]

    def check(self, module: NativeProgram, invocation: Invocation) -> None:
        """Check by the facts noted when it was compiled."""
        if invocation.listening and not module.facts["accepts"]:
            raise UnsupportedFeature(ACCEPTS_NONE if module.facts["kind"] == _MODULE else TAKES_NONE)
        module.invocation = invocation
        if module.facts["kind"] == _MODULE:
            check_entry(module.facts, invocation.entry)
            return
        serves = module.facts["kind"] >= SERVER
        if invocation.entry != "_start" and serves:
            raise UnsupportedFeature(f"a component that serves HTTP has no function {invocation.entry}")
        check_command_entry(invocation.entry)
        if serves:
            HttpSettings.of(invocation.env)
        if problem := module.facts["problem"] or module.facts["no_command"]:
            raise UnsupportedFeature(f"the component {problem}")

    def signals(self, module: NativeProgram) -> Collection[int]:
        return module.handled

    def run(self, module: NativeProgram, _invocation: Invocation) -> int:
        module.begin()
        return int(self._part.run(module.loaded))

    def library(self) -> list[str] | None:
        return self._library()

    def pack(self, artifact: Path, invocation: Invocation) -> bytes | None:
        try:
            facts = known_facts(f"{artifact}/{FACTS}")
        except (OSError, ValueError):
            return None
        if not _is_whole(facts, artifact) or facts["bridged"]:
            return None
        self.check(NativeProgram(facts), invocation)
        return _packed(facts, f"{artifact.name}/{PROGRAM}", invocation)

    def _bridged(self, _program: Outline) -> list[str]:
        """Returns the interfaces, of a component, that Python objects give it (``docs/bridge.md``)."""
        return []

    def _ask(self, _module: NativeProgram) -> int:
        """Returns the descriptor that connections to them are asked for over."""
        return NOBODY

    def _library(self) -> list[str]:
        return [str(shimd_wasmtime_native.LIBRARY), str(contained.LIBRARY) if contained.LIBRARY.is_file() else ""]

    def _compiled(self, binary: bytes, bridged: list[str]) -> tuple[bytes, dict[str, Any]]:
        """:raises InvalidModule: it is no program"""
        library = _opened()
        made, size, text = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_void_p()
        names = "\n".join(bridged).encode()
        code: int = library.shimd_wasmtime_compile(
            binary, ctypes.c_size_t(len(binary)), names, ctypes.byref(made), ctypes.byref(size), ctypes.byref(text)
        )
        try:
            said = ctypes.string_at(text.value or 0).decode(errors="replace")
            if code == _INVALID:
                raise InvalidModule(f"not valid WebAssembly: {said}")
            if code != _DONE:
                raise EngineError(f"wasmtime cannot compile it: {said}")
            return ctypes.string_at(made.value or 0, size.value), json.loads(said)
        finally:
            library.shimd_wasmtime_free(made, size, text)


@cache
def _opened() -> ctypes.CDLL:
    return ctypes.CDLL(str(shimd_wasmtime_native.LIBRARY))


def _packed(facts: dict[str, Any], program: str, invocation: Invocation, ask: int = NOBODY) -> bytes:
    """Returns the block that ``native/wasmtime/src/abi.rs`` reads.

    :param ask: a descriptor, which is the library's then
    """
    serves = facts["kind"] >= SERVER
    variables = environment(invocation)
    env = list((for_guest(variables) if serves else variables).items())
    preopens = top_preopens(invocation)
    return pack(
        (
            os.fsencode(program),
            facts["kind"],
            invocation.entry.encode(),
            len(invocation.args),
            [arg.encode() for arg in invocation.args],
            len(env),
            [name.encode() for name, _value in env],
            [value.encode() for _name, value in env],
            len(preopens),
            [(host.encode(), guest.encode(), read_only) for host, guest, read_only in preopens],
            invocation.network,
            invocation.contained,
            int(serves),
            [_settings(HttpSettings.of(invocation.env))] if serves else [],
            len(invocation.listening),
            list(invocation.listening),
            len(facts["bridged"]),
            [name.encode() for name in facts["bridged"]],
            ask,
            b"",
        )
    )


def packed_application(description: str, settings: HttpSettings, *, contained: bool) -> bytes:
    """Returns the block of an application of Spin's.

    :param description: JSON, as ``spin/application.rs`` reads it
    """
    server: list[Packable] = [_settings(settings)]
    return pack(
        (b"", _SPIN, b"", 0, [], 0, [], [], 0, [], 0, contained, 1, server, 0, [], 0, [], NOBODY, description.encode())
    )


def _settings(settings: HttpSettings) -> tuple[bytes | int, ...]:
    return (
        settings.host.encode(),
        settings.port,
        settings.backlog,
        int(settings.timeout),
        settings.concurrency,
        int(settings.grace),
        settings.access_log,
        settings.reuse,
        int(settings.idle),
    )


def is_portables(program: Outline) -> bool:
    """Returns whether the package from PyPI is to run it: what is served by Python."""
    if program.component:
        serves = any(name.startswith(_HTTP) for name in program.exports)
        return not serves and any(name.startswith(TRIGGERS) for name in program.exports)
    return REALLOC in program.exports and any(module != WASI for module, _name in program.imports)


def _may_be_portables(file: int) -> bool:
    """Returns whether the package from PyPI may be needed to compile a program, which takes its time to load."""
    try:
        program = outline.read(file)
    except OSError:  # no file that can be read from the middle
        return True
    return program is None or is_portables(program)


def _may_accept(program: Outline) -> bool:
    return (WASI, "sock_accept") in program.imports and "memory" in program.exports


def _problem(program: Outline) -> str | None:
    """Returns why a module cannot run here, for want of an import; ``None``: that is not known."""
    from shimd.engines.foresight import import_problem

    if componentize.is_core(program):
        return f"{componentize.CORE}: {componentize.REMEDY}"
    return import_problem(program.imports, {WASI}, "is not WASI preview 1")


def noted(artifact: Path) -> dict[str, Any]:
    """Returns what was noted of a program when it was compiled.

    :raises BrokenArtifact: it cannot be read
    """
    try:
        return read_facts(f"{artifact}/{FACTS}")
    except (OSError, ValueError) as error:
        raise BrokenArtifact(f"the compiled module does not load: {error}") from None


def check_whole(facts: dict[str, Any], artifact: Path) -> None:
    """:raises BrokenArtifact: a part is missing: the disk was full, say"""
    if not _is_whole(facts, artifact):
        raise BrokenArtifact("the compiled module does not load: it is not whole")


def _is_whole(facts: dict[str, Any], artifact: Path) -> bool:
    try:
        return os.stat(f"{artifact}/{PROGRAM}").st_size == facts.get("size")
    except OSError:
        return False
