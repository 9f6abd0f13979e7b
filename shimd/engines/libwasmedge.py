"""WasmEdge's C API (``wasmedge/wasmedge.h``), as far as the engine needs it, by ctypes.

Objects of the library are plain addresses. Few are ever freed: a process loads one module, runs it and ends.
"""

import ctypes
import os
from collections.abc import Iterator, Sequence
from ctypes import byref, c_char_p, c_int, c_uint32, c_void_p
from functools import cache
from typing import Any

#: Found as the dynamic linker finds it, unless SHIMD_WASMEDGE_LIBRARY names a file.
SONAME = "libwasmedge.so.0"
#: Result codes that are no failures: success, and the end by ``proc_exit``.
_SUCCESS, _TERMINATED = 0, 1
#: Result codes of what happens while code runs (``common/enum.inc``); smaller ones are of loading and linking.
_EXECUTION = 0x400
#: WasmEdge_ExternalType_Function, WasmEdge_CompilerOutputFormat_Native, WasmEdge_RunMode_AOT.
_FUNCTION, _NATIVE, _AOT = 0, 0, 2
_NN = b"wasi_nn"


class WasmEdgeString(ctypes.Structure):
    """WasmEdge_String, and WasmEdge_Bytes, which has the same layout: a length, and bytes that others own."""

    _fields_ = (("length", c_uint32), ("start", c_void_p))

    @classmethod
    def of(cls, data: bytes) -> "WasmEdgeString":
        text = cls(len(data), ctypes.cast(c_char_p(data), c_void_p))
        text.data = data  # for as long as it is used
        return text

    def __str__(self) -> str:
        return ctypes.string_at(self.start, self.length).decode(errors="replace") if self.length else ""


class WasmEdgeResult(ctypes.Structure):
    """WasmEdge_Result: a code, below a category."""

    _fields_ = (("code", c_uint32),)


_P, _N = c_void_p, c_uint32
#: Of each function, what it gives and what it takes.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "VersionGet": (c_char_p,),
    "LogOff": (None,),
    "ResultGetMessage": (c_char_p, WasmEdgeResult),
    "ConfigureCreate": (_P,),
    "ConfigureCompilerSetOutputFormat": (None, _P, c_int),
    "CompilerCreate": (_P, _P),
    "CompilerCompileFromBytes": (WasmEdgeResult, _P, WasmEdgeString, c_char_p),
    "LoaderCreate": (_P, _P),
    "LoaderParseFromBytes": (WasmEdgeResult, _P, _P, WasmEdgeString),
    "LoaderParseFromFile": (WasmEdgeResult, _P, _P, c_char_p),
    "ValidatorCreate": (_P, _P),
    "ValidatorValidate": (WasmEdgeResult, _P, _P),
    "ASTModuleListImportsLength": (_N, _P),
    "ASTModuleListImports": (_N, _P, _P, _N),
    "ASTModuleListExportsLength": (_N, _P),
    "ASTModuleListExports": (_N, _P, _P, _N),
    "ImportTypeGetModuleName": (WasmEdgeString, _P),
    "ImportTypeGetExternalName": (WasmEdgeString, _P),
    "ExportTypeGetExternalName": (WasmEdgeString, _P),
    "ExportTypeGetExternalType": (c_int, _P),
    "ExportTypeGetFunctionType": (_P, _P, _P),
    "FunctionTypeGetParametersLength": (_N, _P),
    "FunctionTypeGetReturnsLength": (_N, _P),
    "ModuleInstanceCreateWASI": (_P, _P, _N, _P, _N, _P, _N),
    "ModuleInstanceWASIGetExitCode": (_N, _P),
    "ModuleInstanceListFunctionLength": (_N, _P),
    "ModuleInstanceListFunction": (_N, _P, _P, _N),
    "ModuleInstanceFindFunction": (_P, _P, WasmEdgeString),
    "StoreCreate": (_P,),
    "ExecutorCreate": (_P, _P, _P),
    "ExecutorRegisterImport": (WasmEdgeResult, _P, _P, _P),
    "ExecutorInstantiate": (WasmEdgeResult, _P, _P, _P, _P),
    "ExecutorInvoke": (WasmEdgeResult, _P, _P, _P, _N, _P, _N),
    "PluginLoadWithDefaultPaths": (None,),
    "PluginFind": (_P, WasmEdgeString),
    "PluginListModuleLength": (_N, _P),
    "PluginListModule": (_N, _P, _P, _N),
    "PluginCreateModule": (_P, _P, WasmEdgeString),
    "PluginInitWASINN": (None, _P, _N),
}


class _Library(ctypes.CDLL):
    """The library, with its functions declared."""

    def __init__(self) -> None:
        super().__init__(path())
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = self[f"WasmEdge_{name}"]
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


class WasmEdgeError(Exception):
    """A result that is neither success nor ``proc_exit``; ``str()`` is the library's own reason."""

    def __init__(self, result: WasmEdgeResult) -> None:
        super().__init__(_library().ResultGetMessage(result).decode(errors="replace"))
        self.trap = result.code >= _EXECUTION
        """True if the guest's code was running when it failed: a trap, and no failure to load or link."""


def path() -> str:
    """Returns the library: a file, or a name that the dynamic linker looks up (dlopen(3))."""
    return os.environ.get("SHIMD_WASMEDGE_LIBRARY") or SONAME


def prepare() -> None:
    """Load the library and its plugins, which are the node's: nothing of a container's is ever loaded.

    It logs to stdout, which is the app's: its log is off. Results tell what went wrong, too.

    :raises OSError: there is no library, or something that it needs is missing
    :raises AttributeError: it is another one, or of another age
    """
    library = _library()
    library.LogOff()
    library.PluginLoadWithDefaultPaths()


def configuration() -> int:
    """Returns a configuration for compiler, loader, validator and executor."""
    library = _library()
    made: int = library.ConfigureCreate()
    library.ConfigureCompilerSetOutputFormat(made, _NATIVE)
    if hasattr(library, "WasmEdge_ConfigureSetRunMode"):  # since 0.17, which would interpret otherwise
        library.WasmEdge_ConfigureSetRunMode(_P(made), c_int(_AOT))
    return made


def compile(configuration: int, wasm: bytes, file: str) -> None:
    """Write a shared object: machine code, and the module itself.

    :raises WasmEdgeError: the module is not valid, or the library was built without its compiler
    """
    compiler = _library().CompilerCreate(configuration)
    _check(_library().CompilerCompileFromBytes(compiler, WasmEdgeString.of(wasm), os.fsencode(file)))


def parse(configuration: int, wasm: bytes) -> int:
    """Parse and validate a module. Machine code that it brings along (a section "wasmedge") would be run.

    :raises WasmEdgeError: it is not valid
    """
    module = c_void_p()
    _check(
        _library().LoaderParseFromBytes(_library().LoaderCreate(configuration), byref(module), WasmEdgeString.of(wasm))
    )
    return _validated(configuration, module)


def load(configuration: int, file: str) -> int:
    """Load what :func:`compile` has written, or a plain module. It is trusted: its machine code is mapped.

    :raises WasmEdgeError: it does not load
    """
    module = c_void_p()
    _check(_library().LoaderParseFromFile(_library().LoaderCreate(configuration), byref(module), os.fsencode(file)))
    return _validated(configuration, module)


def _validated(configuration: int, module: c_void_p) -> int:
    _check(_library().ValidatorValidate(_library().ValidatorCreate(configuration), module))
    assert module.value
    return module.value


def imports(module: int) -> Iterator[tuple[str, str]]:
    """Yield a module's imports, as (module, name)."""
    library = _library()
    for item in _items(module, library.ASTModuleListImportsLength, library.ASTModuleListImports):
        yield str(library.ImportTypeGetModuleName(item)), str(library.ImportTypeGetExternalName(item))


def exports(module: int) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Yield a module's exports: the name, and a function's numbers of parameters and results; ``None`` if it is
    none."""
    library = _library()
    for item in _items(module, library.ASTModuleListExportsLength, library.ASTModuleListExports):
        name = str(library.ExportTypeGetExternalName(item))
        if library.ExportTypeGetExternalType(item) != _FUNCTION:
            yield name, None
            continue
        type = library.ExportTypeGetFunctionType(module, item)
        yield name, (library.FunctionTypeGetParametersLength(type), library.FunctionTypeGetReturnsLength(type))


def _items(module: int, length: Any, fill: Any) -> list[int]:
    items = (c_void_p * length(module))()
    fill(module, items, len(items))
    return [item for item in items if item]


def wasi(arguments: Sequence[str] = (), environment: Sequence[str] = (), directories: Sequence[str] = ()) -> int:
    """Make an instance of WASI preview 1, with WasmEdge's sockets.

    :param environment: ``NAME=VALUE`` each
    :param directories: ``GUEST:HOST`` each
    """
    words: list[Any] = []
    for texts in (arguments, environment, directories):
        words += [(c_char_p * len(texts))(*map(os.fsencode, texts)), len(texts)]
    made: int = _library().ModuleInstanceCreateWASI(*words)
    return made


def exit_code(wasi: int) -> int:
    """Returns the argument of ``proc_exit``; 0 if it was not called."""
    code: int = _library().ModuleInstanceWASIGetExitCode(wasi)
    return code


def functions(instance: int) -> set[str]:
    """Returns the names of a module instance's functions."""
    library = _library()
    names = (WasmEdgeString * library.ModuleInstanceListFunctionLength(instance))()
    library.ModuleInstanceListFunction(instance, names, len(names))
    return {str(name) for name in names}


def nn_module(name: str) -> int | None:
    """Make an instance of a module of the plugin for WASI-NN; ``None``: it has no such module, or is not there.

    Other plugins are left out: some open files or run programs, past what a guest was given (the built-in
    "wasi:logging/logging" writes to any file that the guest names).
    """
    library = _library()
    plugin = library.PluginFind(WasmEdgeString.of(_NN))
    if not plugin:
        return None
    modules = (WasmEdgeString * library.PluginListModuleLength(plugin))()
    library.PluginListModule(plugin, modules, len(modules))
    if name not in map(str, modules):
        return None
    made: int = library.PluginCreateModule(plugin, WasmEdgeString.of(name.encode()))
    return made


def preload_models(models: str) -> None:
    """Load models for WASI-NN, as WASMEDGE_WASINN_PRELOAD names them: ``NAME:FORMAT:DEVICE:FILE``."""
    _library().PluginInitWASINN((c_char_p * 1)(os.fsencode(models)), 1)


class Instance:
    """A module, linked with the module instances that it imports from."""

    def __init__(self, configuration: int, module: int, others: Sequence[int]) -> None:
        """:raises WasmEdgeError: it does not link, or its start function trapped"""
        library = _library()
        self._executor, store = library.ExecutorCreate(configuration, None), library.StoreCreate()
        for other in others:
            _check(library.ExecutorRegisterImport(self._executor, store, other))
        self._instance = c_void_p()
        result = library.ExecutorInstantiate(self._executor, byref(self._instance), store, module)
        self._ended = _check(result) == _TERMINATED

    def call(self, function: str) -> None:
        """Call an exported function without parameters and results, until it returns or calls ``proc_exit``.

        :raises WasmEdgeError: it trapped
        """
        if self._ended:  # its start function called it
            return
        library = _library()
        found = library.ModuleInstanceFindFunction(self._instance, WasmEdgeString.of(function.encode()))
        _check(library.ExecutorInvoke(self._executor, found, None, 0, None, 0))


def _check(result: WasmEdgeResult) -> int:
    code: int = result.code
    if code not in (_SUCCESS, _TERMINATED):
        raise WasmEdgeError(result)
    return code


@cache
def _library() -> Any:
    return _Library()
