"""Spin applications as ``spin registry push`` makes them: OCI artifacts of a locked manifest and layers."""

import base64
import gzip
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.e2e import images
from tests.e2e.box import Box, until
from tests.e2e.containerd import version_of
from tests.e2e.http_app import answers, free_port
from tests.e2e.images import Blob
from tests.e2e.spin_app import NO_PROGRAM, SPIN, App, is_without_python, on_spin, program
from tests.e2e.test_images import create_without_files, set_image
from tests.wasmtimes import native_only

NAME = "test.invalid/artifact:1"
LOCKED = "application/vnd.fermyon.spin.application.v1+config"
WASM = "application/vnd.wasm.content.layer.v1+wasm"
DATA = "application/vnd.wasm.content.layer.v1+data"
ARCHIVE = "application/vnd.wasm.content.bundle.v1.tar+gzip"
#: What is larger than 128 bytes is a layer of its own.
FILES = {"index.html": b"<h1>hello</h1>", "deep/large.txt": b"large " * 100}
Change = Callable[[dict[str, Any]], None]


def no_change(_locked: dict[str, Any]) -> None:
    """As it should be."""


def push(
    *, archive: bool = False, change: Change = no_change, leave_out: str = "", wasm: bytes | None = None
) -> images.Image:
    """What the command makes.

    :param archive: as with ``SPIN_OCI_ARCHIVE_LAYERS``
    :param change: something wrong with the locked manifest
    :param leave_out: a media type whose layers are missing
    :param wasm: another program
    """
    module = Blob(WASM, wasm or program())
    data = {path: Blob(DATA, content) for path, content in FILES.items()}
    files = [{**_reference(blob, inline=not archive), "path": path} for path, blob in data.items()]
    locked: dict[str, Any] = {
        "spin_lock_version": 0,
        "metadata": {
            "name": "pushed",
            "version": "2.0.0",
            "trigger": {"type": "http"},
            "triggers": {},
        },
        "variables": {"greeting": {"default": "hello"}, "secret": {"secret": True}},
        "triggers": [
            {"id": "trigger-main", "trigger_type": "http", "trigger_config": {"component": "main", "route": "/..."}},
            {
                "id": "trigger-other",
                "trigger_type": "http",
                "trigger_config": {"component": "other", "route": "/other/..."},
            },
        ],
        "components": [
            {
                "id": "main",
                "metadata": {"key_value_stores": ["default"], "databases": ["default"], "allowed_outbound_hosts": []},
                "source": {"content_type": "application/wasm", "digest": module.digest},
                "env": {"COLOUR": "green"},
                "files": files,
                "config": {"greeting": "{{ greeting }}, {{ secret }}!"},
            },
            {"id": "other", "source": {"content_type": "application/wasm", "digest": module.digest}},
        ],
    }
    change(locked)
    manifest = Blob(LOCKED, json.dumps(locked).encode())
    assets = [Blob(ARCHIVE, gzip.compress(images.layer({f"/{path}": data for path, data in FILES.items()}).data))]
    layers = [module, *(assets if archive else [blob for blob in data.values() if len(blob.data) > 128]), manifest]
    return artifact([layer for layer in layers if layer.media_type != leave_out])


def _reference(blob: Blob, *, inline: bool) -> dict[str, str]:
    small = {"inline": base64.b64encode(blob.data).decode().rstrip("=")} if inline and len(blob.data) <= 128 else {}
    return {"digest": blob.digest, **small}


def artifact(layers: list[Blob]) -> images.Image:
    platform = {"os": "Wasip1", "architecture": "wasm"}
    config = {**platform, "config": {"Labels": {}}, "rootfs": {"type": "layers", "diff_ids": []}}
    return images.Image(NAME, platform, Blob(images.CONFIG, json.dumps(config).encode()), layers)


def start(box: Box, tmp_path: Path, image: images.Image, **environment: str) -> str:
    """Make a container of an artifact; returns the address where it is to listen.

    containerd 2 unpacks such an image to nothing; 1.6 refuses to, and its container is given an empty root.
    """
    images.save(tmp_path / "pushed.tar", [image])
    address = f"127.0.0.1:{free_port()}"
    variables = {"SPIN_HTTP_LISTEN_ADDR": address, "SPIN_VARIABLE_SECRET": "s3cret", **environment}
    flags = ["--net-host", *(item for key, value in variables.items() for item in ("--env", f"{key}={value}"))]
    old = version_of(box.containerd) < (1, 7)
    box.ctr("images", "import", *box.containerd.version.import_flags, *["--no-unpack"] * old, tmp_path / "pushed.tar")
    if old:
        create_without_files(box, tmp_path, "/", flags=flags)
        anyio.run(set_image, box, "app", NAME)
    else:
        box.ctr("containers", "create", "--runtime", box.runtime.type, *flags, NAME, "app", "/")
    return address


def refused(box: Box) -> str:
    """Why an app does not start."""
    done = box.ctr("tasks", "start", "app", check=False)
    assert done.code != 0
    return done.err


@pytest.fixture(params=[False, True], ids=["layers", "archive"])
def app(request: pytest.FixtureRequest, box: Box, tmp_path: Path) -> Iterator[App]:
    address = start(box, tmp_path, push(archive=request.param))
    with serving(box, tmp_path, address) as app:
        yield app


@native_only
@on_spin
def test_its_worker_has_no_python(box: Box, app: App) -> None:
    """And of directories in the cache it keeps that of its files alone."""
    pid = box.pid("app")
    assert is_without_python(pid) == (box.runtime == SPIN)
    opened = [entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_dir()]
    cached = [sorted(os.listdir(entry)) for entry in opened if entry.readlink().name in ("artifact", "")]
    assert {tuple(names) for names in cached if "proc" not in names} == {("deep", "index.html")}


@contextmanager
def serving(box: Box, tmp_path: Path, address: str) -> Iterator[App]:
    output = tmp_path / "output"
    box.ctr("tasks", "start", "-d", "--log-uri", f"file://{output}", "app")
    until(lambda: answers(address) or box.status("app") == "STOPPED", "the application to listen")
    assert box.status("app") == "RUNNING", output.read_text()
    yield App(address, output)
    box.kill("app", "SIGTERM")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 0


@on_spin
def test_an_artifact(app: App) -> None:
    assert app.get("/.well-known/spin/info").json() == {"name": "pushed", "version": "2.0.0"}
    assert app.value("/variable/greeting") == "hello, s3cret!"
    assert app.value("/about")["environ"]["COLOUR"] == "green"
    assert app.value("/listing") == ["deep", "index.html"]
    for path, content in FILES.items():
        assert app.value(f"/read/{path}") == content.decode(), path
    assert app.value("/read/deep/none.txt") == "No such file or directory"
    assert app.value("/write/index.html") == "Read-only file system"
    assert [app.value("/counter") for _ in range(2)] == [1, 2]
    assert app.get("/other/counter").json() == "Error_AccessDenied"


@on_spin
def test_a_part_of_an_artifact(box: Box, tmp_path: Path) -> None:
    address = start(box, tmp_path, push(), SPIN_COMPONENTS_TO_RETAIN="other")
    with serving(box, tmp_path, address) as app:
        assert app.get("/about").status_code == 404
        assert app.value("/other/about")["headers"]["spin-matched-route"] == "/other/..."


@on_spin
def test_a_component_alone(box: Box, tmp_path: Path) -> None:
    """As ``wkg`` pushes it: it answers every path."""
    address = start(box, tmp_path, artifact([Blob("application/wasm", program())]))
    with serving(box, tmp_path, address) as app:
        assert app.value("/about")["headers"]["spin-matched-route"] == "/..."
        assert app.get("/counter").json() == "Error_AccessDenied"


def drop(*path: str | int) -> Change:
    """Something missing."""

    def change(locked: Any) -> None:
        for key in path[:-1]:
            locked = locked[key]
        del locked[path[-1]]

    return change


def put(value: Any, *path: str | int) -> Change:
    """Something wrong."""

    def change(locked: Any) -> None:
        for key in path[:-1]:
            locked = locked[key]
        locked[path[-1]] = value

    return change


WRONG: Mapping[str, tuple[Change, str]] = {
    "version": (put(7, "spin_lock_version"), "spin_lock_version is neither 0 nor 1"),
    "digest": (put("sha256:" + "0" * 64, "components", 0, "source", "digest"), "components[0].source.digest is sha256"),
    "source": (drop("components", 1, "source"), "components[1].source is missing"),
    "trigger": (put("sqs", "triggers", 0, "trigger_type"), "triggers[0].trigger_config is a sqs trigger"),
    "component": (put("x", "triggers", 1, "trigger_config", "component"), "component names 'x', which is no component"),
    "clash": (put("/...", "triggers", 1, "trigger_config", "route"), "gives the route /... to other; main has it"),
    "path": (put("../etc/passwd", "components", 0, "files", 1, "path"), 'files[1].path is "../etc/passwd"'),
    "inline": (put("?", "components", 0, "files", 0, "inline"), "files[0].inline is not base64"),
    "needed": (put({"magic": "required"}, "host_requirements"), "host_requirements.magic is required"),
    "file": (put("sha256:" + "1" * 64, "components", 0, "files", 1, "digest"), "no layer with the file deep/large.txt"),
}


@on_spin
@pytest.mark.parametrize("what", WRONG)
def test_locked_manifests_that_are_wrong(box: Box, tmp_path: Path, what: str) -> None:
    change, words = WRONG[what]
    start(box, tmp_path, push(change=change, wasm=NO_PROGRAM))
    assert words in refused(box)


@on_spin
def test_an_archive_that_is_none(box: Box, tmp_path: Path) -> None:
    made = push(archive=True, wasm=NO_PROGRAM)
    broken = [Blob(ARCHIVE, b"no archive") if layer.media_type == ARCHIVE else layer for layer in made.layers]
    start(box, tmp_path, artifact(broken))
    assert "is no archive (tar, gzip)" in refused(box)


@on_spin
def test_an_image_that_is_no_application(box: Box, tmp_path: Path) -> None:
    """Its component is run as any other, which it cannot be."""
    start(box, tmp_path, push(leave_out=LOCKED))
    words = refused(box)  # each host names the first that it lacks
    assert "the component imports " in words and "which is not provided" in words
