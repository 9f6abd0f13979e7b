"""wasmtime's artefacts: a program compiled for the one of several engines that will run it, with what is to be known
of it before it starts. And how it is loaded again.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shimd.engine import BrokenArtifact, EngineError, InvalidModule, UnsupportedFeature
from shimd.engines.core import COMPONENT, NO_ENTRY, NO_FUNCTION, WASI, read_facts
from shimd.engines.wasmtime_config import SETTINGS
from shimd.formats import outline
from shimd.formats.outline import Outline
from shimd.linux.memory_file import memory_file

if TYPE_CHECKING:
    import wasmtime

#: Files of an artefact: the compiled program, by kind, and what :meth:`WasmtimeEngine.check` must know of it.
MODULE, COMPONENT_FILE, _SERVER, SOCKETS, GUEST = "module", "component", "server", "sockets", "guest"
FACTS = "facts.json"
#: What a module of wit-bindgen 0.2 exports: Slight's, which is compiled to be interrupted, as servers are.
REALLOC = "canonical_abi_realloc"
#: What a component exports that serves: another engine's app, of Spin's triggers or of HTTP.
TRIGGERS = ("fermyon:spin/inbound-redis", "handle-cron-event", "handle-message")
_SERVES = ("wasi:http/incoming-handler@", *TRIGGERS)
_HTTP_ENGINE = "wasi-http"
#: What a component imports that opens sockets: likewise.
_OPENERS = ("wasi:sockets/tcp-create-socket@0.2.", "wasi:sockets/udp-create-socket@0.2.")
_SOCKETS_ENGINE = "wasi-sockets"
#: Interfaces that the native host has, and this one lacks.
_BESIDE = ("wasi:config/", "wasi:keyvalue/", "wasi:logging/", "wasi:tls/")
#: What stands before the causes in its messages, which are numbered if there are several.
_CAUSES = "Caused by:"
#: How wasmtime calls what WASI 0.3 is made of.
_ASYNC = "component model async"
#: What a component exports that is a command.
_RUN = "wasi:cli/run@0.2."


class ProcExit(Exception):
    """proc_exit, with codes that the binding's own refuses (126 to 255)."""

    def __init__(self, code: int) -> None:
        self.code = code & 0xFF


def make_engine(*, parallel: bool, epochs: bool = False) -> "wasmtime.Engine":
    """Make an engine with our configuration (:mod:`.wasmtime_config`).

    :param epochs: make code that can be interrupted, which costs some speed: for servers, whose requests have an end
    """
    import wasmtime
    from wasmtime import _bindings

    config = wasmtime.Config()
    config.parallel_compilation = parallel
    config.epoch_interruption = epochs
    for name, value in SETTINGS.items():
        getattr(_bindings, f"wasmtime_config_{name}_set")(config.ptr(), value)
    return wasmtime.Engine(config)


def make_linker(engine: "wasmtime.Engine") -> "wasmtime.Linker":
    import wasmtime

    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    linker.define_func(WASI, "proc_exit", wasmtime.FuncType([wasmtime.ValType.i32()], []), _exit)
    return linker


def _exit(code: int) -> None:
    raise ProcExit(code)


def load_compiler() -> None:
    """Import and open all that :func:`compile` uses."""
    from wasmtime import component  # noqa: F401

    from shimd.engines import (  # noqa: F401
        componentize,
        composition,
        foresight,
        socket_calls,
    )

    componentize.library()


def compile(wasm: bytes, artifact: Path) -> None:
    """Compile a program, as :meth:`shimd.engine.Engine.precompile` says."""
    import wasmtime
    from wasmtime import component

    from shimd.engines import componentize, composition, socket_calls

    facts: dict[str, Any] = {}
    wasm = composition.whole(wasm)
    engine, binary = make_engine(parallel=True), b""
    try:
        binary = wasm if wasm.startswith(b"\0asm") else bytes(wasmtime.wat2wasm(wasm))
        kind = COMPONENT_FILE if binary.startswith(COMPONENT) else MODULE
        if kind == COMPONENT_FILE and any(name.encode() in binary for name in (*_SERVES, *_OPENERS)):
            kind, engine = _SERVER, make_engine(parallel=True, epochs=True)
        if kind == MODULE and REALLOC.encode() in binary:
            kind, engine = GUEST, make_engine(parallel=True, epochs=True)
        compiled: Any = (wasmtime.Module if kind in (MODULE, GUEST) else component.Component)(engine, binary)
        if kind == _SERVER and not _serves(engine, compiled):
            kind = SOCKETS
        if kind == SOCKETS and not _opens_sockets(engine, compiled):  # the name stands there for something else
            kind, engine = COMPONENT_FILE, make_engine(parallel=True)
            compiled = component.Component(engine, binary)
        if kind == GUEST and all(item.module == WASI for item in compiled.imports):  # as any other module
            kind, engine = MODULE, make_engine(parallel=True)
            compiled = wasmtime.Module(engine, binary)
        is_core = kind == MODULE and componentize.is_core(outline_of(binary))
        if is_core and (made := componentize.component(binary)):
            compile(made, artifact)
            return
    except wasmtime.WasmtimeError as error:
        raise _why_not(binary, sentence(error)) from None
    artifact.mkdir()
    if kind in (MODULE, GUEST):
        problem = f"{componentize.CORE}: {componentize.REMEDY}" if is_core else _problem(make_linker(engine), compiled)
        facts = {"problem": problem, "exports": _exports(compiled)}
    if kind == COMPONENT_FILE:
        facts = {
            "problem": _newer(engine, compiled) or _beside(engine, compiled),
            "no_command": _no_command(engine, compiled),
        }
    if kind == MODULE:
        facts["accepts"] = socket_calls.compile(engine, compiled, artifact)
    (artifact / FACTS).write_text(json.dumps(facts))
    (artifact / kind).write_bytes(compiled.serialize())


def outline_of(binary: bytes) -> Outline:
    file = memory_file("program", binary)
    try:
        return outline.read(file) or Outline(binary.startswith(COMPONENT), complete=False)
    finally:
        os.close(file)


def _why_not(binary: bytes, reason: str) -> EngineError:
    """Returns what a program that does not compile is: broken, or a component of WASI 0.3."""
    from shimd.engines.foresight import newer_problem

    if not binary.startswith(COMPONENT):
        return InvalidModule(f"not valid WebAssembly: {reason}")
    found = outline_of(binary)
    names = [("exports", name) for name in found.exports] + [("imports", name) for name, _ in found.imports]
    problems = [newer_problem(verb, name, wheel=True) for verb, name in names]
    if _ASYNC in reason:
        problems.append(newer_problem("has", "what is asynchronous", wheel=True, known=True))
    if problem := next(filter(None, problems), None):
        return UnsupportedFeature(f"the component {problem}")
    return InvalidModule(f"not valid WebAssembly: {reason}")


def _no_command(engine: "wasmtime.Engine", compiled: Any) -> str | None:
    """Returns why a component cannot be run as a command; ``None`` if it can."""
    if any(name.startswith(_RUN) for name in compiled.type.exports(engine)):
        return None
    return "exports no wasi:cli/run, so there is nothing to run (Spin runs its own by their /spin.toml)"


def load_server(engine: "wasmtime.Engine", artifact: Path) -> Any:
    """Load a component that serves HTTP, for an engine with ``epochs``.

    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is another kind of program
    """
    if not (artifact / _SERVER).exists() and (artifact / FACTS).exists():
        raise UnsupportedFeature(_why_it_serves_not(artifact))
    return load_component(engine, artifact, _SERVER)


def load_component(engine: "wasmtime.Engine", artifact: Path, kind: str) -> Any:
    """:raises BrokenArtifact: it does not load"""
    import wasmtime
    from wasmtime import component

    try:
        return component.Component.deserialize_file(engine, str(artifact / kind))
    except wasmtime.WasmtimeError as error:
        raise BrokenArtifact(f"the compiled module does not load: {sentence(error)}") from None


def load_guest(
    interruptible: "wasmtime.Engine", plain: "wasmtime.Engine", artifact: Path
) -> tuple["wasmtime.Engine", "wasmtime.Module"]:
    """Load a core module of wit-bindgen 0.2, or one that imports WASI only; returns the engine that it is for, too.

    :param interruptible: an engine with ``epochs``
    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is a component
    """
    import wasmtime

    guest, module = artifact / GUEST, artifact / MODULE
    if not guest.exists() and not module.exists() and (artifact / FACTS).exists():
        raise UnsupportedFeature("the program is a component, and Slight's are core modules")
    engine, file = (interruptible, guest) if guest.exists() else (plain, module)
    try:
        return engine, wasmtime.Module.deserialize_file(engine, str(file))
    except wasmtime.WasmtimeError as error:
        raise BrokenArtifact(f"the compiled module does not load: {sentence(error)}") from None


def load_command(engine: "wasmtime.Engine", artifact: Path) -> Any:
    """Load a component that is a command, for an engine without ``epochs``.

    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is another kind of program
    """
    if (artifact / MODULE).exists():
        raise UnsupportedFeature("it is a core module, and commands are components here")
    return load_component(engine, artifact, COMPONENT_FILE)


def is_server(artifact: Path) -> bool:
    """Returns whether it is for :func:`load_server`."""
    return (artifact / _SERVER).exists()


def runner(directory: str) -> str:
    """Returns the engine of wasmtime's family that runs a compiled program; empty: wasmtime itself."""
    for kind, engine in ((_SERVER, _HTTP_ENGINE), (SOCKETS, _SOCKETS_ENGINE)):
        if os.path.exists(f"{directory}/{kind}"):
            return engine
    return ""


def facts_of(artifact: Path) -> dict[str, Any]:
    """:raises BrokenArtifact: they cannot be read"""
    try:
        return read_facts(f"{artifact}/{FACTS}")
    except (OSError, ValueError) as error:
        raise BrokenArtifact(f"the compiled module does not load: {error}") from None


def _why_it_serves_not(artifact: Path) -> str:
    from shimd.engines.componentize import CORE

    problem = str(facts_of(artifact).get("problem") or "")
    if (artifact / MODULE).exists():
        if problem.startswith(CORE):
            return problem
        return "it is a core module, and servers are components: rebuild it with a newer SDK (Spin's: 2 or later)"
    return f"it {problem or 'is a component that serves nothing: it exports no wasi:http/incoming-handler'}"


def _newer(engine: "wasmtime.Engine", program: Any) -> str | None:
    """Returns why a component of WASI 0.3 does not run; ``None``: it is none."""
    from shimd.engines.foresight import newer_problem

    problems = (newer_problem("exports", name, wheel=True) for name in program.type.exports(engine))
    return next(filter(None, problems), None)


def _beside(engine: "wasmtime.Engine", program: Any) -> str | None:
    """Returns why a component does not run that imports what is beside WASI's worlds; ``None``: it does not."""
    name = next((name for name in program.type.imports(engine) if name.startswith(_BESIDE)), None)
    if name is None:
        return None
    return f"imports {name}, which takes shimd-wasmtime-native: install it on the node (make wasmtime-native)"


def _serves(engine: "wasmtime.Engine", program: Any) -> bool:
    return any(name.startswith(_SERVES) for name in program.type.exports(engine))


def _opens_sockets(engine: "wasmtime.Engine", program: Any) -> bool:
    return any(name.startswith(_OPENERS) for name in program.type.imports(engine))


def _problem(linker: "wasmtime.Linker", module: "wasmtime.Module") -> str | None:
    """Returns why a module cannot run here, for want of an import; ``None`` if it can."""
    import wasmtime

    from shimd.engines.foresight import import_problem

    imports = [(item.module, item.name or "") for item in module.imports]
    if problem := import_problem(imports, {WASI}, "is not WASI preview 1"):
        return problem
    try:
        linker.instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        return f"the module does not link: {sentence(error)}"
    return None


def _exports(module: "wasmtime.Module") -> dict[str, str | None]:
    """Returns each export's name, with why it cannot be an entry (``None`` if it can)."""
    import wasmtime

    found: dict[str, str | None] = {}
    for export in module.exports:
        if not isinstance(export.type, wasmtime.FuncType):
            found[export.name] = NO_FUNCTION
        elif export.type.params or export.type.results:
            found[export.name] = NO_ENTRY
        else:
            found[export.name] = None
    return found


def sentence(error: Exception) -> str:
    """Returns the innermost cause of the engine's chain of messages, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = lines[lines.index(_CAUSES) + 1 :] if _CAUSES in lines else []
    numbered = [line.split(": ", 1)[1] for line in causes or lines if line[:1].isdigit() and ": " in line]
    text = (numbered[-1:] or causes[:1] or lines[:1] or [type(error).__name__])[0]
    return " ".join(text.split())
