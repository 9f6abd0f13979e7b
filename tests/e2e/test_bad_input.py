"""What bad input gets: one clear sentence with the container's id, everything rolled back, and nothing else stops."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import guests, images, leftovers
from tests.e2e.box import Box, Runtime, content, until, wasm_only
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import Containerd, Result

pytestmark = wasm_only
IMAGE = "test.invalid/bad:1"


@pytest.fixture
def bystander(box: Box) -> str:
    """Another app that runs meanwhile."""
    box.detach("bystander", "sleep", 600)
    return "bystander"


@pytest.fixture
def bad(box: Box, bystander: str, tmp_path: Path, programs: tuple[bytes, bytes]) -> Box:
    _native, wasm = programs
    files = {
        "/truncated.wasm": wasm[: len(wasm) // 2],
        "/changed.wasm": wasm[:2000] + b"\xff" * 100 + wasm[2100:],
        "/empty.wasm": b"",
        "/text.wasm": b"hello\n",
        "/broken.wat": b"(module (func",
        "/foreign.wat": b'(module (import "elsewhere" "thing" (func)) (func (export "_start")))',
    }
    contents = images.layer(files, guests.DIRECTORIES)
    images.save(tmp_path / "bad.tar", [images.image(IMAGE, [contents], {"Env": ["PATH=/"]})])
    box.containerd.import_image(tmp_path / "bad.tar", box.namespace)
    return box


def refused(box: Box, done: Result, *words: str) -> None:
    """One sentence that names the container and the reason; nothing left; the bystander lives."""
    assert done.code != 0
    assert done.out == ""
    (sentence,) = [line for line in done.err.splitlines() if line.startswith("ctr: ")]
    assert "app" in sentence
    for word in words:
        assert word in sentence
    assert "Traceback" not in done.err
    box.remove("app")
    assert box.status("bystander") == "RUNNING"
    box.remove("bystander")
    assert not box.leftovers()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/truncated.wasm", ["/truncated.wasm"]),
        ("/changed.wasm", ["/changed.wasm"]),
        ("/empty.wasm", ["/empty.wasm"]),
        ("/text.wasm", ["/text.wasm"]),
        ("/broken.wat", ["/broken.wat"]),
        ("/foreign.wat", ["elsewhere"]),
        ("/missing.wasm", ["/missing.wasm", "no such file"]),
        ("missing.wasm", ["missing.wasm", "executable file not found in $PATH"]),
        ("/data", ["/data"]),
    ],
)
def test_program(bad: Box, program: str, words: list[str]) -> None:
    done = bad.ctr("run", "--rm", "--runtime", bad.runtime.type, IMAGE, "app", program, check=False)
    refused(bad, done, *words)


def test_missing_mount_source(box: Box, bystander: str, tmp_path: Path) -> None:
    mount = f"type=bind,src={tmp_path}/nothing,dst=/mnt,options=rbind:ro"
    refused(box, box.run("app", flags=("--rm", "--mount", mount)), "nothing")


def test_unknown_user(box: Box, bystander: str) -> None:
    """More than a user id holds."""
    spec = {**SPEC, "process": {**SPEC["process"], "user": {"uid": 1 << 40, "gid": 0}}}
    done = run_spec(box, spec)
    assert done.code != 0
    assert "app" in done.err or "User.process.user.uid" in done.err  # 1.6's ctr refuses the spec by itself


SPEC: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["/app.wasm"], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "/e2e/app"},
}


def run_spec(box: Box, spec: object) -> Result:
    path = box.containerd.directory / f"{box.namespace}.json"
    path.write_text(json.dumps(spec))
    return box.ctr("run", "--rm", "--runtime", box.runtime.type, "--config", path, "app", check=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"process": {"args": [], "cwd": "/"}}, "args"),
        ({"process": {"args": ["/app.wasm"], "cwd": "relative"}}, "cwd"),
        ({"process": None}, "process"),
        ({"root": None}, "root"),
        ({"root": {"path": "/nowhere/at/all"}}, "/nowhere/at/all"),
        ({"linux": {"namespaces": [{"type": "network", "path": "/nowhere/net"}]}}, "/nowhere/net"),
        ({"linux": {"namespaces": [{"type": "unheard-of"}]}}, "unheard-of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_configuration(box: Box, bystander: str, change: dict[str, object], word: str) -> None:
    refused(box, run_spec(box, {**SPEC, **change}), word)


def test_a_cgroup_that_is_in_use(box: Box, bystander: str) -> None:
    """It stays the other's, with its limits; the jailer that was at work meanwhile is ended, and replaced."""
    shared = ("--cgroup", f"/{box.namespace}/shared")
    box.detach("app", "sleep", 600, flags=(*shared, "--memory-limit", 100 << 20))
    done = box.run("other", "exit", 0, flags=("--rm", *shared, "--memory-limit", 50 << 20))
    assert (done.code, done.out) == (1, "")
    assert "container other: cgroup /" in done.err
    assert "in use" in done.err
    values = [
        path.read_text().strip()
        for directory in leftovers.cgroups(box.namespace)
        for path in Path(directory).rglob("memory.*")
        if path.name in ("memory.limit_in_bytes", "memory.max")
    ]
    assert str(100 << 20) in values
    assert box.run("third", "exit", 0).code == 0
    assert box.kill("app").code == 0
    box.wait_status("app", "STOPPED")
    box.delete("app")
    box.remove("app")
    box.remove("bystander")
    assert not box.leftovers()


def test_bundle_deleted_meanwhile(box: Box, bystander: str) -> None:
    box.detach("app", "sleep", 600)
    bundle = box.containerd.bundle(box.namespace, "app")
    subprocess.run(["umount", "-l", bundle / "rootfs"], check=False)
    shutil.rmtree(bundle)
    assert box.status("app") == "RUNNING"
    assert box.kill("app").code == 0
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137
    assert box.status("bystander") == "RUNNING"
    box.remove("app")
    box.remove("bystander")
    assert not box.leftovers()


def test_reader_that_went_away(box: Box, bystander: str) -> None:
    """A client that is killed takes its end of the FIFOs along; the app goes on and can be ended."""
    client = box.run_attached("app", "tick", stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == "tick 0\n"
    client.kill()
    client.wait()
    assert box.status("app") == "RUNNING"
    assert box.kill("app").code == 0
    box.wait_status("app", "STOPPED")
    assert box.status("bystander") == "RUNNING"


def test_full_disk(own_containerd: Containerd, runtime: Runtime, new_box: BoxMaker) -> None:
    """No room for the compiled module: refused; with room again it works, with nothing restarted."""
    box = new_box(own_containerd, runtime)
    cache = own_containerd.directory / "shimd-cache"
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(cache)]
    subprocess.run(mount, check=True)
    try:
        done = box.run("app")
        assert done.code != 0
        assert "app" in done.err
        assert "no space left on device" in done.err.lower()  # in wasmer's own words
        assert not box.leftovers()
        subprocess.run(["mount", "-o", "remount,size=64m", cache], check=True)
        assert box.run("app2").out == "hello from app\n"
    finally:
        box.close()
        until(lambda: unmounted(cache, own_containerd), "the cache to be free")


def unmounted(cache: Path, user: Containerd) -> bool:
    """The daemon is asked to stop each time: one that is still needed is followed by the next."""
    user.stop_daemon()
    return subprocess.run(["umount", cache], capture_output=True).returncode == 0


def test_no_room_for_the_journal(own_containerd: Containerd, runtime: Runtime, new_box: BoxMaker) -> None:
    box = new_box(own_containerd, runtime)
    output = box.detach("before", "sleep", 600)
    until(lambda: content(output), "the first app")
    state = own_containerd.directory / "shimd-state"
    state.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "tmpfs", state], check=True)
    try:
        (state / "filler").write_bytes(bytes(1 << 12))
        done = box.run("app", "exit", 3)
        assert done.code == 3 or "no space left on device" in done.err
        assert box.kill("before").code == 0
        box.wait_status("before", "STOPPED")
        assert box.delete("before") == 137
    finally:
        subprocess.run(["umount", "-l", state], check=True)
