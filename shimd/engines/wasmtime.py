"""wasmtime: core modules with WASI preview 1, and components with WASI preview 2 (commands).

This is the one by the package from PyPI. Where ``shimd-wasmtime-native`` is installed, wasmtime is that
(:mod:`.wasmtime_native`), and this one has a name of its own, under which it compiles for Spin and Slight and runs what
that one leaves to it.

The engine, the linkers and all host functions are made in the fork server; a worker maps the compiled module, makes a
store and runs. ``parallel_compilation`` is off there: a thread pool would not survive the fork.
"""

import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from shimd.engine import (
    BrokenArtifact,
    Engine,
    EngineError,
    GuestTrap,
    Invocation,
    OtherEngine,
    UnsupportedFeature,
)
from shimd.engines import contained, wasmtime_config
from shimd.engines.core import (
    ACCEPTS_NONE,
    TAKES_NONE,
    check_command_entry,
    check_entry,
    environment,
    known_facts,
    read_facts,
    top_preopens,
)
from shimd.engines.wasmtime_artifact import (
    COMPONENT_FILE,
    FACTS,
    GUEST,
    MODULE,
    ProcExit,
    compile,
    facts_of,
    load_compiler,
    make_engine,
    make_linker,
    runner,
    sentence,
)
from shimd.formats.outline import Outline
from shimd.linux.packed import pack

if TYPE_CHECKING:
    import wasmtime

    from shimd.engines.socket_calls import SocketCalls

try:
    import shimd_wasmtime_native  # noqa: F401 — where a library is, and no more

    NATIVE = True
except ModuleNotFoundError:
    NATIVE = False
#: The name of this engine.
PORTABLE = "wasmtime-py" if NATIVE else "wasmtime"
_NOTHING = ("/proc/self/fdinfo", "/", True)


@dataclass
class WasmtimeProgram:
    """A compiled program and how it will be run."""

    program: Any
    """``None`` until it is loaded inside."""
    component: bool
    facts: dict[str, Any]
    """Facts of a module: ``problem``, why it cannot run here, or null; ``exports``, each with why it is no entry, or
    null; ``accepts``, whether it can accept connections. Of a component: ``problem``, and ``no_command``, why it is
    none that is run, though it may serve."""
    trampolines: "SocketCalls | None" = None
    """The modules around a guest that is given sockets."""
    listens: bool = False
    """Whether it is."""


class WasmtimeEngine:
    name: ClassVar[str] = PORTABLE
    sockets_without_python: ClassVar[bool] = False

    def __init__(self) -> None:
        self._engine: wasmtime.Engine
        self._linker: wasmtime.Linker
        self._component_linker: Any

    def version(self) -> str:
        from importlib.metadata import version  # not for workers

        from shimd.engines import componentize

        parts = (version("wasmtime"), wasmtime_config.version(), platform.machine(), componentize.version())
        return "-".join(part for part in parts if part)

    def warm(self) -> None:
        from wasmtime import component

        os.environ["TOKIO_WORKER_THREADS"] = "1"  # of wasmtime-wasi, in each app; else one a processor
        contained.library()
        self._engine = make_engine(parallel=False)
        self._linker = make_linker(self._engine)
        self._component_linker = component.Linker(self._engine)
        self._component_linker.add_wasip2()

    def load_compiler(self, *, text: bool) -> None:
        load_compiler()

    def foresee(self, program: Outline, runs_on: str) -> None:
        from shimd.engines import foresight  # in compile workers only

        foresight.for_wasmtime(program, runs_on)

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        compile(wasm, artifact)

    def runner(self, artifact: Path) -> str:
        return runner(str(artifact))

    def load(self, artifact: Path) -> WasmtimeProgram:
        """:raises OtherEngine: it serves HTTP, or opens sockets"""
        directory = str(artifact)
        if os.path.exists(f"{directory}/{GUEST}"):
            raise UnsupportedFeature(facts_of(artifact)["problem"])
        is_component = os.path.exists(f"{directory}/{COMPONENT_FILE}")
        if not is_component and (other := runner(directory)):
            raise OtherEngine(other)
        try:
            return WasmtimeProgram(None, is_component, read_facts(f"{directory}/{FACTS}"))
        except (OSError, ValueError) as error:
            raise BrokenArtifact(f"the compiled module does not load: {sentence(error)}") from None

    def load_inside(self, module: WasmtimeProgram, artifact: Path) -> None:
        import wasmtime
        from wasmtime import component

        kind, file = (component.Component, COMPONENT_FILE) if module.component else (wasmtime.Module, MODULE)
        try:
            module.program = kind.deserialize_file(self._engine, f"{artifact}/{file}")
            if module.listens:
                from shimd.engines.socket_calls import SocketCalls  # loaded by check()

                module.trampolines = SocketCalls(self._engine, artifact)
        except (wasmtime.WasmtimeError, OSError) as error:
            raise BrokenArtifact(f"the compiled module does not load: {sentence(error)}") from None

    def check(self, module: WasmtimeProgram, invocation: Invocation) -> None:
        entry = invocation.entry
        if module.component:
            check_command_entry(entry)
            if problem := module.facts.get("problem") or module.facts.get("no_command"):
                raise UnsupportedFeature(f"the component {problem}")
            if invocation.listening:
                raise UnsupportedFeature(TAKES_NONE)
            return
        check_entry(module.facts, entry)
        if invocation.listening:
            self._prepare_sockets(module)

    def _prepare_sockets(self, module: WasmtimeProgram) -> None:
        from shimd.engines import socket_calls  # noqa: F401 — for load_inside, which can import nothing

        if not module.facts["accepts"]:
            raise UnsupportedFeature(ACCEPTS_NONE)
        module.listens = True

    def enter_container(self) -> None:
        contained.enter()

    def library(self) -> list[str] | None:
        from wasmtime._bindings import dll  # type: ignore[attr-defined]

        return [str(contained.LIBRARY), dll._name, _sizes()] if contained.LIBRARY.is_file() else None

    def pack(self, artifact: Path, invocation: Invocation) -> bytes | None:
        facts = _unloaded(str(artifact))
        if facts is None:
            return None
        self.check(facts, invocation)
        file = COMPONENT_FILE if facts.component else MODULE
        env = list(environment(invocation).items())
        return pack(
            (
                os.fsencode(f"{artifact.name}/{file}"),
                invocation.entry.encode(),
                facts.component,
                len(invocation.args),
                [arg.encode() for arg in invocation.args],
                len(env),
                [name.encode() for name, _value in env],
                [value.encode() for _name, value in env],
                len(preopens := top_preopens(invocation)),
                [(host.encode(), guest.encode(), read_only) for host, guest, read_only in preopens],
                invocation.network,
                invocation.contained,
            )
        )

    def run(self, module: WasmtimeProgram, invocation: Invocation) -> int:
        import wasmtime

        store = wasmtime.Store(self._engine)
        store.set_wasi(wasi(invocation))
        call = self._component(store, module) if module.component else self._module(store, module, invocation)
        try:
            call()
        except ProcExit as exit:
            return exit.code
        except wasmtime.ExitTrap as trap:
            return trap.code & 0xFF
        except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
            raise GuestTrap(str(trap)) from None
        return 0

    def _module(self, store: "wasmtime.Store", module: WasmtimeProgram, invocation: Invocation) -> Callable[[], Any]:
        def call() -> Any:
            if module.trampolines is None:
                instance = self._linker.instantiate(store, module.program)
            else:
                linker = make_linker(self._engine)
                instance = module.trampolines.instantiate(store, linker, module.program, invocation.listening)
            function: Any = instance.exports(store)[invocation.entry]
            return function(store)

        return call

    def _component(self, store: "wasmtime.Store", module: WasmtimeProgram) -> Callable[[], Any]:
        def call() -> None:
            instance = self._component_linker.instantiate(store, module.program)
            function = _command(instance, store)
            if function is None:
                raise EngineError("the component does not export wasi:cli/run")
            if _failed(function(store)):
                raise ProcExit(1)

        return call


def engine() -> Engine[Any]:
    """Returns wasmtime by the native wheel if that is installed, else by the package from PyPI."""
    if not NATIVE:
        return WasmtimeEngine()
    from shimd.engines.wasmtime_native import NativeWasmtime

    return NativeWasmtime()


class CompiledByWasmtime:
    """An engine of wasmtime's family (:class:`shimd.engine.OfFamily`): it runs what wasmtime's engine compiles."""

    family: ClassVar[str] = PORTABLE

    def version(self) -> str:
        return WasmtimeEngine().version()

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        WasmtimeEngine().precompile(wasm, artifact)


def _sizes() -> str:
    """Returns the sizes of the structures that ``wasmtime.c`` declares, as the binding knows them.

    Where they differ, the C API is not the one that ``wasmtime.c`` was written for, and it refuses to run.
    """
    from wasmtime import _bindings

    names = (
        "wasm_byte_vec_t", "wasmtime_val_t", "wasmtime_component_val_t", "wasmtime_instance_t", "wasmtime_extern_t",
        "wasmtime_component_func_t",
    )  # fmt: skip
    return ",".join(str(ctypes.sizeof(getattr(_bindings, name))) for name in names)


def _unloaded(artifact: str) -> WasmtimeProgram | None:
    """Returns a program that is not loaded yet; ``None`` if it is not for this engine, or broken."""
    kinds = [kind for kind in (MODULE, COMPONENT_FILE) if os.path.exists(f"{artifact}/{kind}")]
    if not kinds:
        return None
    try:
        return WasmtimeProgram(None, kinds == [COMPONENT_FILE], known_facts(f"{artifact}/{FACTS}"))
    except (OSError, ValueError):
        return None


def wasi(invocation: Invocation) -> "wasmtime.WasiConfig":
    import wasmtime
    from wasmtime import _bindings

    config = wasmtime.WasiConfig()
    config.argv = list(invocation.args)
    config.env = list(environment(invocation).items())
    config.inherit_stdin()
    config.inherit_stdout()
    config.inherit_stderr()
    preopens = top_preopens(invocation)
    # A socket's number is an entry of wasmtime's table, too, which no call ever reaches (``trampolines.py``).
    for host, guest, read_only in [*(preopens[:1] or [_NOTHING]) * len(invocation.listening), *preopens]:
        config.preopen_dir(host, guest, not read_only)
    if invocation.network:  # names only: the library has no function that allows sockets (``wasi_sockets.py``)
        _bindings.wasi_config_allow_ip_name_lookup(config.ptr(), True)
    return config


def _command(instance: Any, store: "wasmtime.Store") -> Any:
    """Returns the ``run`` function of the newest ``wasi:cli/run`` that the component exports; ``None``: it exports
    none."""
    for minor in range(12, -1, -1):
        index = instance.get_export_index(store, f"wasi:cli/run@0.2.{minor}")
        if index is not None:
            run = instance.get_export_index(store, "run", index)
            return instance.get_func(store, run) if run is not None else None
    return None


def _failed(result: Any) -> bool:
    """Returns whether ``result<_, _>`` is its error case."""
    return getattr(result, "tag", None) == "err"
