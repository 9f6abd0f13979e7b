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
from shimd.engines.core import NO_ENTRY, NO_FUNCTION, WASI, check_entry, environment, top_preopens
from shimd.linux.packed import pack

if TYPE_CHECKING:
    import wasmtime

    from shimd.engines.doors import Doors

#: Bumped when the configuration below changes what a compiled artefact is.
_CONFIG = 4
#: The version and layer fields after ``\0asm``: 1, and the component model's layer 1 (component-model Binary.md).
_COMPONENT = b"\0asm\x0d\x00\x01\x00"
#: Files of an artefact: the compiled program, by kind, and what :meth:`WasmtimeEngine.check` must know of it.
_MODULE, _COMPONENT_FILE, _SERVER, SOCKETS, _GUEST = "module", "component", "server", "sockets", "guest"
_FACTS = "facts.json"
#: What a module of wit-bindgen 0.2 exports: Slight's, which is compiled to be interrupted, as servers are.
_REALLOC = b"canonical_abi_realloc"
#: What a component exports that serves: another engine's app, of HTTP or of Spin's other triggers.
_SERVES = ("wasi:http/incoming-handler@", "fermyon:spin/inbound-redis", "handle-cron-event", "handle-message")
_HTTP_ENGINE = "wasi-http"
#: What a component imports that opens sockets: likewise.
_OPENERS = ("wasi:sockets/tcp-create-socket@0.2.", "wasi:sockets/udp-create-socket@0.2.")
_SOCKETS_ENGINE = "wasi-sockets"
#: ``wasmtime.c``, where a compiler was there to build it.
_IN_C = Path(__file__).with_name("_wasmtime.so")
_NOTHING = ("/proc/self/fdinfo", "/", True)


@dataclass
class Loaded:
    """A compiled program and how it will be run."""

    program: Any
    component: bool
    facts: dict[str, Any]
    """Of a module: ``problem``, why it cannot run here, or null; ``exports``, each with why it is no entry, or null;
    ``accepts``, whether it can accept connections."""
    artifact: Path
    doors: "Doors | None" = None
    """For a guest that is given sockets."""


class _Exit(Exception):
    """proc_exit, with codes that the binding's own refuses (126 to 255)."""

    def __init__(self, code: int) -> None:
        self.code = code & 0xFF


class WasmtimeEngine:
    name: ClassVar[str] = "wasmtime"
    takes_sockets: ClassVar[bool] = True

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

        from shimd.engines import doors

        facts: dict[str, Any] = {}
        engine = make_engine(parallel=True)
        try:
            binary = wasm if wasm.startswith(b"\0asm") else bytes(wasmtime.wat2wasm(wasm))
            kind = _COMPONENT_FILE if binary.startswith(_COMPONENT) else _MODULE
            if kind == _COMPONENT_FILE and any(name.encode() in binary for name in (*_SERVES, *_OPENERS)):
                kind, engine = _SERVER, make_engine(parallel=True, epochs=True)
            if kind == _MODULE and _REALLOC in binary:
                kind, engine = _GUEST, make_engine(parallel=True, epochs=True)
            compiled: Any = (wasmtime.Module if kind in (_MODULE, _GUEST) else component.Component)(engine, binary)
            if kind == _SERVER and not _serves(engine, compiled):
                kind = SOCKETS
            if kind == SOCKETS and not _opens_sockets(engine, compiled):  # the name stands there for something else
                kind, engine = _COMPONENT_FILE, make_engine(parallel=True)
                compiled = component.Component(engine, binary)
            if kind == _GUEST and all(item.module == WASI for item in compiled.imports):  # as any other module
                kind, engine = _MODULE, make_engine(parallel=True)
                compiled = wasmtime.Module(engine, binary)
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(f"not valid WebAssembly: {sentence(error)}") from None
        artifact.mkdir()
        if kind in (_MODULE, _GUEST):
            facts = {"problem": _problem(_linker(engine), compiled), "exports": _exports(compiled)}
        if kind == _COMPONENT_FILE:
            facts = {"problem": _newer(engine, compiled)}
        if kind == _MODULE:
            facts["accepts"] = doors.compile(engine, compiled, artifact)
        (artifact / _FACTS).write_text(json.dumps(facts))
        (artifact / kind).write_bytes(compiled.serialize())

    def load(self, artifact: Path) -> Loaded:
        """:raises OtherEngine: it serves HTTP, or opens sockets"""
        import wasmtime
        from wasmtime import component

        directory = str(artifact)
        if os.path.exists(f"{directory}/{_GUEST}"):
            raise UnsupportedFeature(_facts(artifact)["problem"])
        is_component = os.path.exists(f"{directory}/{_COMPONENT_FILE}")
        if not is_component and not os.path.exists(f"{directory}/{_MODULE}"):
            _hand_over(directory)
        kind, file = (component.Component, _COMPONENT_FILE) if is_component else (wasmtime.Module, _MODULE)
        try:
            with open(f"{directory}/{_FACTS}", "rb") as facts:
                program = kind.deserialize_file(self._engine, f"{directory}/{file}")
                return Loaded(program, is_component, json.loads(facts.read()), artifact)
        except (wasmtime.WasmtimeError, OSError, ValueError) as error:
            raise BrokenArtifact(f"the compiled module {artifact} does not load: {sentence(error)}") from None

    def check(self, module: Loaded, invocation: Invocation) -> None:
        entry = invocation.entry
        if module.component:
            if entry != "_start":
                raise UnsupportedFeature(f"a component is run by its wasi:cli/run export, not by {entry}")
            if problem := module.facts.get("problem"):
                raise UnsupportedFeature(f"the component {problem}")
            if invocation.listening:
                raise UnsupportedFeature("a component opens its listening sockets itself, it cannot be given any")
            return
        check_entry(module.facts, entry)
        if invocation.listening:
            self._prepare_sockets(module)

    def _prepare_sockets(self, module: Loaded) -> None:
        from shimd.engines.doors import Doors

        if not module.facts["accepts"]:
            raise UnsupportedFeature("the module cannot accept connections: it does not import WASI's sock_accept")
        module.doors = Doors(self._engine, module.artifact)

    def in_c(self) -> int | None:
        import ctypes

        from wasmtime._bindings import dll  # type: ignore[attr-defined]

        if not _IN_C.is_file():
            return None
        self._in_c = ctypes.CDLL(str(_IN_C)).shimd_wasmtime
        self._in_c.restype = ctypes.c_void_p
        address: int | None = self._in_c(ctypes.c_void_p(dll._handle), self._engine.ptr())
        return address

    def pack(self, artifact: Path, invocation: Invocation) -> bytes | None:
        facts = _unloaded(str(artifact))
        if facts is None:
            return None
        self.check(facts, invocation)
        file = _COMPONENT_FILE if facts.component else _MODULE
        env = list(environment(invocation).items())
        return pack(
            (
                os.fsencode(f"{artifact}/{file}"),
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
            )
        )

    def run(self, module: Loaded, invocation: Invocation) -> int:
        import wasmtime

        store = wasmtime.Store(self._engine)
        store.set_wasi(wasi(invocation))
        call = self._component(store, module) if module.component else self._module(store, module, invocation)
        try:
            call()
        except _Exit as exit:
            return exit.code
        except wasmtime.ExitTrap as trap:
            return trap.code & 0xFF
        except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
            raise GuestTrap(str(trap)) from None
        return 0

    def _module(self, store: "wasmtime.Store", module: Loaded, invocation: Invocation) -> Callable[[], Any]:
        def call() -> Any:
            if module.doors is None:
                instance = self._linker.instantiate(store, module.program)
            else:
                linker = _linker(self._engine)
                instance = module.doors.instantiate(store, linker, module.program, invocation.listening)
            function: Any = instance.exports(store)[invocation.entry]
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

    wasmtime 50 traps at a host function of ours that borrows two resources ("BUG: deferred host scope has no call
    context") unless its support of concurrency, of WASI 0.3, is off.

    :param epochs: whether code can be interrupted, which costs some speed: for servers, whose requests have an end
    """
    import wasmtime
    from wasmtime import _bindings

    config = wasmtime.Config()
    config.parallel_compilation = parallel
    config.wasm_component_model = True
    config.epoch_interruption = epochs
    _bindings.wasmtime_config_concurrency_support_set(config.ptr(), False)
    return wasmtime.Engine(config)


def load_server(engine: "wasmtime.Engine", artifact: Path) -> Any:
    """A component that serves HTTP, for an engine with ``epochs``.

    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is another kind of program
    """
    if not (artifact / _SERVER).exists() and (artifact / _FACTS).exists():
        raise UnsupportedFeature(_why_it_serves_not(artifact))
    return load_component(engine, artifact, _SERVER)


def load_component(engine: "wasmtime.Engine", artifact: Path, kind: str) -> Any:
    """:raises BrokenArtifact: it does not load"""
    import wasmtime
    from wasmtime import component

    try:
        return component.Component.deserialize_file(engine, str(artifact / kind))
    except wasmtime.WasmtimeError as error:
        raise BrokenArtifact(f"the compiled module {artifact} does not load: {sentence(error)}") from None


def load_guest(
    interruptible: "wasmtime.Engine", plain: "wasmtime.Engine", artifact: Path
) -> tuple["wasmtime.Engine", "wasmtime.Module"]:
    """A core module of wit-bindgen 0.2, or one that imports WASI only, and the engine that it is for.

    :param interruptible: an engine with ``epochs``
    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is a component
    """
    import wasmtime

    guest, module = artifact / _GUEST, artifact / _MODULE
    if not guest.exists() and not module.exists() and (artifact / _FACTS).exists():
        raise UnsupportedFeature("the program is a component, and Slight's are core modules")
    engine, file = (interruptible, guest) if guest.exists() else (plain, module)
    try:
        return engine, wasmtime.Module.deserialize_file(engine, str(file))
    except wasmtime.WasmtimeError as error:
        raise BrokenArtifact(f"the compiled module {artifact} does not load: {sentence(error)}") from None


def _facts(artifact: Path) -> dict[str, Any]:
    """:raises BrokenArtifact: they cannot be read"""
    try:
        facts: dict[str, Any] = json.loads((artifact / _FACTS).read_bytes())
    except (OSError, ValueError) as error:
        raise BrokenArtifact(f"the compiled module {artifact} does not load: {error}") from None
    return facts


def _hand_over(directory: str) -> None:
    for kind, engine in ((_SERVER, _HTTP_ENGINE), (SOCKETS, _SOCKETS_ENGINE)):
        if os.path.exists(f"{directory}/{kind}"):
            raise OtherEngine(engine)


def load_command(engine: "wasmtime.Engine", artifact: Path) -> Any:
    """A component that is a command, for an engine without ``epochs``.

    :raises BrokenArtifact: it does not load
    :raises UnsupportedFeature: it is another kind of program
    """

    if (artifact / _MODULE).exists():
        raise UnsupportedFeature("it is a core module, and commands are components here")
    return load_component(engine, artifact, _COMPONENT_FILE)


def is_server(artifact: Path) -> bool:
    """Whether it is for :func:`load_server`."""
    return (artifact / _SERVER).exists()


def _why_it_serves_not(artifact: Path) -> str:
    if (artifact / _MODULE).exists():
        return (
            "it is a core module, and servers are components: rebuild it with a newer SDK (Spin's: 2.3 or later), or "
            "convert it: wasm-tools component new --adapt wasi_snapshot_preview1.reactor.wasm"
        )
    problem = json.loads((artifact / _FACTS).read_bytes()).get("problem")
    return f"it {problem or 'is a component that serves nothing: it exports no wasi:http/incoming-handler'}"


def _newer(engine: "wasmtime.Engine", program: Any) -> str | None:
    """Why a component of WASI 0.3 does not run: its functions pass streams, of which the C API makes no values."""
    for name in program.type.exports(engine):
        if "@0.3." in name or name.startswith("spin:redis/inbound-redis@3"):
            return (
                f"exports {name}, which is WASI 0.3: its streams cannot be passed by wasmtime's C API. "
                "Build it for WASI 0.2: Python apps with spin-sdk 3.4 and componentize-py 0.17"
            )
    return None


def _serves(engine: "wasmtime.Engine", program: Any) -> bool:
    return any(name.startswith(_SERVES) for name in program.type.exports(engine))


def _unloaded(artifact: str) -> Loaded | None:
    """Of a program that is not loaded yet; ``None`` if it is not for this engine, or broken."""
    kinds = [kind for kind in (_MODULE, _COMPONENT_FILE) if os.path.exists(f"{artifact}/{kind}")]
    if not kinds:
        return None
    try:
        with open(f"{artifact}/{_FACTS}", "rb") as facts:
            return Loaded(None, kinds == [_COMPONENT_FILE], json.loads(facts.read()), Path(artifact))
    except (OSError, ValueError):
        return None


def _opens_sockets(engine: "wasmtime.Engine", program: Any) -> bool:
    return any(name.startswith(_OPENERS) for name in program.type.imports(engine))


def _exit(code: int) -> None:
    raise _Exit(code)


def _linker(engine: "wasmtime.Engine") -> "wasmtime.Linker":
    import wasmtime

    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    linker.define_func(WASI, "proc_exit", wasmtime.FuncType([wasmtime.ValType.i32()], []), _exit)
    return linker


def _problem(linker: "wasmtime.Linker", module: "wasmtime.Module") -> str | None:
    """Why a module cannot run here, for want of what it imports."""
    import wasmtime

    for item in module.imports:
        if item.module != WASI:
            way_out = " (WASIX modules run on wasmer)" if item.module.startswith("wasix") else ""
            if item.module == "canonical_abi" or any(other.module == "canonical_abi" for other in module.imports):
                way_out = " (Slight's modules run on slight, beside a /slightfile.toml)"
            return f"the module imports {item.module}.{item.name}, which is not WASI preview 1{way_out}"
    try:
        linker.instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        return f"the module does not link: {sentence(error)}"
    return None


def _exports(module: "wasmtime.Module") -> dict[str, str | None]:
    """Each export's name, with why it cannot be an entry."""
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
    # A socket's number is an entry of wasmtime's table, too, which no call ever reaches (``doors.py``).
    for host, guest, read_only in [*(preopens[:1] or [_NOTHING]) * len(invocation.listening), *preopens]:
        config.preopen_dir(host, guest, not read_only)
    if invocation.network:  # names only: the library has no function that allows sockets (``wasi_sockets.py``)
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


def sentence(error: Exception) -> str:
    """The innermost cause of the engine's chain of messages, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.split(": ", 1)[1] for line in lines if line[:1].isdigit() and ": " in line]
    text = causes[-1] if causes else (lines[0] if lines else type(error).__name__)
    return " ".join(text.split())
