"""Python objects as a core module's imports.

An interface is given by an object (a *provider*). A function is the provider's attribute of its name, a resource's
static function the provider's, too, after the resource's name (``keyvalue::open``: ``keyvalue_open``), and a method the
object's own. Handles are cloned and dropped by ``canonical_abi.resource_clone_…`` and ``resource_drop_…``.
"""

import ctypes
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import wasmtime
from wasmtime import _bindings as c

from shimd.component.results import Err, GuestExit
from shimd.wit import resolve
from shimd.wit.guest import ModuleGuest, current
from shimd.wit.resolve import ResolvedFunction
from shimd.wit.syntax import Interface
from shimd.wit.types import Number

_WASI, _HANDLES = "wasi_snapshot_preview1", "canonical_abi"
_KINDS = {
    "i32": wasmtime.ValType.i32,
    "i64": wasmtime.ValType.i64,
    "f32": wasmtime.ValType.f32,
    "f64": wasmtime.ValType.f64,
}
#: A host function of core WebAssembly: from the numbers of its parameters to those of its results.
_Raw = Callable[[list[Number]], list[Number]]


@dataclass(frozen=True)
class Provided:
    interface: Interface
    provider: object


class ModuleHost:
    """A module, linked to WASI preview 1 and its providers: makes instances of it."""

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module, provided: Mapping[str, Provided]) -> None:
        """:raises wasmtime.WasmtimeError: it imports what nobody provides"""
        self._engine = engine
        self._kept: list[Any] = []
        """Callbacks that C holds pointers to."""
        self._linker = wasmtime.Linker(engine)
        self._linker.allow_shadowing = True
        self._linker.define_wasi()
        self._define(_WASI, "proc_exit", ["i32"], [], _exit)
        wanted = {(item.module, item.name) for item in module.imports}
        for name, one in provided.items():
            self._add(name, one, wanted)
        self._pre = self._linker.instantiate_pre(module)

    def instantiate(self, wasi: wasmtime.WasiConfig) -> ModuleGuest:
        """Make a fresh instance.

        :raises wasmtime.WasmtimeError: its start function failed
        """
        guest = ModuleGuest(self._engine)
        guest.store.set_epoch_deadline(1 << 62)
        guest.store.set_wasi(wasi)
        guest.start(self._pre)
        return guest

    def _add(self, name: str, one: Provided, wanted: Collection[tuple[str, str | None]]) -> None:
        """Link the functions of an interface that the module imports."""
        for function in resolve.functions(one.interface):
            if (name, function.symbol) in wanted:
                gives = [] if function.indirect else list(function.result.flat)
                takes = [*function.flat_params, *(["i32"] if function.indirect else [])]
                self._define(name, function.symbol, takes, gives, _wrapped(function, one.provider))
        for resource in one.interface.resources:
            self._define(_HANDLES, f"resource_drop_{resource}", ["i32"], [], _drop(resource))
            self._define(_HANDLES, f"resource_clone_{resource}", ["i32"], ["i32"], _clone(resource))

    def _define(self, module: str, name: str, takes: list[str], gives: list[str], function: _Raw) -> None:
        callback = c.wasmtime_func_unchecked_callback_t(_callback(takes, gives, function))
        self._kept.append(callback)
        kind = wasmtime.FuncType([_KINDS[one]() for one in takes], [_KINDS[one]() for one in gives])
        texts = [ctypes.create_string_buffer(text.encode()) for text in (module, name)]
        error = c.wasmtime_linker_define_func_unchecked(
            self._linker.ptr(),
            texts[0],
            len(texts[0]) - 1,
            texts[1],
            len(texts[1]) - 1,
            kind.ptr(),
            callback,
            None,
            _NO_FINALIZER,
        )
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)


_NO_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0)


def _callback(takes: list[str], gives: list[str], function: _Raw) -> Callable[..., int]:
    def call(_data: Any, _caller: Any, slots: Any, _count: int) -> int:
        try:
            for index, (number, kind) in enumerate(
                zip(function([getattr(slots[index], kind) for index, kind in enumerate(takes)]), gives, strict=True)
            ):
                setattr(slots[index], kind, number)
        except BaseException as error:
            current().failure = error
            return _trap(f"{type(error).__name__}: {error}")
        return 0

    return call


def _trap(text: str) -> int:
    return ctypes.cast(wasmtime.Trap(text)._consume(), ctypes.c_void_p).value or 0


def _wrapped(function: ResolvedFunction, provider: object) -> _Raw:
    implementation = _implementation(function, provider)

    def call(numbers: list[Number]) -> list[Number]:
        guest = current()
        rest = iter(numbers)
        values = [param.lift(guest, rest) for param in function.params]
        value = _worked(guest, implementation, values)
        if not function.indirect:
            return function.result.lower(guest, value)
        function.result.store(guest, int(next(rest)) & 0xFFFFFFFF, value)
        return []

    return call


def _worked(guest: ModuleGuest, implementation: Callable[..., Any], values: list[Any]) -> Any:
    """Call a host function without the compute lock: it may wait for others, and no guest has to wait for this one."""
    if guest.lease is not None:
        guest.lease.release()
    try:
        return implementation(*values)
    except Err as error:
        return error
    finally:
        if guest.lease is not None:
            guest.lease.acquire()


def _implementation(function: ResolvedFunction, provider: object) -> Callable[..., Any]:
    name = function.name.replace("-", "_")
    if function.resource is None:
        return getattr(provider, name)  # type: ignore[no-any-return]
    if function.static:
        return getattr(provider, f"{function.resource}_{name}".replace("-", "_"))  # type: ignore[no-any-return]
    return lambda thing, *values: getattr(thing, name)(*values)


def _drop(resource: str) -> _Raw:
    def drop(numbers: list[Number]) -> list[Number]:
        current().handles.drop(resource, int(numbers[0]) & 0xFFFFFFFF)
        return []

    return drop


def _clone(resource: str) -> _Raw:
    return lambda numbers: [current().handles.clone(resource, int(numbers[0]) & 0xFFFFFFFF)]


def _exit(numbers: list[Number]) -> list[Number]:
    raise GuestExit(int(numbers[0]))
