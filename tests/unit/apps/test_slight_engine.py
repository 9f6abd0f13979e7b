"""Modules of Slight's, as wasmtime's engine compiles them for both."""

from pathlib import Path

import pytest

from shimd.apps.slight.engine import SlightEngine
from shimd.engine import BrokenArtifact, OtherEngine, UnsupportedFeature
from shimd.engines.wasmtime import WasmtimeEngine
from shimd.engines.wasmtime_artifact import load_guest, make_engine
from tests.unit.inside import reported

_EXPORTS = '(func (export "canonical_abi_realloc")) (func (export "_start"))'
GUEST = f'(module (import "canonical_abi" "resource_drop_keyvalue" (func (param i32))) {_EXPORTS})'
PLAIN = f"(module {_EXPORTS})"


def compiled(text: str, directory: Path) -> Path:
    """In a child: the compiler's threads would be missing in what is forked later."""
    assert reported(lambda: WasmtimeEngine().precompile(text.encode(), directory / "artifact")) == "None"
    return directory / "artifact"


def test_a_guest_can_be_interrupted_and_another_module_is_as_any(tmp_path: Path) -> None:
    for text, interruptible in ((GUEST, True), (PLAIN, False)):
        engines = make_engine(parallel=False, epochs=True), make_engine(parallel=False)
        directory = tmp_path / str(interruptible)
        directory.mkdir()
        engine, module = load_guest(*engines, compiled(text, directory))
        assert (engine is engines[0]) == interruptible
        assert "_start" in {export.name for export in module.exports}


def test_wasmtime_names_slight(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeature, match=r"imports canonical_abi\.\w+, .* \(Slight's modules run on slight"):
        WasmtimeEngine().load(compiled(GUEST, tmp_path))


def test_what_slight_does_not_load(tmp_path: Path) -> None:
    engines = make_engine(parallel=False, epochs=True), make_engine(parallel=False)
    with pytest.raises(UnsupportedFeature, match="the program is a component, and Slight's are core modules"):
        load_guest(*engines, compiled("(component)", tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "guest").write_bytes(b"nothing")
    with pytest.raises(BrokenArtifact, match="does not load"):
        load_guest(*engines, broken)
    with pytest.raises(OtherEngine, match="wasmtime"):
        SlightEngine().load(broken)
