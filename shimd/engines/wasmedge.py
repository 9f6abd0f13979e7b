"""WasmEdge, by its C library (Debian's ``libwasmedge0``): modules of WASI preview 1 and of WasmEdge's own sockets.

The library is loaded in the fork server; a worker maps the machine code that the library's compiler has made, links it
and runs. Machine code that a module brings along is never used: see :func:`plain`.
"""

import json
import os
import platform
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from shimd.engine import (
    BrokenArtifact,
    EngineError,
    GuestTrap,
    InvalidModule,
    Invocation,
    MissingRuntime,
    UnsupportedFeature,
)
from shimd.engines import contained
from shimd.engines.core import (
    COMPONENT,
    NO_ENTRY,
    NO_FUNCTION,
    WASI,
    check_entry,
    environment,
    from_text,
    load_text_format,
    no_components,
    read_facts,
    top_preopens,
)
from shimd.formats.outline import Cursor, Outline
from shimd.linux import libc

#: Bumped when what is compiled changes, or the files of an artefact.
_CONFIG = 1
_REMEDY = (
    "install libwasmedge0 of Debian 13 or later, or WasmEdge 0.14 or later by other means, and name its "
    "libwasmedge.so.0 in SHIMD_WASMEDGE_LIBRARY if it is no directory of the dynamic linker's"
)
_OLDEST = (0, 14)
#: A program that prints a library's version.
_TELL = """\
import ctypes, sys
tell = ctypes.CDLL(sys.argv[1]).WasmEdge_VersionGet
tell.restype = ctypes.c_char_p
print(tell().decode())"""
_MODULE, _FACTS = "module", "facts.json"
#: Imports by which a module reaches the network.
_NETWORK = ("sock_open", "sock_open_v2", "sock_getaddrinfo")
#: Of the container's environment, what the plugin for WASI-NN reads, by getenv(3).
_PREFIX, _PRELOAD = "WASMEDGE_", "WASMEDGE_WASINN_PRELOAD"


@dataclass
class WasmEdgeProgram:
    module: int
    facts: dict[str, Any]
    """Facts for :func:`check_entry`; ``size``, bytes of the compiled form; ``network``, whether it opens sockets;
    ``others``, what it imports of modules that are not WASI's, as [module, name]."""


class WasmEdgeEngine:
    name: ClassVar[str] = "wasmedge"

    def __init__(self) -> None:
        self._configuration: int | None = None

    def version(self) -> str:
        """Returns the version with the processor's abilities, which the machine code makes use of."""
        return f"{_library_version()}-{_CONFIG}-{platform.machine()}-{zlib.crc32(_abilities()):08x}"

    def warm(self) -> None:
        from shimd.engines import libwasmedge

        try:
            libwasmedge.prepare()
        except (OSError, AttributeError):
            return  # version() raises it to everyone who wants to run an app
        self._configuration = libwasmedge.configuration()
        contained.library()

    def _configured(self) -> int:
        """Returns the configuration of :meth:`warm`; make it, if the library was installed after the fork server's
        start."""
        if self._configuration is None:
            self.warm()
        if self._configuration is None:
            raise MissingRuntime("WasmEdge's library does not load", _REMEDY)
        return self._configuration

    def load_compiler(self, *, text: bool) -> None:
        self._configured()
        if text:
            load_text_format()

    def foresee(self, program: Outline, runs_on: str) -> None:
        from shimd.engines import foresight  # in compile workers only

        foresight.for_wasmedge(program)

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        from shimd.engines import libwasmedge

        wasm = plain(wasm if wasm.startswith(b"\0asm") else from_text(wasm))
        artifact.mkdir()
        file = artifact / _MODULE
        try:
            facts = _facts(libwasmedge.parse(self._configured(), wasm))
            libwasmedge.compile(self._configured(), wasm, str(file))
        except libwasmedge.WasmEdgeError as failure:
            raise InvalidModule(f"not valid WebAssembly: {failure}") from None
        (artifact / _FACTS).write_text(json.dumps({**facts, "size": file.stat().st_size}))

    def load(self, artifact: Path) -> WasmEdgeProgram:
        from shimd.engines import libwasmedge

        try:
            facts = read_facts(f"{artifact}/{_FACTS}")
            if facts["size"] != os.stat(artifact / _MODULE).st_size:  # mapped, it would be a SIGBUS
                raise BrokenArtifact("the compiled module does not load: it is not whole")
            return WasmEdgeProgram(libwasmedge.load(self._configured(), str(artifact / _MODULE)), facts)
        except (libwasmedge.WasmEdgeError, OSError, ValueError) as error:
            raise BrokenArtifact(f"the compiled module does not load: {error}") from None

    def check(self, module: WasmEdgeProgram, invocation: Invocation) -> None:
        check_entry(module.facts, invocation.entry)
        if module.facts["network"] and not invocation.network:
            raise UnsupportedFeature("the module opens sockets, and this run has no network: shimd run --network")
        if module.facts["others"]:
            _check_others(module)
        for host, guest, _read_only in top_preopens(invocation):
            if ":" in host + guest:
                raise UnsupportedFeature(f"wasmedge takes no directory with a colon in its name: {guest}")

    def enter_container(self) -> None:
        contained.enter("_wasmedge")

    def run(self, module: WasmEdgeProgram, invocation: Invocation) -> int:
        from shimd.engines import libwasmedge

        os.environ.update({name: value for name, value in invocation.env.items() if name.startswith(_PREFIX)})
        if models := invocation.env.get(_PRELOAD):
            libwasmedge.preload_models(models)
        variables = [f"{name}={value}" for name, value in environment(invocation).items()]
        wasi = libwasmedge.wasi(invocation.args, variables, list(_directories(invocation)))
        try:
            instance = libwasmedge.Instance(self._configured(), module.module, [wasi, *_others(module)])
            instance.call(invocation.entry)
        except libwasmedge.WasmEdgeError as failure:
            if failure.trap:
                raise GuestTrap(f"wasm trap: {failure}") from None
            raise EngineError(f"the module does not link: {failure}") from None
        return libwasmedge.exit_code(wasi) & 0xFF


def plain(wasm: bytes) -> bytes:
    """Remove the section in which ``wasmedge compile`` puts machine code: an image's machine code is not trusted.

    :raises InvalidModule: it has no sections, or is a component
    """
    if wasm.startswith(COMPONENT):
        raise no_components("wasmedge")
    kept, cursor = [wasm[:8]], Cursor(wasm, 8)
    try:
        while cursor.position < len(wasm):
            start, id, size = cursor.position, cursor.byte(), cursor.number()
            end = cursor.position + size
            if end > len(wasm):
                raise IndexError
            if id != 0 or not _is_machine_code(wasm, cursor):
                kept.append(wasm[start:end])
            cursor.position = end
    except IndexError:
        raise InvalidModule("not valid WebAssembly: a section is not whole") from None
    return b"".join(kept)


def _is_machine_code(wasm: bytes, cursor: Cursor) -> bool:
    """Returns whether a custom section, whose name the cursor is at, is WasmEdge's."""
    length = cursor.number()
    return wasm[cursor.position : cursor.position + length] == b"wasmedge"


@cache
def _library_version() -> str:
    """Ask the library for its version, in a process of its own: it is large, and LLVM comes with it."""
    from shimd.engines import libwasmedge

    command = [sys.executable, "-IS", "-c", _TELL, libwasmedge.path()]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    version = done.stdout.strip()
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"{libwasmedge.path()}: it does not load"]
        raise MissingRuntime(said[-1].removeprefix("OSError: "), _REMEDY)
    if tuple(int(part) for part in version.split("-")[0].split(".")[:2]) < _OLDEST:
        raise MissingRuntime(f"{libwasmedge.path()} is of version {version}", _REMEDY)
    return version


def _abilities() -> bytes:
    """Returns the abilities of the first processor, as the kernel names them."""
    with open("/proc/cpuinfo", "rb") as file:
        return next((line for line in file if line.startswith((b"flags", b"Features"))), b"")


def _facts(module: int) -> dict[str, Any]:
    from shimd.engines import libwasmedge

    imports = list(libwasmedge.imports(module))
    known = libwasmedge.functions(libwasmedge.wasi())
    unknown = [name for space, name in imports if space == WASI and name not in known]
    return {
        "problem": f"the module imports {WASI}.{unknown[0]}, which wasmedge does not have" if unknown else None,
        "exports": {name: _no_entry(type) for name, type in libwasmedge.exports(module)},
        "network": any(space == WASI and name in _NETWORK for space, name in imports),
        "others": [[space, name] for space, name in imports if space != WASI],
    }


def _no_entry(type: tuple[int, int] | None) -> str | None:
    """Returns why an export cannot be an entry; ``None`` if it can."""
    if type is None:
        return NO_FUNCTION
    return None if type == (0, 0) else NO_ENTRY


def _check_others(module: WasmEdgeProgram) -> None:
    from shimd.engines import libwasmedge

    for space, name in module.facts["others"]:
        instance = libwasmedge.nn_module(space)
        if instance is None or name not in libwasmedge.functions(instance):
            way_out = " (WASIX modules run on wasmer)" if space.startswith("wasix") else ""
            raise UnsupportedFeature(
                f"the module imports {space}.{name}, which is neither WASI preview 1 nor WASI-NN's{way_out}"
            )


def _others(module: WasmEdgeProgram) -> Iterator[int]:
    from shimd.engines import libwasmedge

    for space in dict.fromkeys(space for space, _name in module.facts["others"]):
        instance = libwasmedge.nn_module(space)
        if instance is not None:
            yield instance


def _directories(invocation: Invocation) -> Iterator[str]:
    """Yield the preopened directories as ``GUEST:HOST``.

    WasmEdge's own ``readonly`` is for a directory alone, and not for those below: a read-only mount does it instead.
    """
    for host, guest, read_only in top_preopens(invocation):
        if read_only and not os.statvfs(host).f_flag & os.ST_RDONLY:
            host = _read_only_view(host)
        yield f"{guest}:{host}"


def _read_only_view(directory: str) -> str:
    try:
        return f"/proc/self/fd/{libc.clone_readonly(directory)}/."  # which the library does not take for a link
    except OSError as error:
        raise EngineError(
            f"wasmedge gives a directory read-only by a mount, which takes root: {directory}: {error.strerror}"
        ) from None
