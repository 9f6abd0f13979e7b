"""Why a program cannot run here, by its outline alone: told before it is compiled, which takes up to minutes.

Only what is certain is refused: the rest an engine finds when the program is compiled, linked or run.
"""

import re
from collections.abc import Callable, Collection

from shimd.engine import UnsupportedFeature
from shimd.engines import componentize
from shimd.engines.core import WASI, no_components
from shimd.engines.slight_names import BEFORE, NAMES
from shimd.formats.outline import Outline

_SPIN = ("fermyon:spin", "spin:", "fermyon:spin-")
#: Exports by which Spin calls what serves no HTTP.
_SPIN_EXPORTS = ("fermyon:spin/inbound-redis", "spin:redis/inbound-redis", "handle-cron-event", "handle-message")
#: What a component exports that wasmtime runs.
_STARTS = ("wasi:cli/run@0.2.", "wasi:http/incoming-handler@0.2.")
_NEWER_STARTS = ("wasi:cli/run@0.3.", "wasi:http/handler@0.3.")
#: WASI's own packages, and what Spin has built upon them.
_NEWER = re.compile(r"wasi:[\w-]+/[\w-]+@0\.3\.|spin:redis/inbound-redis@3")
#: What WASIX has, besides WASI: of programs with threads the memory, of those that are linked dynamically all else.
_WASIX = ("wasi", "wasix")
_DYNAMIC = ("env", "GOT.mem", "GOT.func")
#: Modules of WasmEdge's plugin for WASI-NN.
_NN = ("wasi_nn", "wasi_ephemeral_nn")
_DYLINK = ("dylink.0", "dylink")
_ABI = "canonical_abi"
#: What its standalone programs may import, too.
_STANDALONE = "emscripten_notify_memory_growth"
_JAVASCRIPT = "which runs only with the JavaScript that was made with it"
_EMSCRIPTEN = (
    "emscripten_", "_emscripten_", "__syscall_", "invoke_", "_embind_", "_emval_", "_abort_js", "__cxa_throw",
)  # fmt: skip


def for_wasmtime(program: Outline, runs_on: str, *, newer: bool = False) -> None:
    """:param runs_on: wasmtime, or an engine of its family: of those that are not ours nothing is known
    :param newer: whether it runs WASI 0.3

    :raises UnsupportedFeature: it cannot run there
    """
    runs_on = runs_on.removesuffix("-py")
    if runs_on not in ("wasmtime", "spin", "slight"):
        return
    if program.component:
        _component(program, runs_on, newer=newer)
        return
    _is_a_program(program, slight=runs_on == "slight")
    if componentize.is_core(program):
        _component_core(program, runs_on, newer=newer)
    elif runs_on == "slight":
        _known(program, {WASI, _ABI, *NAMES, *BEFORE}, "is neither WASI preview 1 nor an interface of Slight's")
    elif runs_on == "spin":
        _known(program, {WASI}, "is not WASI preview 1: Spin's programs are components, as of its SDKs from 2 on")
    else:
        _known(program, {WASI}, "is not WASI preview 1")


def for_wasmer(program: Outline) -> None:
    """:raises UnsupportedFeature: it cannot run there"""
    _is_a_module(program, "wasmer")
    _is_a_program(program)
    dynamic = program.first in _DYLINK
    for module, name in program.imports:
        if not module.startswith(_WASIX) and name != "memory" and not (dynamic and module in _DYNAMIC):
            raise UnsupportedFeature(f"the module imports {module}.{name}, which is neither WASI preview 1 nor WASIX")


def for_wasmedge(program: Outline) -> None:
    """:raises UnsupportedFeature: it cannot run there"""
    _is_a_module(program, "wasmedge")
    _is_a_program(program)
    _known(program, {WASI, *_NN}, "is neither WASI preview 1 nor WASI-NN's")


def import_problem(imports: Collection[tuple[str, str]], known: Collection[str], lacks: str) -> str | None:
    """Returns why a module cannot run: it imports something that nobody provides; ``None`` if it can."""
    for module, name in imports:
        if module not in known:
            way_out = " (WASIX modules run on wasmer)" if module.startswith("wasix") else ""
            if any(other == _ABI for other, _name in imports) and _are_slights(imports):
                way_out = " (Slight's modules run on slight, beside a /slightfile.toml)"
            return f"the module imports {module}.{name}, which {lacks}{way_out}"
    return None


def _known(program: Outline, known: Collection[str], lacks: str) -> None:
    if problem := import_problem(program.imports, known, lacks):
        raise UnsupportedFeature(problem)


def _is_a_module(program: Outline, engine: str) -> None:
    if program.component:
        for name in _names(program):
            if name.startswith(_SPIN):
                raise _for_spin("has", name)
        raise no_components(engine)


def _for_spin(verb: str, name: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"the component {verb} {name}, an interface of Spin's: with its /spin.toml or as artifact, use the spin engine",
        use="spin",
    )


def _is_a_program(program: Outline, *, slight: bool = False) -> None:
    """Refuse a module that is no program for WASI: made for JavaScript, a library, an object file."""
    for is_it, what in _KINDS:
        if is_it(program) and not (what is _DRAFT and (slight or _are_slights(program.imports))):
            raise UnsupportedFeature(f"the module is {what}")


def _imports(*modules: str, names: tuple[str, ...] = ("",)) -> Callable[[Outline], bool]:
    """Returns whether it imports something of these modules (of any, without one) whose name begins so."""

    def is_it(program: Outline) -> bool:
        return any((not modules or of in modules) and name.startswith(names) for of, name in program.imports)

    return is_it


def _is_library(program: Outline) -> bool:
    entries = {"_start", "_initialize"} & set(program.exports)
    return program.first in _DYLINK and program.complete and not entries


def _is_object(program: Outline) -> bool:
    return "linking" in program.sections and program.complete and not program.exports


def _is_emscriptens(program: Outline) -> bool:
    """Returns whether it is Emscripten's. One that is linked dynamically may be WASIX's, with such names in its
    libraries."""
    named = any(
        module == "env" and name.startswith(_EMSCRIPTEN) and name != _STANDALONE for module, name in program.imports
    )
    return program.first not in _DYLINK and named


def _is_minified(program: Outline) -> bool:
    """Returns whether it is minified as Emscripten does it: all imports are of "a", with names of a letter or two."""
    short = all(module == "a" and len(name) <= 2 for module, name in program.imports)
    return program.complete and bool(program.imports) and short


def _is_of_the_draft(program: Outline) -> bool:
    return _imports(_ABI)(program) or any(": func(" in name for name in _names(program))


def _are_slights(imports: Collection[tuple[str, str]]) -> bool:
    return all(module in (WASI, _ABI, *NAMES, *BEFORE) for module, _name in imports)


_DRAFT = (
    "made by wit-bindgen 0.2, of an early draft of the component model, for a host of its own: "
    "build it with bindings of today, or without any, for wasm32-wasip1"
)
_KINDS = [
    (
        _imports("gojs", "go"),
        f"Go's for JavaScript (GOOS=js), {_JAVASCRIPT}: build it with GOOS=wasip1, with TinyGo by -target=wasip1",
    ),
    (
        _imports(names=("__wbindgen_", "__wbg_")),
        f"made by wasm-bindgen, {_JAVASCRIPT}: build it for wasm32-wasip1 without wasm-bindgen",
    ),
    (
        _is_emscriptens,
        f"Emscripten's, {_JAVASCRIPT}: link it with -sSTANDALONE_WASM, or build it with the WASI SDK",
    ),
    (
        _is_minified,
        f"Emscripten's, as it seems, {_JAVASCRIPT}: link it with -sSTANDALONE_WASM, or build it with the WASI SDK",
    ),
    (_is_object, "an object file (.o), which was not linked"),
    (_is_library, "a shared library (its first section is dylink.0), and no program"),
    (_is_of_the_draft, _DRAFT),
]


def _names(program: Outline) -> list[str]:
    return [*(" ".join(names).strip() for names in program.imports), *program.exports]


def _component_core(program: Outline, runs_on: str, *, newer: bool) -> None:
    if componentize.library() is None:
        raise UnsupportedFeature(f"{componentize.CORE}: {componentize.REMEDY}")
    imported = [module for module, _name in program.imports if componentize.INTERFACE.match(module)]
    core = Outline(True, [(name, "") for name in imported], program.exports, complete=program.complete)
    _component(core, runs_on, newer=newer)


def _component(program: Outline, runs_on: str, *, newer: bool) -> None:
    """Refuse a component. Imports of others' interfaces may be types alone, which nobody gives: the linker tells."""
    starts = (*_STARTS, *_NEWER_STARTS) if newer else _STARTS
    runs = not program.complete or any(name.startswith(starts) for name in program.exports)
    runs_without = runs and not any(map(_is_spins, (name for name, _ in program.imports)))
    for verb, names in (("imports", [name for name, _ in program.imports]), ("exports", program.exports)):
        for name in names:
            if runs_on == "wasmtime" and _is_spins(name) and not runs_without:
                raise _for_spin(verb, name)
            if not newer and (problem := newer_problem(verb, name, wheel=runs_on == "wasmtime")):
                raise UnsupportedFeature(f"the component {problem}")


def _is_spins(name: str) -> bool:
    return name.startswith(_SPIN) or name.partition("@")[0] in _SPIN_EXPORTS


def newer_problem(verb: str, name: str, *, wheel: bool, known: bool = False) -> str | None:
    """Returns why a component of WASI 0.3 does not run: it passes streams, and wasmtime's C API has no values for
    them.

    :param wheel: whether it would with ``shimd-wasmtime-native``
    :param known: whether it is of WASI 0.3, whatever its name is
    """
    if not known and not _NEWER.match(name):
        return None
    return (
        f"{verb} {name}, which is WASI 0.3: its streams cannot be passed by wasmtime's C API. "
        f"{'Install shimd-wasmtime-native on the node (make wasmtime-native), or build' if wheel else 'Build'} it "
        "for WASI 0.2: Python apps with spin-sdk 3.4 and componentize-py 0.17"
    )
