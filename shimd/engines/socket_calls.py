"""Two small modules between a guest and wasmtime's WASI preview 1: they lead calls about sockets to other functions.

wasmtime 50 gives no sockets to such modules, and its functions find the guest's memory in the instance that calls
them, so that Python cannot call them in its stead. WebAssembly can:

* the *trampolines* are what the guest imports: each calls what stands in its place of a table, since
* the *dispatcher*, which fills the table, imports the guest's memory and so can only be there after it. It asks the
  sockets' functions of what is theirs, and wasmtime's of all else, with no way through Python.

They are made with the guest's compiled form, for guests that can accept connections.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shimd.wasi.preview1 import abi, poll, sockets

if TYPE_CHECKING:
    import wasmtime

_WASI = "wasi_snapshot_preview1"
_TRAMPOLINES, _DISPATCHER = "trampolines", "dispatcher"
_POLL = "poll_oneoff"
#: Their first argument is no descriptor.
_OTHERS = frozenset({"path_symlink"})
ImportedFunction = tuple[str, Sequence[str]]
"""Name and types of its parameters; its result is an ``errno``."""


def compile(engine: "wasmtime.Engine", module: "wasmtime.Module", artifact: Path) -> bool:
    """Write both modules into an artefact, if its guest can accept connections; whether it can."""
    import wasmtime

    functions = _led(module)
    accepts = any(name == "sock_accept" for name, _parameters in functions)
    if not accepts or not any(export.name == "memory" for export in module.exports):
        return False
    for name, text in ((_TRAMPOLINES, _trampolines(functions)), (_DISPATCHER, _dispatcher(functions))):
        compiled = wasmtime.Module(engine, bytes(wasmtime.wat2wasm(text)))
        (artifact / name).write_bytes(compiled.serialize())
    return True


def _led(module: "wasmtime.Module") -> list[ImportedFunction]:
    """Returns the imported functions that may be about sockets, each once: programs of Go import some twice."""
    import wasmtime

    found: dict[str, Sequence[str]] = {}
    for item in module.imports:
        about = item.name == _POLL or (item.name or "").startswith(("fd_", "path_", "sock_"))
        if item.module == _WASI and about and item.name not in _OTHERS and isinstance(item.type, wasmtime.FuncType):
            found[item.name or ""] = [str(kind) for kind in item.type.params]
    return list(found.items())


def _trampolines(functions: Sequence[ImportedFunction]) -> str:
    lines = [f'(table (export "table") {len(functions)} funcref)']
    for index, (name, parameters) in enumerate(functions):
        lines.append(f"(type $t{index} (func {_signature(parameters)}))")
        arguments = _arguments(parameters)
        call = f"(call_indirect (type $t{index}) {arguments} (i32.const {index}))"
        lines.append(f'(func (export "{name}") (type $t{index}) {call})')
    return f"(module {' '.join(lines)})"


def _dispatcher(functions: Sequence[ImportedFunction]) -> str:
    own = (
        f"(i32.or (i32.lt_u (i32.sub (local.get 0) (i32.const {abi.FIRST})) (global.get $given))"
        f" (i32.ge_u (local.get 0) (i32.const {sockets.CONNECTIONS})))"
    )
    lines = ['(import "guest" "memory" (memory 0))', f'(import "trampolines" "table" (table {len(functions)} funcref))']
    lines.append('(import "sockets" "given" (global $given i32))')
    for source, mark in ((_WASI, "wasi"), ("sockets", "own")):
        for index, (name, parameters) in enumerate(functions):
            lines.append(f'(import "{source}" "{name}" (func ${mark}{index} {_signature(parameters)}))')
    lines.append('(export "memory" (memory 0))')
    for index, (name, parameters) in enumerate(functions):
        arguments = _arguments(parameters)
        wasi, ours = f"(call $wasi{index} {arguments})", f"(call $own{index} {arguments})"
        if name == _POLL:
            answer = f"(local.tee $said {ours})"
            body = f"(if (result i32) (i32.eq {answer} (i32.const {poll.FOREIGN}))"
            body += f" (then {wasi}) (else (local.get $said)))"
        else:
            body = f"(if (result i32) {own} (then {ours}) (else {wasi}))"
        lines.append(f"(func $f{index} {_signature(parameters)} (local $said i32) {body})")
    lines.append(f"(elem (i32.const 0) func {' '.join(f'$f{index}' for index in range(len(functions)))})")
    return f"(module {' '.join(lines)})"


def _signature(parameters: Sequence[str]) -> str:
    return f"(param {' '.join(parameters)}) (result i32)"


def _arguments(parameters: Sequence[str]) -> str:
    return " ".join(f"(local.get {number})" for number in range(len(parameters)))


class SocketCalls:
    """Both modules, loaded."""

    def __init__(self, engine: "wasmtime.Engine", artifact: Path) -> None:
        import wasmtime

        self._trampolines = wasmtime.Module.deserialize_file(engine, str(artifact / _TRAMPOLINES))
        self._dispatcher = wasmtime.Module.deserialize_file(engine, str(artifact / _DISPATCHER))

    def instantiate(
        self, store: "wasmtime.Store", linker: "wasmtime.Linker", guest: "wasmtime.Module", listening: Sequence[int]
    ) -> "wasmtime.Instance":
        """Instantiate the guest, with these sockets as its first descriptors.

        :param linker: with wasmtime's WASI, to be changed: shadowing is allowed
        """
        import wasmtime

        trampolines = wasmtime.Instance(store, self._trampolines, []).exports(store)
        names = [name for name in trampolines if name != "table"]
        wasi = {(_WASI, name): linker.get(store, _WASI, name) for name in names}
        for name in names:
            linker.define(store, _WASI, name, trampolines[name])
        instance = linker.instantiate(store, guest)
        known = {
            ("guest", "memory"): instance.exports(store)["memory"],
            ("trampolines", "table"): trampolines["table"],
            ("sockets", "given"): _constant(store, len(listening)),
            **wasi,
            **_host_functions(store, wasi, sockets.Sockets(listening)),
        }
        wasmtime.Instance(
            store, self._dispatcher, [known[item.module, item.name or ""] for item in self._dispatcher.imports]
        )
        return instance


def _constant(store: "wasmtime.Store", value: int) -> "wasmtime.Global":
    import wasmtime

    return wasmtime.Global(store, wasmtime.GlobalType(wasmtime.ValType.i32(), False), value)


def _host_functions(
    store: "wasmtime.Store", wasi: Mapping[tuple[str, str], Any], given: sockets.Sockets
) -> dict[tuple[str, str], Any]:
    """Returns a function for sockets for each of WASI's, of the same type."""
    import wasmtime

    return {
        ("sockets", name): wasmtime.Func(store, original.type(store), _function(name, given), access_caller=True)
        for (_module, name), original in wasi.items()
    }


def _function(name: str, given: sockets.Sockets) -> Callable[..., int]:
    def call(caller: "wasmtime.Caller", *arguments: int) -> int:
        memory: Any = caller["memory"]
        view = memoryview(memory.get_buffer_ptr(caller)).cast("B")
        unsigned = [argument & 0xFFFF_FFFF for argument in arguments]  # what has 64 bits, sockets do not look at
        if name == _POLL:
            return given.poll_oneoff(view, *unsigned)
        return given.call(name, view, *unsigned)

    return call
