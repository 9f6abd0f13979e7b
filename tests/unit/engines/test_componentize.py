"""Core modules that are the core of a component: what becomes of them with the package that wraps them, and without."""

import sys
from collections.abc import Iterator

import pytest

from shimd.engine import InvalidModule, UnsupportedFeature
from shimd.engines import componentize
from shimd.engines.wasmtime import PORTABLE
from shimd.engines.wasmtime_artifact import (
    COMPONENT_FILE,
    MODULE,
    facts_of,
    is_server,
    load_server,
    make_engine,
)
from shimd.testing.rig import Rig
from tests.components import rust

#: All is compiled in processes of their own: wasmtime's threads would not outlive a fork.
pytestmark = pytest.mark.parametrize("engine_name", [PORTABLE])
with_it = pytest.mark.skipif(
    not componentize.version(), reason="native/componentize is built by cargo: run tools/setup"
)


@pytest.fixture
def without_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a node where it is not installed."""
    monkeypatch.setitem(sys.modules, "shimd_componentize", None)
    componentize.library.cache_clear()
    yield
    componentize.library.cache_clear()


@with_it
@pytest.mark.parametrize("name", ["server", "spin"])
def test_a_server_is_made(rig: Rig, name: str) -> None:
    assert is_server(rig.precompile(rust.module(name).read_bytes()))


def test_a_command_without_bindings_stays_a_module(rig: Rig) -> None:
    """Modules know of more exit codes."""
    artifact = rig.precompile(rust.module("command").read_bytes())
    assert (artifact / MODULE).exists()
    assert facts_of(artifact)["problem"] is None


@pytest.mark.usefixtures("without_it")
def test_the_way_out_is_named(rig: Rig) -> None:
    artifact = rig.precompile(rust.module("spin").read_bytes())
    with pytest.raises(UnsupportedFeature, match="the module is the core of a component: install shimd-componentize"):
        load_server(make_engine(parallel=False, epochs=True), artifact)


@pytest.mark.usefixtures("without_it")
def test_components_need_nothing(rig: Rig) -> None:
    assert (rig.precompile(rust.component("command").read_bytes()) / COMPONENT_FILE).exists()


@with_it
def test_what_its_description_does_not_fit(rig: Rig) -> None:
    """An export that is described is missing: its name is another."""
    core = rust.module("server").read_bytes()
    broken = core.replace(b"wasi:http/incoming-handler@0.2.4#handle", b"wasi:http/incoming-handler@0.2.4#hondle")
    assert broken != core
    with pytest.raises(InvalidModule, match=r"no component can be made of the module: .*incoming-handler"):
        rig.precompile(broken)


@with_it
@pytest.mark.parametrize("size", [9, 100, 100_000])
def test_what_is_cut_short(engine_name: str, size: int) -> None:
    with pytest.raises(InvalidModule, match="no component can be made of the module"):
        componentize.component(rust.module("server").read_bytes()[:size])
