"""Core modules that are the core of a component: what cargo makes for WASI preview 1, as of Spin 2 and 3 apps.

The package ``shimd-componentize`` (``native/componentize``), where it is installed, makes the component of it, and one
component of several (:mod:`.composition`).
"""

import ctypes
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from shimd.engine import InvalidModule
from shimd.formats.outline import Outline

#: How the custom section starts in which wit-bindgen describes the component's type.
_DESCRIPTION = "component-type"
#: How interfaces are named; bindings of wit-bindgen 0.2 have functions in words instead, with colons, too.
INTERFACE = re.compile(r"[\w-]+:[\w-]+/[\w-]+")
CORE = "the module is the core of a component"
REMEDY = (
    "install shimd-componentize on the node (make componentize-native), or convert it: "
    "wasm-tools component new --adapt wasi_snapshot_preview1.reactor.wasm"
)


def is_core(program: Outline) -> bool:
    """Returns whether a module uses bindings of the component model: their names are of interfaces, ``a:b/c#d``."""
    described = any(name.startswith(_DESCRIPTION) for name in program.sections)
    return described and name_interfaces((*(module for module, _name in program.imports), *program.exports))


def name_interfaces(names: Iterable[str]) -> bool:
    """Returns whether some of what a module imports from, or exports, are named as interfaces are."""
    return any(INTERFACE.match(name) for name in names)


def version() -> str:
    """Returns the version of the package; empty: it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("shimd-componentize")
    except PackageNotFoundError:
        return ""


def installed() -> bool:
    """Returns whether the package is, without a look into it: nothing here needs more."""
    from importlib.util import find_spec

    return find_spec("shimd_componentize") is not None


@cache
def library() -> ctypes.CDLL | None:
    """Returns the library that makes components, opened once; ``None``: the package is not installed."""
    try:
        import shimd_componentize
    except ImportError:
        return None
    return ctypes.CDLL(str(shimd_componentize.LIBRARY))


def component(binary: bytes) -> bytes | None:
    """Make a component of a core module; ``None``: the package is not installed.

    :raises InvalidModule: it cannot be made one
    """
    opened = library()
    if opened is None:
        return None
    failed, result = _made(opened, opened.shimd_componentize, binary, ctypes.c_size_t(len(binary)))
    if failed:
        raise InvalidModule(f"no component can be made of the module: {result.decode(errors='replace')}")
    return result


class _Bytes(ctypes.Structure):
    """``Bytes`` of ``native/componentize``."""

    _fields_ = (("start", ctypes.c_char_p), ("length", ctypes.c_size_t))


def compose(plan: str, parts: Sequence[bytes]) -> bytes | None:
    """Make one component of several, as a plan says (:class:`.composition.Plan`).

    :returns: ``None``: the package is not installed
    :raises InvalidModule: they do not fit
    """
    opened = library()
    if opened is None:
        return None
    text = plan.encode()
    all = (_Bytes * len(parts))(*(_Bytes(part, len(part)) for part in parts))
    failed, result = _made(opened, opened.shimd_compose, _Bytes(text, len(text)), all, ctypes.c_size_t(len(parts)))
    if failed:
        raise InvalidModule(result.decode(errors="replace"))
    return result


def _made(opened: ctypes.CDLL, make: Callable[..., int], *arguments: object) -> tuple[bool, bytes]:
    """Returns whether a function of the library fails, and what it makes: a component, or the reason."""
    made, size = ctypes.c_void_p(), ctypes.c_size_t()
    failed = make(*arguments, ctypes.byref(made), ctypes.byref(size))
    result = ctypes.string_at(made.value or 0, size.value)
    opened.shimd_componentize_free(made, size)
    return bool(failed), result
