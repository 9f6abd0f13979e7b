"""Code that engines of core modules (WASI preview 1) share."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from shimd.engine import InvalidModule, Invocation, UnsupportedFeature

WASI = "wasi_snapshot_preview1"
#: How a component starts. The version and layer fields after ``\\0asm``: 1, and the component model's layer 1
#: (component-model Binary.md).
COMPONENT = b"\0asm\x0d\x00\x01\x00"
#: Why a program cannot be given listening sockets: a module, a component.
ACCEPTS_NONE = "the module cannot accept connections: it does not import WASI's sock_accept"
TAKES_NONE = "a component opens its listening sockets itself, it cannot be given any"
NO_FUNCTION = "is not a function"
NO_ENTRY = "takes parameters or gives results; an entry does neither"


def load_text_format() -> None:
    """Import what :func:`from_text` uses."""
    import wasmtime  # noqa: F401


def from_text(text: bytes) -> bytes:
    """Convert a module from the text format to the binary one.

    :raises InvalidModule: it is no module in the text format
    """
    import wasmtime

    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise InvalidModule(f"not valid WebAssembly: {str(error).splitlines()[0]}") from None


def as_binary(wasm: bytes, engine: str) -> bytes:
    """Returns a core module in the binary format, converted if it came as text.

    :raises InvalidModule: it is neither
    :raises UnsupportedFeature: it is a component
    """
    binary = wasm if wasm.startswith(b"\0asm") else from_text(wasm)
    if binary.startswith(COMPONENT):
        raise no_components(engine)
    return binary


def no_components(engine: str) -> UnsupportedFeature:
    """Returns the error of an engine that runs core modules only, for a component."""
    sentence = f"{engine} runs core modules, and this is a component: use the wasmtime engine"
    return UnsupportedFeature(sentence, use="wasmtime")


def read_facts(path: str) -> dict[str, Any]:
    """Read the facts that were noted of a program when it was compiled, from a file of its artefact.

    :raises OSError, ValueError: it is not there, or broken
    """
    with open(path, "rb") as file:
        facts: dict[str, Any] = json.loads(file.read())
    return facts


#: The same for who asks often: an artefact never changes (one that is broken may be compiled anew, and is not kept).
known_facts = lru_cache(maxsize=1024)(read_facts)


def check_command_entry(entry: str) -> None:
    """Check what a component is to be run by.

    :raises UnsupportedFeature: that is none
    """
    if entry != "_start":
        raise UnsupportedFeature(f"a component is run by its wasi:cli/run export, not by {entry}")


def check_entry(facts: Mapping[str, Any], entry: str) -> None:
    """Check by the facts noted when a module was compiled: an app's start is no time for asking again.

    :param facts: ``problem``, why the module cannot run here, or null; ``exports``, each with why it is no entry, or
        null
    :raises UnsupportedFeature: it cannot run here
    :raises InvalidModule: it cannot be started there
    """
    if facts["problem"]:
        raise UnsupportedFeature(facts["problem"])
    exports = facts["exports"]
    if entry not in exports:
        entries = [name for name, reason in exports.items() if reason != NO_FUNCTION]
        raise InvalidModule(f"the module exports no function {entry} (it has: {', '.join(entries) or 'none'})")
    if exports[entry]:
        raise InvalidModule(f"the export {entry} {exports[entry]}")


def environment(invocation: Invocation) -> dict[str, str]:
    """Returns the guest's environment, with what WASI preview 1 has no call for, by convention.

    It has no working directory: wasi-libc starts at ``/``, and programs that care look at PWD. Listening sockets are
    counted in LISTEN_FDS (sd_listen_fds(3)). The container's own variables override both.
    """
    conventional = {"PWD": invocation.cwd} if invocation.cwd != "/" else {}
    if invocation.listening:
        conventional["LISTEN_FDS"] = str(len(invocation.listening))
    return {**conventional, **invocation.env}


def top_preopens(invocation: Invocation) -> list[tuple[str, str, bool]]:
    """Returns the preopens that no other contains, as (host, guest, read-only); the kernel follows mounts below them.

    WASI preview 1 has no working directory, and wasi-libc strips ``/`` and ``./`` alike before it looks for a preopen,
    so that a preopen for ``.`` would catch absolute paths, too: relative paths are relative to ``/``, and PWD says
    the rest.
    """
    chosen: list[tuple[str, str, bool]] = []
    for item in sorted(invocation.preopens, key=lambda item: len(item.guest)):
        if not any(item.guest.startswith(guest.rstrip("/") + "/") for _host, guest, _read_only in chosen):
            chosen.append((item.host, item.guest, item.read_only))
    return chosen
