"""wasmer by the package ``shimd-wasmer-native``: a C library around the engine and WASIX (``native/wasmer/src``).

The engine is made in the fork server; it starts no thread. A worker maps the compiled module, and the guest runs on its
main thread, beside which WASIX starts others for timers, sockets and the guest's own threads if it uses any.
"""

import ctypes
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import shimd_wasmer_native

from shimd.engine import BrokenArtifact, EngineError, GuestTrap, InvalidModule, Invocation
from shimd.engines.core import (
    as_binary,
    check_entry,
    environment,
    known_facts,
    load_text_format,
    read_facts,
    top_preopens,
)
from shimd.formats.outline import Outline
from shimd.linux.packed import pack

#: Bumped when the files of an artefact change.
_LAYOUT = 1
_MODULE, _FACTS = "module", "facts.json"
#: ``native.c``, where a compiler was there to build it.
_IN_C = Path(__file__).with_name("_native.so")
#: What the library's functions return beside exit codes.
_FAILED, _INVALID, _TRAPPED = -1, -2, -3


@dataclass
class WasmerProgram:
    module: ctypes.c_void_p
    facts: dict[str, Any]
    """``problem``, why it cannot run here, or null; ``exports``, each with why it is no entry, or null."""


class NativeEngine:
    name: ClassVar[str] = "wasmer"

    def __init__(self) -> None:
        self._library: ctypes.CDLL
        self._engine: ctypes.c_void_p

    def version(self) -> str:
        return f"{shimd_wasmer_native.VERSION}-native-{_LAYOUT}-{platform.machine()}"

    def warm(self) -> None:
        self._library = ctypes.CDLL(str(shimd_wasmer_native.LIBRARY))
        self._library.shimd_wasmer_engine.restype = ctypes.c_void_p
        self._engine = ctypes.c_void_p(self._library.shimd_wasmer_engine())

    def load_compiler(self, *, text: bool) -> None:
        if text:
            load_text_format()

    def foresee(self, program: Outline, runs_on: str) -> None:
        from shimd.engines import foresight  # in compile workers only

        foresight.for_wasmer(program)

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        binary = as_binary(wasm, "wasmer")
        artifact.mkdir()
        path = artifact / _MODULE
        code, said = self._call("compile", binary, ctypes.c_size_t(len(binary)), os.fsencode(path))
        if code == _INVALID:
            raise InvalidModule(f"not valid WebAssembly: {_sentence(said)}")
        if code == _FAILED:
            raise EngineError(f"wasmer cannot compile it: {_sentence(said)}")
        facts = {"size": path.stat().st_size, **json.loads(said)}
        (artifact / _FACTS).write_text(json.dumps(facts))

    def load(self, artifact: Path) -> WasmerProgram:
        try:
            return WasmerProgram(ctypes.c_void_p(), read_facts(f"{artifact}/{_FACTS}"))
        except (OSError, ValueError) as error:
            raise BrokenArtifact(f"the compiled module does not load: {error}") from None

    def load_inside(self, module: WasmerProgram, artifact: Path) -> None:
        path = artifact / _MODULE
        try:
            whole = os.stat(path).st_size == module.facts["size"]
        except OSError as error:
            raise BrokenArtifact(f"the compiled module does not load: {error}") from None
        to = ctypes.byref(module.module)
        code, said = self._call("load", os.fsencode(path), to) if whole else (_FAILED, "it is not whole")
        if code == _FAILED:
            raise BrokenArtifact(f"the compiled module does not load: {_sentence(said)}")

    def check(self, module: WasmerProgram, invocation: Invocation) -> None:
        """Check by the facts noted when it was compiled."""
        check_entry(module.facts, invocation.entry)

    def library(self) -> list[str] | None:
        return [str(_IN_C), str(shimd_wasmer_native.LIBRARY)] if _IN_C.is_file() else None

    def pack(self, artifact: Path, invocation: Invocation) -> bytes | None:
        try:
            facts = known_facts(f"{artifact}/{_FACTS}")
            size = facts["size"]
        except (OSError, ValueError, KeyError):
            return None
        check_entry(facts, invocation.entry)
        return pack((os.fsencode(f"{artifact.name}/{_MODULE}"), size, _wanted(invocation)))

    def run(self, module: WasmerProgram, invocation: Invocation) -> int:
        code, said = self._call("run", module.module, _wanted(invocation))
        if code == _TRAPPED:
            raise GuestTrap(said)
        if code == _FAILED:
            raise EngineError(_sentence(said))
        return code

    def _call(self, function: str, *arguments: Any) -> tuple[int, str]:
        """Call a function of the library; returns its return value and its text."""
        text = ctypes.c_void_p()
        code: int = self._library[f"shimd_wasmer_{function}"](self._engine, *arguments, ctypes.byref(text))
        try:
            return code, ctypes.string_at(text).decode(errors="replace") if text else ""
        finally:
            self._library.shimd_wasmer_free(text)


def _wanted(invocation: Invocation) -> bytes:
    """Returns the arguments as ``native/wasmer/src/run.rs`` reads them."""
    wanted = {
        "args": list(invocation.args),
        "env": list(environment(invocation).items()),
        "cwd": invocation.cwd,
        "preopens": top_preopens(invocation),
        "entry": invocation.entry,
        "network": invocation.network,
    }
    return json.dumps(wanted).encode()


def _sentence(text: str) -> str:
    return " ".join(text.split())
