"""Programs that take long to compile, and files that would be compiled or run in vain."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from shimd.supervisor.modules.compile_cgroups import prefix
from tests.e2e import images, leftovers
from tests.e2e.box import RUNTIMES, Attached, Box, until
from tests.e2e.containerd import PATIENCE
from tests.e2e.test_cli import Shimd
from tests.unit.engines.programs import component, slow

pytestmark = pytest.mark.parametrize(
    "runtime", [one for one in RUNTIMES if one.name == "wasmtime"], ids=lambda runtime: runtime.name, indirect=True
)
IMAGE = "test.invalid/slow:1"


@pytest.fixture
def slow_box(box: Box, tmp_path: Path) -> Box:
    """With an image whose program nobody has compiled yet: it takes a second at least."""
    data = slow(10_000) + b"\0\x11\x10" + os.urandom(8).hex().encode()  # a custom section
    images.save(tmp_path / "slow.tar", [images.image(IMAGE, [images.layer({"/slow.wasm": data})], {"Env": ["PATH=/"]})])
    box.containerd.import_image(tmp_path / "slow.tar", box.namespace)
    return box


@pytest.fixture
def stopped(slow_box: Box) -> Iterator[Attached]:
    """The first container that starts, with its compile worker stopped as long as the test likes."""
    client = slow_box.popen(*run(slow_box, "first"))
    until(lambda: workers(slow_box), "a compile worker")
    signalled(slow_box, signal.SIGSTOP)
    yield client
    signalled(slow_box, signal.SIGCONT)


def run(box: Box, id: str) -> list[str]:
    return ["run", "--rm", "--runtime", box.runtime.type, IMAGE, id, "/slow.wasm"]


def workers(box: Box) -> list[int]:
    """Compile workers of the box's daemon, by their cgroups."""
    own = prefix(box.containerd.directory / "shimd")
    found = [*leftovers.CGROUP.glob(f"memory/{own}*"), *leftovers.CGROUP.glob(f"{own}*")]
    return [int(pid) for path in found for pid in (path / "cgroup.procs").read_text().split()]


def signalled(box: Box, number: int) -> None:
    for pid in workers(box):
        os.kill(pid, number)


def test_a_compilation_goes_on_without_its_caller(slow_box: Box, stopped: Attached) -> None:
    """The next one waits for the same, as `shimd ps` shows, and gets it."""
    box, shimd = slow_box, Shimd(slow_box.containerd)
    stopped.kill()
    stopped.wait()
    until(lambda: shimd.json("status")["compiling"][0]["containers"] == [], "the caller to be gone")
    second = box.popen(*run(box, "second"))
    until(lambda: shimd.json("ps", "-n", box.namespace), "the container to be there")
    (task,) = shimd.json("ps", "-n", box.namespace)
    assert (task["id"], task["init"]["state"], task["init"]["args"]) == ("second", "creating", ["/slow.wasm"])
    row = shimd("ps", "-n", box.namespace).stdout.splitlines()[1]
    assert "/slow.wasm" in row and "Compiling for " in row
    assert "/slow.wasm for wasmtime" in shimd("status").stdout
    signalled(box, signal.SIGCONT)
    assert second.wait(PATIENCE * 3) == 0
    log = [line for line in box.containerd.daemon_log().splitlines() if "/slow.wasm for wasmtime" in line]
    assert [line.split()[3] for line in log] == ["compiling", "compiled"]
    assert "(container first, " in log[1]
    assert not workers(box)
    box.remove("first")


FILES = {
    "machine.cwasm": "is no program, but machine code that wasmtime has compiled ahead of time (.cwasm)",
    "spin.wasm": "or as artifact, use the spin engine (io.containerd.spin.v2)",
    "large.wasm": "/large.wasm has 8796093022208 bytes, and SHIMD_PROGRAM_SIZE allows 536870912",
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_refused_at_once(box: Box, tmp_path: Path, name: str) -> None:
    for directory in ("proc", "sys", "dev"):
        (tmp_path / "root" / directory).mkdir(parents=True)
    path = tmp_path / "root" / name
    path.write_bytes(bytes(wasmtime.Module(wasmtime.Engine(), "(module)").serialize()))
    if name == "spin.wasm":
        path.write_bytes(component("fermyon:spin/key-value@2.0.0"))
    if name == "large.wasm":
        path.write_bytes(component())
        os.truncate(path, 8 << 40)
    command = ["run", "--rm", "--runtime", box.runtime.type, "--rootfs", tmp_path / "root", "app", f"/{name}"]
    done = box.ctr(*command, check=False)
    assert done.code != 0
    assert FILES[name] in done.err, done.err
    box.remove("app")
    assert not box.leftovers()
