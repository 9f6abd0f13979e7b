"""wasmtime: core modules with WASI preview 1, and components with WASI preview 2 (commands).

The engine, the linkers and all host functions are made in the fork server; a worker maps the compiled module, makes a
store and runs. ``parallel_compilation`` is off there: a thread pool would not survive the fork.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from shimd.engines.base import EngineError, GuestTrap, InvalidModule, Invocation, UnsupportedFeature

if TYPE_CHECKING:
    import wasmtime

#: Bumped when the configuration below changes what a compiled artefact is.
_CONFIG = 1
#: The version and layer fields after ``\0asm``: 1, and the component model's layer 1 (component-model Binary.md).
_COMPONENT = b"\0asm\x0d\x00\x01\x00"
_WASI = "wasi_snapshot_preview1"
#: First byte of an artefact: what the compiled form that follows in the second file is.
_SUFFIX = {True: "component", False: "module"}


@dataclass
class Loaded:
    """A compiled program and how it will be run."""

    program: Any
    component: bool


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
        return f"{version('wasmtime')}-{_CONFIG}-{platform.machine()}"

    def warm(self) -> None:
        import wasmtime
        from wasmtime import component

        self._engine = _engine(parallel=False)
        self._linker = wasmtime.Linker(self._engine)
        self._linker.allow_shadowing = True
        self._linker.define_wasi()
        i32 = wasmtime.ValType.i32()
        self._linker.define_func(_WASI, "proc_exit", wasmtime.FuncType([i32], []), _exit)
        self._component_linker = component.Linker(self._engine)
        self._component_linker.add_wasip2()

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        import wasmtime
        from wasmtime import component

        engine = _engine(parallel=True)
        try:
            binary = wasm if wasm.startswith(b"\0asm") else bytes(wasmtime.wat2wasm(wasm))
            is_component = binary.startswith(_COMPONENT)
            compiled = component.Component(engine, binary) if is_component else wasmtime.Module(engine, binary)
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(f"not valid WebAssembly: {_sentence(error)}") from None
        artifact.mkdir()
        (artifact / _SUFFIX[is_component]).write_bytes(compiled.serialize())

    def load(self, artifact: Path) -> Loaded:
        import wasmtime
        from wasmtime import component

        is_component = (artifact / "component").exists()
        kind = component.Component if is_component else wasmtime.Module
        try:
            program = kind.deserialize_file(self._engine, str(artifact / _SUFFIX[is_component]))
        except wasmtime.WasmtimeError as error:
            raise EngineError(f"the compiled module {artifact} does not load: {_sentence(error)}") from None
        return Loaded(program, is_component)

    def check(self, module: Loaded, invocation: Invocation) -> None:
        if not module.component:
            self._check_imports(module.program)
            _check_entry(module.program, invocation.entry)
        elif invocation.entry == "_start":
            return
        else:
            raise UnsupportedFeature(f"a component is run by its wasi:cli/run export, not by {invocation.entry}")

    def _check_imports(self, module: "wasmtime.Module") -> None:
        import wasmtime

        for item in module.imports:
            if item.module == _WASI and item.name:
                continue
            raise UnsupportedFeature(
                f"the module imports {item.module}.{item.name}, which is not WASI preview 1"
                + (" (WASIX modules run on wasmer)" if item.module.startswith("wasix") else "")
            )
        try:
            self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise UnsupportedFeature(f"the module does not link: {_sentence(error)}") from None

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


def _engine(*, parallel: bool) -> "wasmtime.Engine":
    """The same configuration wherever it is made: artefacts are tied to it."""
    import wasmtime

    config = wasmtime.Config()
    config.parallel_compilation = parallel
    config.wasm_component_model = True
    return wasmtime.Engine(config)


def _exit(code: int) -> None:
    raise _Exit(code)


def _check_entry(module: "wasmtime.Module", entry: str) -> None:
    import wasmtime

    for export in module.exports:
        if export.name == entry:
            if not isinstance(export.type, wasmtime.FuncType):
                raise InvalidModule(f"the export {entry} is not a function")
            if export.type.params or export.type.results:
                raise InvalidModule(f"the function {entry} takes parameters or gives results; an entry does neither")
            return
    functions = [export.name for export in module.exports if isinstance(export.type, wasmtime.FuncType)]
    raise InvalidModule(f"the module exports no function {entry} (it has: {', '.join(functions) or 'none'})")


def _wasi(invocation: Invocation) -> "wasmtime.WasiConfig":
    import wasmtime

    config = wasmtime.WasiConfig()
    config.argv = list(invocation.args)
    # wasi-libc knows no working directory but this convention (its `__wasilibc_find_relpath` starts at "/").
    config.env = list({"PWD": invocation.cwd, **invocation.env}.items())
    config.inherit_stdin()
    config.inherit_stdout()
    config.inherit_stderr()
    for preopen in top_preopens(invocation):
        config.preopen_dir(preopen[0], preopen[1], not preopen[2])
    return config


def top_preopens(invocation: Invocation) -> list[tuple[str, str, bool]]:
    """Preopens that no other contains: mounts below are the kernel's to follow.

    WASI preview 1 has no working directory, and wasi-libc strips ``/`` and ``./`` alike before it looks for a preopen,
    so that a preopen for ``.`` would catch absolute paths, too: relative paths are relative to ``/``, and PWD tells
    the rest.
    """
    chosen: list[tuple[str, str, bool]] = []
    for item in sorted(invocation.preopens, key=lambda item: len(item.guest)):
        if not any(item.guest.startswith(guest.rstrip("/") + "/") for _host, guest, _read_only in chosen):
            chosen.append((item.host, item.guest, item.read_only))
    return chosen


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
