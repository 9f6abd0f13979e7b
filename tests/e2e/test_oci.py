"""Fields of the specification that no other file is about, in containers of containerd's."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.box import RUNTIMES, WASM, WASMER_SDK, Box, wasm_only
from tests.e2e.bundle import Bundle
from tests.e2e.containerd import Version
from tests.e2e.docker.engine import make_init
from tests.e2e.http_app import on_wasmtime
from tests.e2e.test_isolation import status

DAY = 86400
#: And with a worker in Python.
wasm_and_python = pytest.mark.parametrize(
    "runtime", [*WASM, WASMER_SDK], ids=lambda runtime: runtime.name, indirect=True
)
needs_time = pytest.mark.skipif(not os.path.exists("/proc/self/timens_offsets"), reason="no time namespaces here")


@pytest.fixture(autouse=True)
def new_enough(version: Version) -> None:
    if version.name == "debian":
        pytest.skip("its ctr drops fields that are newer than it")


@pytest.fixture
def bundle(box: Box, tmp_path: Path, programs: tuple[bytes, bytes]) -> Bundle:
    native, wasm = programs
    return Bundle(box, tmp_path, native if box.runtime.native else wasm)


@on_wasmtime
def test_an_init_process_of_a_native_program(box: Box, tmp_path: Path, programs: tuple[bytes, bytes]) -> None:
    """As ``docker run --init`` asks for it: it is the native runtime's, and a WebAssembly program needs none."""
    make_init(tmp_path / "bin/init")
    for name, program, said in zip(("native", "wasm"), programs, ("init\n", ""), strict=True):
        bundle = Bundle(box, tmp_path / name, program)
        spec = bundle.spec("echo", "one")
        spec["process"]["args"][:0] = ["/sbin/docker-init", "--"]
        mount = {"source": str(tmp_path / "bin/init"), "type": "bind", "options": ["bind", "ro"]}
        spec["mounts"].append({"destination": "/sbin/docker-init", **mount})
        done = bundle.run(spec)
        assert (done.out, done.err) == ("one\n", said)


def uptime(said: str) -> float:
    return float(said.split()[0])


@needs_time
@wasm_only
def test_a_time_namespace(bundle: Bundle) -> None:
    """Docker gives one to each container. (Debian's runc knows none.)"""
    spec = bundle.spec("sleep", "600")
    spec["linux"]["namespaces"].append({"type": "time"})
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 10 * DAY}, "monotonic": {"secs": 20 * DAY}}
    assert bundle.run(spec, ("-d",)).code == 0
    own = uptime(Path("/proc/uptime").read_text())
    said = bundle.box.exec("app", "more", "read", "/proc/uptime")
    assert own + 10 * DAY <= uptime(said.out) < own + 11 * DAY, said.err


@needs_time
@wasm_only
def test_the_first_process_has_it_too(bundle: Bundle) -> None:
    spec = bundle.spec("read", "/proc/uptime")
    spec["linux"]["namespaces"].append({"type": "time"})
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 10 * DAY}}
    own = uptime(Path("/proc/uptime").read_text())
    assert own + 10 * DAY <= uptime(bundle.run(spec).out) < own + 11 * DAY
    # The jailer is back: the next container has the node's time.
    assert own <= uptime(bundle.run(bundle.spec("read", "/proc/uptime")).out) < own + DAY


@needs_time
@wasm_and_python
def test_how_the_kernel_treats_it(bundle: Bundle) -> None:
    """All at once; unit tests have each by itself."""
    spec = bundle.spec("sleep", "600")
    spec["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    spec["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    spec["linux"]["personality"] = {"domain": "LINUX"}
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}
    spec["linux"]["namespaces"].append({"type": "time"})
    assert bundle.run(spec, ("-d",)).code == 0
    pid = bundle.box.pid("app")
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, pid) == 5
    assert status(pid, "Seccomp") == {"Seccomp": "2"}
    assert Path(f"/proc/{pid}/ns/time").readlink() != Path("/proc/self/ns/time").readlink()


@wasm_only
@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("process.scheduler", {"policy": "SCHED_NEVER"}, "process.scheduler.policy: SCHED_NEVER is not known"),
        ("process.user.uid", "root", "process.user.uid must be a whole number below 2^32"),
        ("linux.intelRdt", {"closID": "a"}, "linux.intelRdt: caches and memory bandwidth are not divided"),
        ("linux.netDevices", {"eth0": {"name": "a"}}, "linux.netDevices: network devices are not moved"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets: there is no time namespace"),
        ("hooks", {"poststop": [{"path": "hook"}]}, "hooks.poststop[0].path must be an absolute path"),
        ("hooks", {"prestart": [{"path": "/hook", "timeout": 0}]}, "hooks.prestart[0].timeout must be a whole number"),
    ],
)
def test_what_cannot_be_is_one_sentence(bundle: Bundle, where: str, value: Any, words: str) -> None:
    spec = bundle.spec("echo", "hello")
    *above, last = where.split(".")
    inner = spec
    for name in above:
        inner = inner[name]
    inner[last] = value
    # ctr reads the file into containerd's types first: what it refuses itself is not ours to name.
    done = bundle.run(spec, ())
    assert done.code != 0
    assert done.out == ""
    assert words in done.err or "cannot unmarshal" in done.err
    bundle.box.remove("app")
    assert not bundle.box.leftovers()


@pytest.mark.parametrize("runtime", RUNTIMES[:2], ids=lambda runtime: runtime.name, indirect=True)
def test_a_native_containers_configuration_is_its_runtimes(bundle: Bundle) -> None:
    """What a WebAssembly container cannot have is no business of ours there: runc ignores personality's flags, say."""
    spec = bundle.spec("echo", "hello")
    spec["linux"]["personality"] = {"domain": "LINUX", "flags": ["ONE"]}
    done = bundle.run(spec)
    assert (done.code, done.out) == (0, "hello\n"), done.err
