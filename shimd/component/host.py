"""From interfaces in Python to a component that runs: linking, instantiating, calling."""

import ctypes
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _bindings as c
from wasmtime import component
from wasmtime.component import _types as types

from shimd.component.guest import Guest, current
from shimd.component.providers import Function, Providers, find, implementation
from shimd.component.resources import Resources
from shimd.component.results import Err
from shimd.component.values import Codec, codec
from shimd.engine import UnsupportedFeature

Watch = Callable[[str, str, Function], Function]
"""Returns what is called in place of an imported function, of an interface and a name."""
#: An epoch that does not come.
NEVER = 1 << 62


def _unwatched(_interface: str, _name: str, function: Function) -> Function:
    return function


class Host:
    """A component, linked to its providers: makes instances of it."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        program: component.Component,
        providers: Providers,
        unversioned: Callable[[str], str],
        memory: int = -1,
        watched: Watch = _unwatched,
    ) -> None:
        """:param unversioned: makes one name of those of an interface's compatible versions
        :param memory: the most memory that an instance may have, bytes; -1: no limit

        :raises UnsupportedFeature: it imports what nobody provides
        """
        self._engine = engine
        self._unversioned = unversioned
        self._memory, self._watched = memory, watched
        self._program = program
        self._resources = Resources()
        self._linker = component.Linker(engine)
        self._kept: list[Any] = []
        """Callbacks that C holds pointers to."""
        self._indices: dict[tuple[str, str], component.ExportIndex] = {}
        self._link(providers)

    @property
    def exports(self) -> list[str]:
        return list(self._program.type.exports(self._engine))

    def export(self, name: str) -> str | None:
        """Returns the full name, with its version, of an exported interface; ``name`` is without."""
        return next((export for export in self.exports if self._unversioned(export) == name), None)

    def instantiate(self, deadline: int = NEVER) -> Guest:
        """Make a fresh instance; it must not be entered by two threads at once.

        :param deadline: epochs from now; it is the instance's until it is set anew
        :raises wasmtime.WasmtimeError: its start function failed
        """
        guest = Guest(self._engine)
        guest.store.set_epoch_deadline(deadline)
        if self._memory >= 0:
            guest.store.set_limits(memory_size=self._memory)
        with guest.entered():
            guest.instance = self._linker.instantiate(guest.store, self._program)
        return guest

    def call(self, guest: Guest, interface: str, function: str, *arguments: Any) -> Any:
        """Call an exported function of an instance on this thread.

        :param interface: the full name; empty for a function outside of any interface
        :raises BaseException: what a host function raised
        :raises wasmtime.WasmtimeError: the guest trapped
        """
        found = self._function(guest, interface, function)
        kind = found.type(guest.store)
        values = (c.wasmtime_component_val * max(1, len(arguments)))()
        result = c.wasmtime_component_val()
        guest.failure = None
        with guest.entered():
            try:
                for (_name, parameter), argument, value in zip(kind.params, arguments, values, strict=False):
                    codec(parameter, self._resources).lower(argument, value)
                error = c.wasmtime_component_func_call(
                    ctypes.byref(found._func),
                    guest.context,
                    values,
                    len(arguments),
                    ctypes.byref(result),
                    1 if kind.result is not None else 0,
                )
                if error:
                    trap = wasmtime.WasmtimeError._from_ptr(error)
                    raise guest.failure or trap
                return codec(kind.result, self._resources).lift(result) if kind.result is not None else None
            finally:
                for value in (*values, result):
                    c.wasmtime_component_val_delete(ctypes.byref(value))

    def _function(self, guest: Guest, interface: str, name: str) -> component.Func:
        """Look an exported function up, by an index that is found once: it is the same for all instances."""
        key = interface, name
        if key not in self._indices:
            outer = guest.instance.get_export_index(guest.store, interface) if interface else None
            found = outer is not None or not interface
            inner = guest.instance.get_export_index(guest.store, name, outer) if found else None
            if inner is None:
                raise UnsupportedFeature(f"the component exports no {interface}#{name}")
            self._indices[key] = inner
        function = guest.instance.get_func(guest.store, self._indices[key])
        assert function is not None
        return function

    # Linking

    def _link(self, providers: Providers) -> None:
        with self._linker.root() as root:
            for name, item in self._program.type.imports(self._engine).items():
                kind = item.ty
                if not isinstance(kind, types.ComponentInstanceType):
                    raise UnsupportedFeature(f"the component imports {name}, which is not an interface")
                provider = find(providers, name, self._unversioned)
                if provider is None:
                    raise UnsupportedFeature(f"the component imports {name}, which is not provided")
                with root.add_instance(name) as instance:
                    self._add_interface(instance, name, kind, provider)

    def _add_interface(
        self, instance: component.LinkerInstance, interface: str, kind: types.ComponentInstanceType, provider: object
    ) -> None:
        for name, item in kind.exports(self._engine).items():
            match item.ty:
                case component.ResourceType() as resource:
                    host = component.ResourceType.host(self._resources.id_of(resource))
                    instance.add_resource(name, host, _drop)
                case types.FuncType() as function:
                    self._add_function(instance, interface, name, function, provider)

    def _add_function(
        self, instance: component.LinkerInstance, interface: str, name: str, kind: types.FuncType, provider: object
    ) -> None:
        given = implementation(provider, name) or _missing(f"{interface}#{name}")
        function = self._watched(interface, name, given)
        callback = c.wasmtime_component_func_callback_t(self._callback(function, kind))
        self._kept.append(callback)
        text = name.encode()
        error = c.wasmtime_component_linker_instance_add_func(
            instance.ptr(), ctypes.create_string_buffer(text), len(text), callback, None, _NO_FINALIZER
        )
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)

    def _callback(self, implementation: Function, kind: types.FuncType) -> Callable[..., int]:
        codecs: tuple[list[Codec], Codec | None] | None = None

        def call(_data: Any, _context: Any, _type: Any, values: Any, count: int, results: Any, _results: int) -> int:
            nonlocal codecs
            try:
                if codecs is None:  # an app uses few of the functions that it imports
                    codecs = self._codecs(kind)
                parameters, result = codecs
                try:
                    answer = implementation(*[parameters[index].lift(values[index]) for index in range(count)])
                except Err as error:
                    answer = error
                if result is not None:
                    result.lower(answer, results[0])
            except BaseException as error:
                current().failure = error
                return _as_error(error)
            return 0

        return call

    def _codecs(self, kind: types.FuncType) -> tuple[list[Codec], Codec | None]:
        result = kind.result
        return (
            [codec(parameter, self._resources) for _name, parameter in kind.params],
            codec(result, self._resources) if result is not None else None,
        )


_NO_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0)


def _drop(_store: Any, number: int) -> None:
    current().drop(number)


def _as_error(error: BaseException) -> int:
    text = f"{type(error).__name__}: {error}"
    pointer = c.wasmtime_error_new(ctypes.create_string_buffer(text.encode()))
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _missing(name: str) -> Function:
    def fail(*_arguments: Any) -> None:
        raise UnsupportedFeature(f"the component calls {name}, which is not provided")

    return fail
