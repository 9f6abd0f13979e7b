"""wasmtime: core modules with WASI preview 1, and components with WASI preview 2 (commands).

The engine, the linkers and all host functions are made in the fork server; a worker maps the compiled module, makes a
store and runs. ``parallel_compilation`` is off there: a thread pool would not survive the fork.
"""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from shimd.engines.base import (
    BrokenArtifact,
    EngineError,
    GuestTrap,
    InvalidModule,
    Invocation,
    OtherEngine,
    UnsupportedFeature,
)
from shimd.engines.modules import COMPONENT, NO_FUNCTION, check_entry, environment, top_preopens

if TYPE_CHECKING:
    import wasmtime

#: Bumped when the configuration below changes what a compiled artefact is.
_CONFIG = 3
_WASI = "wasi_snapshot_preview1"
#: Files of an artefact: the compiled program, by kind, and what :meth:`WasmtimeEngine.check` must know of it.
_MODULE, _COMPONENT_FILE, _SERVER, _FACTS = "module", "component", "server", "facts.json"
#: What a component exports that serves HTTP: another engine's app.
_HANDLER, _HTTP_ENGINE = "wasi:http/incoming-handler@", "wasi-http"


@dataclass
class Loaded:
    """A compiled program and how it will be run."""

    program: Any
    component: bool
    facts: dict[str, Any]
    """Of a module: ``problem``, why it cannot run here, or null; ``exports``, each with why it is no entry, or null."""


class _Exit(Exception):
    """proc_exit, with codes that the binding's own refuses (126 to 255)."""

    def __init__(self, code: int) -> None:
        self.code = code & 0xFF


class WasmtimeEngine:
    name: ClassVar[str] = "wasmtime"

    def __init__(self) -> None:
        self._engine: wasmtime.Engine
        self._linker: wasmtime.Linker
        self._component_linker: Any

    def version(self) -> str:
        from importlib.metadata import version  # not for workers

        return f"{version('wasmtime')}-{_CONFIG}-{platform.machine()}"

    def warm(self) -> None:
        from wasmtime import component

        os.environ["TOKIO_WORKER_THREADS"] = "1"  # of wasmtime-wasi, in each app; else one a processor
        self._engine = make_engine(parallel=False)
        self._linker = _linker(self._engine)
        self._component_linker = component.Linker(self._engine)
        self._component_linker.add_wasip2()

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        import wasmtime
        from wasmtime import component

        facts: dict[str, Any] = {}
        engine = make_engine(parallel=True)
        try:
            binary = wasm if wasm.startswith(b"\0asm") else bytes(wasmtime.wat2wasm(wasm))
            kind = _COMPONENT_FILE if binary.startswith(COMPONENT) else _MODULE
            if kind == _COMPONENT_FILE and _HANDLER.encode() in binary:
                kind, engine = _SERVER, make_engine(parallel=True, epochs=True)
            compiled: Any = (wasmtime.Module if kind == _MODULE else component.Component)(engine, binary)
            if kind == _SERVER and not _serves(engine, compiled):  # the name stands there, and is no export
                kind, engine = _COMPONENT_FILE, make_engine(parallel=True)
                compiled = component.Component(engine, binary)
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(f"not valid WebAssembly: {_sentence(error)}") from None
        if kind == _MODULE:
            facts = {"problem": _problem(_linker(engine), compiled), "exports": _exports(compiled)}
        artifact.mkdir()
        (artifact / _FACTS).write_text(json.dumps(facts))
        (artifact / kind).write_bytes(compiled.serialize())

    def load(self, artifact: Path) -> Loaded:
        """:raises OtherEngine: it serves HTTP"""
        import wasmtime
        from wasmtime import component

        directory = str(artifact)
        if os.path.exists(f"{directory}/{_SERVER}"):
            raise OtherEngine(_HTTP_ENGINE)
        is_component = os.path.exists(f"{directory}/{_COMPONENT_FILE}")
        kind, file = (component.Component, _COMPONENT_FILE) if is_component else (wasmtime.Module, _MODULE)
        try:
            with open(f"{directory}/{_FACTS}", "rb") as facts:
                return Loaded(
                    kind.deserialize_file(self._engine, f"{directory}/{file}"), is_component, json.loads(facts.read())
                )
        except (wasmtime.WasmtimeError, OSError, ValueError) as error:
            raise BrokenArtifact(f"the compiled module {artifact} does not load: {_sentence(error)}") from None

    def check(self, module: Loaded, invocation: Invocation) -> None:
        """By what was noted when it was compiled: an app's start is no time for asking again."""
        entry = invocation.entry
        if module.component:
            if entry != "_start":
                raise UnsupportedFeature(f"a component is run by its wasi:cli/run export, not by {entry}")
            return
        if module.facts["problem"]:
            raise UnsupportedFeature(module.facts["problem"])
        check_entry(module.facts["exports"], entry)

    def run(self, module: Loaded, invocation: Invocation) -> int:
        import wasmtime

        store = wasmtime.Store(self._engine)
        store.set_wasi(_wasi(invocation))
        call = self._component(store, module) if module.component else self._module(store, module, invocation.entry)
        try:
            call()
        except _Exit as exit:
            return exit.code
        except wasmtime.ExitTrap as trap:
            return trap.code & 0xFF
        except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
            raise GuestTrap(str(trap)) from None
        return 0

    def _module(self, store: "wasmtime.Store", module: Loaded, entry: str) -> Callable[[], Any]:
        def call() -> Any:
            instance = self._linker.instantiate(store, module.program)
            function: Any = instance.exports(store)[entry]
            return function(store)

        return call

    def _component(self, store: "wasmtime.Store", module: Loaded) -> Callable[[], Any]:
        def call() -> None:
            instance = self._component_linker.instantiate(store, module.program)
            function = _command(instance, store)
            if function is None:
                raise EngineError("the component does not export wasi:cli/run")
            if _failed(function(store)):
                raise _Exit(1)

        return call


def make_engine(*, parallel: bool, epochs: bool = False) -> "wasmtime.Engine":
    """The same configuration wherever it is made: artefacts are tied to it.

    :param epochs: whether code can be interrupted, which costs some speed: for servers, whose requests have an end.
        They have host functions of ours, and wasmtime 50 traps at one that borrows two resources ("BUG: deferred host
        scope has no call context") unless its support of concurrency, of WASI 0.3, is off.
    """
    import wasmtime
    from wasmtime import _bindings

    config = wasmtime.Config()
    config.parallel_compilation = parallel
    config.wasm_component_model = True
    config.epoch_interruption = epochs
    if epochs:
        _bindings.wasmtime_config_concurrency_support_set(config.ptr(), False)
    return wasmtime.Engine(config)


def load_server(engine: "wasmtime.Engine", artifact: Path) -> Any:
    """A component that serves HTTP, for an engine with ``epochs``.

    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is another kind of program
    """
    import wasmtime
    from wasmtime import component

    if not (artifact / _SERVER).exists() and (artifact / _FACTS).exists():
        raise UnsupportedFeature("the component does not export wasi:http/incoming-handler")
    try:
        return component.Component.deserialize_file(engine, str(artifact / _SERVER))
    except wasmtime.WasmtimeError as error:
        raise BrokenArtifact(f"the compiled module {artifact} does not load: {_sentence(error)}") from None


def _serves(engine: "wasmtime.Engine", program: Any) -> bool:
    return any(name.startswith(_HANDLER) for name in program.type.exports(engine))


def _exit(code: int) -> None:
    raise _Exit(code)


def _linker(engine: "wasmtime.Engine") -> "wasmtime.Linker":
    import wasmtime

    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    linker.define_func(_WASI, "proc_exit", wasmtime.FuncType([wasmtime.ValType.i32()], []), _exit)
    return linker


def _problem(linker: "wasmtime.Linker", module: "wasmtime.Module") -> str | None:
    """Why a module cannot run here, for want of what it imports."""
    import wasmtime

    for item in module.imports:
        if item.module != _WASI:
            way_out = " (WASIX modules run on wasmer)" if item.module.startswith("wasix") else ""
            return f"the module imports {item.module}.{item.name}, which is not WASI preview 1{way_out}"
    try:
        linker.instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        return f"the module does not link: {_sentence(error)}"
    return None


def _exports(module: "wasmtime.Module") -> dict[str, str | None]:
    """Each export's name, with why it cannot be an entry."""
    import wasmtime

    found: dict[str, str | None] = {}
    for export in module.exports:
        if not isinstance(export.type, wasmtime.FuncType):
            found[export.name] = NO_FUNCTION
        elif export.type.params or export.type.results:
            found[export.name] = "takes parameters or gives results; an entry does neither"
        else:
            found[export.name] = None
    return found


def _wasi(invocation: Invocation) -> "wasmtime.WasiConfig":
    import wasmtime
    from wasmtime import _bindings

    config = wasmtime.WasiConfig()
    config.argv = list(invocation.args)
    config.env = list(environment(invocation).items())
    config.inherit_stdin()
    config.inherit_stdout()
    config.inherit_stderr()
    for preopen in top_preopens(invocation):
        config.preopen_dir(preopen[0], preopen[1], not preopen[2])
    if invocation.network:  # preview 2's sockets: the binding has the C library's functions, but no method for them
        _bindings.wasi_config_inherit_network(config.ptr())
        _bindings.wasi_config_allow_ip_name_lookup(config.ptr(), True)
    return config


def _command(instance: Any, store: "wasmtime.Store") -> Any:
    """The ``run`` function of the newest ``wasi:cli/run`` that the component exports."""
    for minor in range(12, -1, -1):
        index = instance.get_export_index(store, f"wasi:cli/run@0.2.{minor}")
        if index is not None:
            run = instance.get_export_index(store, "run", index)
            return instance.get_func(store, run) if run is not None else None
    return None


def _failed(result: Any) -> bool:
    """Whether ``result<_, _>`` is its error case."""
    return getattr(result, "tag", None) == "err"


def _sentence(error: Exception) -> str:
    """The innermost cause of the engine's chain of messages, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.split(": ", 1)[1] for line in lines if line[:1].isdigit() and ": " in line]
    text = causes[-1] if causes else (lines[0] if lines else type(error).__name__)
    return " ".join(text.split())
