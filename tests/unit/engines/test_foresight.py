"""What is refused by its outline, before it is compiled; and what is not."""

import os

import pytest

from shimd.engine import UnsupportedFeature
from shimd.engines import componentize, foresight
from shimd.engines.core import WASI
from shimd.formats import outline
from shimd.formats.outline import Outline
from tests.unit.engines.programs import component, module

EVERY = ("wasmtime", "spin", "slight", "wasmer", "wasmedge")


def of(data: bytes) -> Outline:
    file = os.memfd_create("program")
    try:
        os.write(file, data)
        found = outline.read(file)
    finally:
        os.close(file)
    assert found is not None
    return found


def foresee(engine: str, data: bytes) -> None:
    match engine:
        case "wasmer":
            foresight.for_wasmer(of(data))
        case "wasmedge":
            foresight.for_wasmedge(of(data))
        case _:
            foresight.for_wasmtime(of(data), engine)


NO_PROGRAMS = {
    "go": (module(("gojs", "runtime.wasmExit"), (WASI, "fd_write")), "is Go's for JavaScript"),
    "old go": (module(("go", "runtime.wasmExit")), "is Go's for JavaScript"),
    "bindgen": (module(("./app_bg.js", "__wbindgen_throw"), exports=("main",)), "is made by wasm-bindgen"),
    "bindgen's own": (module(("__wbindgen_placeholder__", "__wbindgen_describe")), "is made by wasm-bindgen"),
    "emscripten": (module(("env", "emscripten_resize_heap"), (WASI, "fd_write")), "is Emscripten's, which"),
    "minified": (module(("a", "a"), ("a", "b"), exports=("c", "d")), "is Emscripten's, as it seems"),
    "library": (module(("env", "puts"), exports=("add",), custom="dylink.0"), "is a shared library"),
    "object": (module(("env", "__linear_memory"), exports=(), custom="linking"), "is an object file"),
    "ruby": (
        module(
            ("rb-js-abi-host", "is-js: func(value: handle<js-abi-value>) -> bool"),
            ("canonical_abi", "resource_drop_js-abi-value"),
            (WASI, "fd_write"),
            exports=("_initialize", "rb-intern: func(name: string) -> u32"),
            custom="component-type:ruby",
        ),
        "is made by wit-bindgen 0.2",
    ),
}


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("kind", NO_PROGRAMS)
def test_what_runs_nowhere(engine: str, kind: str) -> None:
    data, words = NO_PROGRAMS[kind]
    if (engine, kind) == ("slight", "ruby"):
        words = "imports rb-js-abi-host.* nor an interface of Slight's"
    with pytest.raises(UnsupportedFeature, match=words) as refused:
        foresee(engine, data)
    assert "shimd-componentize" not in str(refused.value)


SPIN = component("fermyon:spin/key-value@2.0.0", exports=("wasi:http/incoming-handler@0.2.0",))
KEYVALUE = module(("keyvalue", "keyvalue::get"), ("canonical_abi", "resource_drop_keyvalue"))
ELSEWHERE = [
    ("wasmtime", SPIN, r"imports fermyon:spin/key-value@2\.0\.0, an interface of Spin's: .* use the spin engine$"),
    ("wasmer", SPIN, r"fermyon:spin/key-value@2\.0\.0, an interface of Spin's: .* use the spin engine$"),
    ("wasmedge", SPIN, "an interface of Spin's"),
    ("wasmtime", component(exports=("fermyon:spin/inbound-redis",)), "exports fermyon:spin/inbound-redis"),
    ("wasmtime", component("wasi:cli/stdout@0.3.0"), "which is WASI 0.3"),
    ("spin", component(exports=("wasi:http/handler@0.3.0-rc-2026",)), "which is WASI 0.3"),
    ("wasmer", component("wasi:cli/stdout@0.2.0"), "component: use the wasmtime engine$"),
    ("wasmedge", component("wasi:cli/stdout@0.2.0"), "use the wasmtime engine"),
    ("wasmtime", KEYVALUE, r"\(Slight's modules run on slight"),
    ("wasmtime", module(("wasix_32v1", "thread_spawn")), "WASIX modules run on wasmer"),
    ("wasmedge", module(("wasix_32v1", "thread_spawn")), "WASIX modules run on wasmer"),
    ("spin", module(("wasi-outbound-http", "request")), "Spin's programs are components, as of its SDKs from 2 on"),
    ("slight", module(("gpio", "get")), "imports gpio.get, which is neither WASI preview 1 nor an interface of Sl"),
    ("wasmer", module(("gpio", "get")), "imports gpio.get, which is neither WASI preview 1 nor WASIX"),
    ("wasmedge", module(("gpio", "get")), "imports gpio.get, which is neither WASI preview 1 nor WASI-NN's"),
    ("wasmedge", module(("wasi:logging/logging", "log")), "which is neither WASI preview 1"),
    ("wasmtime", module(("gpio", "get")), "imports gpio.get, which is not WASI preview 1"),
    ("wasmtime", module(("env", "emscripten_notify_memory_growth")), "which is not WASI preview 1"),
]


@pytest.mark.parametrize(("engine", "data", "words"), ELSEWHERE)
def test_what_another_runs(engine: str, data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedFeature, match=words):
        foresee(engine, data)


WELCOME = [
    *((engine, module((WASI, "fd_write"))) for engine in EVERY),
    ("wasmtime", component("wasi:cli/stdout@0.2.6", exports=("wasi:cli/run@0.2.6",))),
    ("wasmtime", component("wasi:http/types@0.2.0", exports=("wasi:http/incoming-handler@0.2.0",))),
    ("wasmtime", component("acme:rockets/types@1.0.0")),  # which may be types alone
    ("wasmtime", component("acme:calc/ops@0.3.0", exports=("acme:calc/run@0.3.1", "wasi:cli/run@0.2.6"))),
    ("wasmtime", component(exports=("wasi:cli/run@0.2.6", "handle-message-batch", "spin:extra/one"))),
    ("spin", SPIN),
    ("spin", component("wasi:config/store@0.2.0-draft-2024-09-27")),
    ("slight", KEYVALUE),
    ("wasmedge", module(("wasi_ephemeral_nn", "load"))),
    ("slight", component("acme:rockets/launch@1.0.0")),  # without a slightfile it is wasmtime's
    ("wasmer", module(("wasix_32v1", "thread_spawn"), ("env", "memory"), ("wasi", "thread-spawn"))),
    ("wasmer", module(("env", "__cxa_throw"), ("GOT.mem", "x"), custom="dylink.0")),
    ("someone's", module(("gpio", "get"))),  # of the family of wasmtime: it may give that
]


@pytest.mark.parametrize(("engine", "data"), WELCOME)
def test_what_may_run(engine: str, data: bytes) -> None:
    foresee(engine, data)


def with_machine_code(data: bytes) -> bytes:
    """As ``wasmedge compile`` writes a module by default ("universal"): with one more custom section, at the end."""
    contents = b"\x08wasmedge" + b"\x90" * 300_000
    size = bytes([len(contents) & 0x7F | 0x80, len(contents) >> 7 & 0x7F | 0x80, len(contents) >> 14])
    return data + b"\0" + size + contents


@pytest.mark.parametrize("engine", EVERY)
def test_machine_code_of_wasmedges_changes_nothing(engine: str) -> None:
    """Who gets it compiles the module that is before it."""
    data = with_machine_code(module((WASI, "fd_write")))
    assert of(data).sections == ["wasmedge"]
    foresee(engine, data)
    with pytest.raises(UnsupportedFeature, match="is Go's for JavaScript"):
        foresee(engine, with_machine_code(NO_PROGRAMS["go"][0]))


CORE = module(("wasi:http/types@0.2.0", "f"), exports=("_start",), custom="component-type:proxy")


def test_the_core_of_a_component(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(componentize, "library", lambda: object())
    foresee("wasmtime", CORE)
    spins = module(("fermyon:spin/sqlite@2.0.0", "open"), custom="component-type:spin")
    foresee("spin", spins)
    with pytest.raises(UnsupportedFeature, match=r"use the spin engine$"):
        foresee("wasmtime", spins)
    monkeypatch.setattr(componentize, "library", lambda: None)
    with pytest.raises(UnsupportedFeature, match="the core of a component: install shimd-componentize"):
        foresee("wasmtime", CORE)


def test_every_engine_of_ours_foresees() -> None:
    from shimd.engine import Foresees
    from shimd.engines.wasmedge import WasmEdgeEngine
    from shimd.engines.wasmer import engine
    from shimd.engines.wasmer.sdk import SdkEngine
    from shimd.engines.wasmtime import WasmtimeEngine

    for one in (WasmtimeEngine(), engine(), SdkEngine(), WasmEdgeEngine()):
        assert isinstance(one, Foresees)
        with pytest.raises(UnsupportedFeature, match="Go's for JavaScript"):
            one.foresee(of(NO_PROGRAMS["go"][0]), one.name)


def test_what_ruby_has_is_no_core_of_a_component() -> None:
    """Its names have colons, too."""
    assert not componentize.is_core(of(NO_PROGRAMS["ruby"][0]))


def test_a_program_whose_entry_is_beyond_the_bounds_is_compiled() -> None:
    """A library is known by what it does not export, which takes all of its exports."""
    exports = tuple(f"f{number}" for number in range(21_000))
    foresight.for_wasmer(of(module(exports=(*exports, "_start"), custom="dylink.0")))
    with pytest.raises(UnsupportedFeature, match="is a shared library"):
        foresight.for_wasmer(of(module(exports=exports[:100], custom="dylink.0")))


def test_a_program_whose_exports_are_behind_what_is_read_is_compiled() -> None:
    """Whatever it is taken for by what it does not have: a library, an object file, Emscripten's, Spin's."""
    more = b"\0\2\1x" * 20_001
    library, minified = module(exports=(), custom="dylink.0"), module(("a", "b"))
    spins = component(exports=("spin:redis/inbound-redis",))
    for data, what in ((library, "a shared library"), (minified, "Emscripten"), (spins, "Spin")):
        with pytest.raises(UnsupportedFeature, match=what):
            foresight.for_wasmtime(of(data), "wasmtime")
    for data in (library, spins):
        foresight.for_wasmtime(of(data + more), "wasmtime")
    assert not foresight._is_minified(of(minified + more))
