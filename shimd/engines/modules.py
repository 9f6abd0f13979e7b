"""What engines of core modules have in common."""

from collections.abc import Mapping

from shimd.engines.base import InvalidModule, Invocation, UnsupportedFeature

#: How a component starts. The version and layer fields after ``\\0asm``: 1, and the component model's layer 1
#: (component-model Binary.md).
COMPONENT = b"\0asm\x0d\x00\x01\x00"
#: Why an export is no entry.
NO_FUNCTION = "is not a function"


def as_binary(wasm: bytes, engine: str) -> bytes:
    """A core module in the binary format, whichever of the two it came in.

    :raises InvalidModule: it is neither
    :raises UnsupportedFeature: it is a component
    """
    if not wasm.startswith(b"\0asm"):
        wasm = _from_text(wasm)
    if wasm.startswith(COMPONENT):
        raise UnsupportedFeature(
            f"{engine} runs core modules, and this is a component: use the wasmtime engine (io.containerd.wasmtime.v1)"
        )
    return wasm


def _from_text(text: bytes) -> bytes:
    import wasmtime

    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise InvalidModule(f"not valid WebAssembly: {str(error).splitlines()[0]}") from None


def check_entry(exports: Mapping[str, str | None], entry: str) -> None:
    """That a function can be called.

    :param exports: each export, with why it cannot be an entry, or ``None``
    :raises InvalidModule: it is not there, or is no entry
    """
    if entry not in exports:
        entries = [name for name, reason in exports.items() if reason != NO_FUNCTION]
        raise InvalidModule(f"the module exports no function {entry} (it has: {', '.join(entries) or 'none'})")
    if exports[entry]:
        raise InvalidModule(f"the export {entry} {exports[entry]}")


def environment(invocation: Invocation) -> dict[str, str]:
    """The guest's. WASI preview 1 has no working directory: wasi-libc starts at "/", and another can only be told by
    this convention."""
    told = {"PWD": invocation.cwd} if invocation.cwd != "/" else {}
    return {**told, **invocation.env}


def top_preopens(invocation: Invocation) -> list[tuple[str, str, bool]]:
    """Preopens that no other contains, as (host, guest, read-only): mounts below are the kernel's to follow.

    WASI preview 1 has no working directory, and wasi-libc strips ``/`` and ``./`` alike before it looks for a preopen,
    so that a preopen for ``.`` would catch absolute paths, too: relative paths are relative to ``/``, and PWD tells
    the rest.
    """
    chosen: list[tuple[str, str, bool]] = []
    for item in sorted(invocation.preopens, key=lambda item: len(item.guest)):
        if not any(item.guest.startswith(guest.rstrip("/") + "/") for _host, guest, _read_only in chosen):
            chosen.append((item.host, item.guest, item.read_only))
    return chosen
