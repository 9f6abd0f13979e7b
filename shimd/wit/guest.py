"""One instance of a core module: its store, memory and handles; and calls into it, on wasmtime's C API.

The binding's own calls ask for a function's type each time, and keep what a host function raised in one place for all
threads. Here a call is an array of numbers, and a failure is its guest's.
"""

import ctypes
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import wasmtime
from wasmtime import _bindings as c

from shimd.component.caller import ComputeLease
from shimd.component.current import Current
from shimd.wit.memory import Fault, Handles
from shimd.wit.resolve import ResolvedFunction
from shimd.wit.types import Number

#: Kinds of what a module exports (``wasmtime/extern.h``).
_FUNC, _MEMORY = 0, 3


class ModuleGuest:
    """A store with an instance: a :class:`~shimd.wit.memory.Memory`. Entered by one thread at a time."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self.store = wasmtime.Store(engine)
        self.handles = Handles()
        self.lease: ComputeLease | None = None
        """The guest's permission to compute, which is released while the host works for it; ``None``: it needs none."""
        self.abandoned = False
        """True once nobody waits for it: a host function that waits raises
        :class:`~shimd.component.results.Abandoned`."""
        self.failure: BaseException | None = None
        """The exception that a host function raised last; it ended the guest's call."""
        self._context = self.store._context()
        self._instance: Any = None
        self._memory: Any = None
        self._realloc: Any = None

    def start(self, pre: wasmtime.InstancePre) -> None:
        """Instantiate the module, and call its ``_initialize`` if it has one.

        :raises wasmtime.WasmtimeError: the start function failed
        """
        with self.entered():
            self._instance = pre.instantiate(self.store)._instance
            self._memory = self._export("memory", _MEMORY)
            self._realloc = self._export("canonical_abi_realloc", _FUNC)
        if (initialize := self._export("_initialize", _FUNC)) is not None:
            self._run(initialize, [], [], [])

    def invoke(self, export: str) -> None:
        """Call a function that takes and gives nothing."""
        self._run(self._function(export), [], [], [])

    def call(self, function: ResolvedFunction, export: str, *values: Any) -> Any:
        """Call an exported function of an interface, by whatever name it has here.

        What the guest gives stays its own: an instance is used for one call.

        :raises BaseException: what a host function raised
        :raises wasmtime.WasmtimeError: the guest trapped (also ``wasmtime.Trap``)
        :raises Fault: its answer breaks the ABI
        """
        numbers: list[Number] = []
        with self.entered():
            for param, value in zip(function.params, values, strict=True):
                numbers += param.lower(self, value)
        kinds = ["i32"] if function.indirect else list(function.result.flat)
        answer = self._run(self._function(export), numbers, function.flat_params, kinds)
        if function.indirect:
            return function.result.load(self, int(answer[0]) & 0xFFFFFFFF)
        return function.result.lift(self, iter(answer))

    # What values need

    def read(self, address: int, size: int) -> bytes:
        self._within(address, size)
        return ctypes.string_at(self._base() + address, size)

    def write(self, address: int, data: bytes) -> None:
        self._within(address, len(data))
        ctypes.memmove(self._base() + address, data, len(data))

    def allocate(self, size: int, align: int) -> int:
        if self._realloc is None:
            raise Fault("the module exports no function canonical_abi_realloc")
        numbers = self._run(self._realloc, [0, 0, align, size], ["i32"] * 4, ["i32"])
        return int(numbers[0]) & 0xFFFFFFFF

    def _within(self, address: int, size: int) -> None:
        if self._memory is None:
            raise Fault("the module exports no memory")
        length = c.wasmtime_memory_data_size(self._context, ctypes.byref(self._memory))
        if address + size > length:
            raise Fault(f"{size} bytes at {address:#x} reach beyond the guest's memory of {length} bytes")

    def _base(self) -> int:
        """Returns the current address of the memory: it may move as it grows."""
        pointer = c.wasmtime_memory_data(self._context, ctypes.byref(self._memory))
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0

    # Calls

    def _run(
        self, function: Any, numbers: Sequence[Number], kinds: Sequence[str], gives: Sequence[str]
    ) -> list[Number]:
        slots = (c.wasmtime_val_raw * max(1, len(numbers), len(gives)))()
        for slot, number, kind in zip(slots, numbers, kinds, strict=False):
            setattr(slot, kind, number)
        trap = ctypes.POINTER(c.wasm_trap_t)()
        self.failure = None
        with self.entered():
            error = c.wasmtime_func_call_unchecked(
                self._context, ctypes.byref(function), slots, len(slots), ctypes.byref(trap)
            )
        if error:
            raise self._reason(wasmtime.WasmtimeError._from_ptr(error))
        if trap:
            raise self._reason(wasmtime.Trap._from_ptr(trap))
        return [getattr(slot, kind) for slot, kind in zip(slots, gives, strict=False)]

    def _reason(self, trap: BaseException) -> BaseException:
        failure, self.failure = self.failure, None
        return failure or trap

    def _function(self, name: str) -> Any:
        found = self._export(name, _FUNC)
        if found is None:
            raise Fault(f"the module exports no function {name}")
        return found

    def _export(self, name: str, kind: int) -> Any:
        text = name.encode()
        buffer, found = ctypes.create_string_buffer(text), c.wasmtime_extern_t()
        there = c.wasmtime_instance_export_get(
            self._context, ctypes.byref(self._instance), buffer, len(text), ctypes.byref(found)
        )
        if not there or int(found.kind) != kind:
            return None
        return found.of.memory if kind == _MEMORY else found.of.func

    def entered(self) -> AbstractContextManager[None]:
        """Make this guest the current one of this thread for the length of the block."""
        return current.entered(self)

    def close(self) -> None:
        self.store.close()


current: Current[ModuleGuest] = Current()
