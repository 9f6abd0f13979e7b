"""Core modules that are the core of a component: what becomes of them with the package that wraps them, and without."""

import sys
from pathlib import Path

import pytest

from shimd.engines import componentize
from shimd.engines.base import InvalidModule, UnsupportedFeature
from shimd.engines.wasmtime_artifact import (
    COMPONENT_FILE,
    MODULE,
    compile,
    facts_of,
    is_server,
    load_server,
    make_engine,
)
from tests.components import rust

with_it = pytest.mark.skipif(
    not componentize.version(), reason="native/componentize is built by cargo: run tools/setup"
)


@pytest.fixture
def without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a node where it is not installed."""
    monkeypatch.setitem(sys.modules, "shimd_componentize", None)


@with_it
@pytest.mark.parametrize("name", ["server", "spin"])
def test_a_server_is_made(tmp_path: Path, name: str) -> None:
    compile(rust.module(name).read_bytes(), tmp_path / "artifact")
    assert is_server(tmp_path / "artifact")


def test_a_command_without_bindings_stays_a_module(tmp_path: Path) -> None:
    """Modules know of more exit codes."""
    compile(rust.module("command").read_bytes(), tmp_path / "artifact")
    assert (tmp_path / "artifact" / MODULE).exists()
    assert facts_of(tmp_path / "artifact")["problem"] is None


@pytest.mark.usefixtures("without_it")
def test_the_way_out_is_named(tmp_path: Path) -> None:
    compile(rust.module("spin").read_bytes(), tmp_path / "artifact")
    with pytest.raises(UnsupportedFeature, match="the module is the core of a component: install shimd-componentize"):
        load_server(make_engine(parallel=False, epochs=True), tmp_path / "artifact")


@pytest.mark.usefixtures("without_it")
def test_components_need_nothing(tmp_path: Path) -> None:
    compile(rust.component("command").read_bytes(), tmp_path / "artifact")
    assert (tmp_path / "artifact" / COMPONENT_FILE).exists()


@with_it
def test_what_its_description_does_not_fit(tmp_path: Path) -> None:
    """An export that is described is missing: its name is another."""
    core = rust.module("server").read_bytes()
    broken = core.replace(b"wasi:http/incoming-handler@0.2.4#handle", b"wasi:http/incoming-handler@0.2.4#hondle")
    assert broken != core
    with pytest.raises(InvalidModule, match=r"no component can be made of the module: .*incoming-handler"):
        compile(broken, tmp_path / "artifact")


@with_it
@pytest.mark.parametrize("size", [9, 100, 100_000])
def test_what_is_cut_short(size: int) -> None:
    with pytest.raises(InvalidModule, match="no component can be made of the module"):
        componentize.component(rust.module("server").read_bytes()[:size])
