"""An engine whose library the node lacks: its apps are refused in one sentence, and nothing else is affected."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import guests
from tests.e2e.box import Box, Runtime
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import LAUNCHERS, Containerd, Version, running

WASMEDGE = Runtime("wasmedge", guests.WASM, "/app.wasm", "io.containerd.wasmedge.v1")


class Lacking(Containerd):
    """On a node without libwasmedge."""

    def __init__(self, version: Version, directory: Path) -> None:
        super().__init__(version, directory)
        self.env["SHIMD_WASMEDGE_LIBRARY"] = "/nowhere/libwasmedge.so.0"


@pytest.fixture
def containerd(version: Version) -> Iterator[Containerd]:
    with running(version, Lacking) as containerd:
        yield containerd


@pytest.fixture
def box(containerd: Containerd, new_box: BoxMaker) -> Box:
    return new_box(containerd, WASMEDGE)


def test_an_app_is_refused_with_the_remedy(box: Box) -> None:
    done = box.run("app")
    assert done.code != 0
    assert "engine wasmedge cannot run on this node: /nowhere/libwasmedge.so.0: cannot open shared object" in done.err
    assert "; install libwasmedge0 of Debian 13 or later" in done.err
    native = box.ctr("run", "--rm", "--runtime", WASMEDGE.type, guests.NATIVE, "native", "/app", "echo", "hi")
    assert native.out == "hi\n"
    wasmtime = box.ctr("run", "--rm", "--runtime", "io.containerd.wasmtime.v1", guests.WASM, "other")
    assert wasmtime.out == "hello from app\n"
    status = subprocess.run(
        [LAUNCHERS / "shimd", "status", "--json"], env=box.containerd.env, capture_output=True, text=True, check=True
    )
    (engine,) = [engine for engine in json.loads(status.stdout)["engines"] if engine["name"] == "wasmedge"]
    assert "install libwasmedge0" in engine["error"]
