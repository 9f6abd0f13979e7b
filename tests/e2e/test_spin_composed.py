"""Spin applications of several components in one: what they depend on, what that may reach, and middleware."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from shimd.apps.spin.locked import MEDIA_TYPE
from shimd.engines import componentize
from shimd.engines.wasmtime import NATIVE
from tests.components.parts import layer, part
from tests.components.rust import component as rust
from tests.e2e import spin_app
from tests.e2e.box import Box, until
from tests.e2e.images import Blob
from tests.e2e.spin_app import App, image, on_spin, on_the_newest
from tests.e2e.spin_local import on_hosts, refused, running
from tests.e2e.test_spin_artifact import WASM, artifact, serving, start
from tests.e2e.test_spin_artifact import refused as spin_refused

pytestmark = pytest.mark.skipif(
    not componentize.version(), reason="native/componentize is built by cargo: run tools/setup"
)
newer = pytest.mark.skipif(not NATIVE, reason="WASI 0.3 takes shimd-wasmtime-native")

DEPENDS = """
spin_manifest_version = 2
application = { name = "composed" }
[[trigger.http]]
route = "/..."
component = "app"
[component.app]
source = "app.wasm"
key_value_stores = ["default"]
sqlite_databases = ["default"]
allowed_outbound_hosts = ["http://127.0.0.1:*", "tcp://127.0.0.1:*"]
variables = { word = "secret" }
environment = { COLOUR = "green" }
files = [{ source = "files", destination = "/" }]
[component.app.dependencies]
"test:parts/sums@1.0.0" = { path = "given.wasm" }
"test:parts/first" = { component = "given" }
"test:parts/second@1.0.0" = { component = "given", inherit_configuration = true }
greeting = { path = "given.wasm", export = "greeting" }
[component.given]
source = "given.wasm"
"""
#: What each kind of access comes to: for a dependency that inherits nothing, and for one that inherits all.
ACCESS = {
    "k": ("error 2 ", "ok"),
    "s": ("error 1 ", "ok"),
    "v": ("error 1 word", "secret"),
    "e": ("0", "2"),
    "f": ("0", "1"),
    "t": ("error 1 ", "ok"),
    "d127.0.0.1": ("error 1 ", "ok"),
    "h127.0.0.1:9": ('error V "wasi:http/outgoing-handler" is not permitted', "ok"),
}


def application(tmp_path: Path, manifest: str, programs: Mapping[str, bytes]) -> Path:
    directory = tmp_path / "app"
    directory.mkdir()
    for name, data in {"spin.toml": manifest.encode(), **programs}.items():
        (directory / name).write_bytes(data)
    (directory / "files").mkdir()
    (directory / "files/one").write_text("one")
    return directory


def programs(*names: str) -> dict[str, bytes]:
    return {f"{name}.wasm": part(name) for name in names}


def said(app: App, what: str) -> list[str]:
    answer = app.get(f"/{what}")
    assert answer.status_code == 200, answer.text + app.output.read_text()
    return answer.text.splitlines()


@on_hosts
def test_dependencies(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """Two of the same component: one inherits what the application may do, to the other all is denied."""
    place = application(tmp_path, DEPENDS, programs("app", "given"))
    with running(tmp_path, environment, "--engine", engine, place) as app:
        for what, (denied, granted) in ACCESS.items():
            assert said(app, what) == ["7", "hello you", denied, granted], what


@on_hosts
def test_a_whole_package(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """All its interfaces are of one instance."""
    lines = DEPENDS.splitlines()
    first = next(number for number, line in enumerate(lines) if "sums" in line)
    package = '"test:parts" = { path = "given.wasm", inherit_configuration = ["variables", "files"] }'
    manifest = "\n".join([*lines[:first], package, *lines[first + 3 :]])
    place = application(tmp_path, manifest, programs("app", "given"))
    with running(tmp_path, environment, "--engine", engine, place) as app:
        assert said(app, "v") == ["7", "hello you", "secret", "secret"]
        assert said(app, "f") == ["7", "hello you", "1", "1"]
        assert said(app, "k") == ["7", "hello you", "error 2 ", "error 2 "]


WRONG = {
    '"test:parts/sums@1.0.1" = { path = "given.wasm" }': (
        "dependencies.test:parts/sums@1.0.1 matches none of the component's imports, which are test:parts/sums@1.0.0,"
    ),
    '"test:parts/sums" = { path = "given.wasm", export = "hello" }': (
        "dependencies.test:parts/sums does not export hello, for the import test:parts/sums@1.0.0, but greeting,"
    ),
    '"test:parts/sums" = { path = "given.wasm", export = "greeting" }': (
        "dependencies.test:parts/sums: its greeting does not fit the import test:parts/sums@1.0.0: "
    ),
    '"test:parts/sums" = { path = "app.wasm" }': "dependencies.test:parts/sums does not export test:parts/sums@1.0.0, ",
    '"test:parts/sums" = { path = "bad.wasm" }': "dependencies.test:parts/sums",
}


@pytest.mark.parametrize("line", WRONG)
def test_dependencies_that_do_not_fit(tmp_path: Path, environment: dict[str, str], line: str) -> None:
    manifest = DEPENDS.replace('"test:parts/sums@1.0.0" = { path = "given.wasm" }', line)
    place = application(tmp_path, manifest, {**programs("app", "given"), "bad.wasm": b"\0asm\1\0\0\0"})
    code, words = refused(tmp_path, environment, place)
    assert (code, words.count("\n")) == (126, 1), words
    assert words.startswith(f"shimd: {place}/spin.toml: component.app: {WRONG[line]}")


def test_a_dependency_that_is_not_there(tmp_path: Path, environment: dict[str, str]) -> None:
    place = application(tmp_path, DEPENDS, programs("app"))
    assert refused(tmp_path, environment, place) == (127, f"shimd: {place}/given.wasm: no such file or directory\n")
    (place / "given.wasm").mkdir()
    words = f"shimd: {place}/spin.toml: component.app: {place}/given.wasm is a directory\n"
    assert refused(tmp_path, environment, place) == (126, words)


def test_a_dependency_that_changes(tmp_path: Path, environment: dict[str, str]) -> None:
    """It is another program then; ``--watch`` sees it, too."""
    place = application(tmp_path, DEPENDS, programs("app", "given"))
    with running(tmp_path, environment, "--watch", place) as app:
        assert said(app, "v")[1] == "hello you"
        (place / "given.wasm").write_bytes(part("given").replace(b" hello ", b" howdy "))
        until(lambda: said_at_all(app) == "howdy you", "another start")


def said_at_all(app: App) -> str:
    try:
        return said(app, "v")[1]
    except httpx.HTTPError:
        return ""


BEHIND = """
spin_manifest_version = 2
application = { name = "behind" }
[[trigger.http]]
route = "/..."
component = "app"
dependencies.middleware = [%s]
[[trigger.http]]
route = "/open/..."
component = "app"
[component.app]
source = "app.wasm"
variables = { word = "secret" }
[component.gate]
source = "gate.wasm"
"""


def status(app: App, path: str = "/", **headers: str) -> int:
    return httpx.get(f"http://{app.address}{path}", headers=headers, timeout=30, trust_env=False).status_code


@on_hosts
def test_middleware_of_wasi_0_2(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """It keeps the others out, and is of one trigger only."""
    head, depends = DEPENDS.split("[component.app]")
    gate = (
        'dependencies.middleware = [{ component = "gate" }]\n[[trigger.http]]\nroute = "/open/..."\ncomponent = "app"\n'
    )
    manifest = f'{head}{gate}[component.gate]\nsource = "gate.wasm"\n[component.app]{depends}'
    place = application(tmp_path, manifest, programs("app", "given", "gate"))
    with running(tmp_path, environment, "--engine", engine, place) as app:
        assert status(app, "/v") == 401
        answer = httpx.get(f"http://{app.address}/v", headers={"authorization": "x"}, timeout=30, trust_env=False)
        assert (answer.status_code, answer.text.split()[-1]) == (200, "secret")
        assert status(app, "/open/v") == 200


def layers(*kinds: str) -> str:
    """Middleware of those kinds, the outermost first; in capitals: one that inherits variables."""
    inherits = 'inherit_configuration = ["variables"]'
    return ", ".join(f'{{ path = "{kind.lower()}.wasm"{f", {inherits}" if kind.isupper() else ""} }}' for kind in kinds)


#: What is answered to whom there is nothing against, and to the others, by the middleware, the outermost first.
BEFORE = {
    ("o", "i"): (204, 204),
    ("i", "o"): (599, 599),
    ("a",): (401, 200),
    ("o", "a"): (402, 201),
    ("a", "o", "i"): (401, 204),
    ("v",): (403, 403),
    ("V",): (200, 200),
}


@newer
@pytest.mark.parametrize("kinds", BEFORE)
def test_middleware_of_wasi_0_3(tmp_path: Path, environment: dict[str, str], kinds: tuple[str, ...]) -> None:
    made = {f"{kind}.wasm": layer(kind) for kind in "oiav"}
    manifest = (BEHIND % layers(*kinds)).replace('[component.gate]\nsource = "gate.wasm"\n', "")
    place = application(tmp_path, manifest, {"app.wasm": rust("newer").read_bytes(), **made})
    with running(tmp_path, environment, place) as app:
        assert (status(app), status(app, authorization="x")) == BEFORE[kinds], app.output.read_text()


NEIGHBOURS = """
spin_manifest_version = 2
application = { name = "neighbours" }
[[trigger.http]]
route = "/..."
component = "front"
[[trigger.http]]
route = { private = true }
component = "behind"
dependencies.middleware = [{ path = "a.wasm" }]
[[trigger.http]]
route = "/both"
component = "both"
dependencies.middleware = [{ path = "a.wasm" }]
[[trigger.http]]
route = { private = true }
component = "both"
[component.front]
source = "app.wasm"
allowed_outbound_hosts = ["http://*.spin.internal"]
[component.behind]
source = "app.wasm"
[component.both]
source = "app.wasm"
"""


@newer
def test_middleware_between_neighbours(tmp_path: Path, environment: dict[str, str]) -> None:
    """It is before its component whoever calls; one that has a trigger without is called as by that."""
    files = {"app.wasm": rust("newer").read_bytes(), "a.wasm": layer("a")}
    with running(tmp_path, environment, application(tmp_path, NEIGHBOURS, files)) as app:
        assert status(app, "/ask?behind.spin.internal/") == 401
        assert status(app, "/ask?both.spin.internal/") == 200
        assert status(app, "/both") == 401


def test_middleware_that_is_none(tmp_path: Path, environment: dict[str, str]) -> None:
    manifest = BEHIND % '{ path = "given.wasm" }'
    manifest = manifest.replace('[component.gate]\nsource = "gate.wasm"\n', "")
    place = application(tmp_path, manifest, programs("app", "given"))
    code, words = refused(tmp_path, environment, place)
    told = f"shimd: {place}/spin.toml: component.app: trigger.http[0].dependencies.middleware[0] is no middleware for"
    assert code == 126 and words.startswith(told), words


@on_spin
def test_in_a_container(box: Box, tmp_path: Path) -> None:
    files = {f"/{name}": data for name, data in programs("app", "given").items()} | {"/files/one": b"one"}
    name = spin_app.SPIN.image
    box.ctr("images", "import", str(image(tmp_path / "composed.tar", name, DEPENDS, files)))
    with spin_app.running(box, name) as app:
        for what in ("k", "v", "f"):
            assert said(app, what) == ["7", "hello you", *ACCESS[what]]


def locked(**changes: Any) -> tuple[dict[str, Any], list[Blob]]:
    """What ``spin registry push --compose=false`` makes of the application."""
    app, given, gate = (Blob(WASM, part(name)) for name in ("app", "given", "gate"))

    def source(blob: Blob) -> dict[str, str]:
        return {"content_type": "application/wasm", "digest": blob.digest}

    given_up, whole = {"source": source(given), "export": None}, {"inherit": "All"}
    component = {
        "id": "app",
        "metadata": {"key_value_stores": ["default"], "resolve-trigger-dependencies-using": "http"},
        "source": source(app),
        "config": {"word": "secret"},
        "dependencies": {
            "test:parts/sums": given_up,
            "test:parts/first@1.0.0": given_up,
            "test:parts/second@1.0.0": {**given_up, **whole},
            "greeting": {**given_up, "inherit": {"Some": ["files"]}},
        },
        "trigger_dependencies": {"middleware": [{"source": source(gate), "export": None}]},
        "host_requirements": {"middleware": "required"},
        **changes,
    }
    described = {
        "spin_lock_version": 1,
        "must_understand": ["component_host_requirements"],
        "metadata": {"name": "composed", "version": "1.0.0", "trigger": {"type": "http"}, "triggers": {}},
        "triggers": [
            {"id": "one", "trigger_type": "http", "trigger_config": {"component": "app", "route": "/..."}},
        ],
        "components": [component],
    }
    return described, [app, given, gate, Blob(MEDIA_TYPE, json.dumps(described).encode())]


@on_spin
def test_an_artifact(box: Box, tmp_path: Path) -> None:
    address = start(box, tmp_path, artifact(locked()[1]))
    with serving(box, tmp_path, address) as app:
        assert status(app, "/k") == 401
        for what in ("k", "v"):
            answer = httpx.get(f"http://{address}/{what}", headers={"authorization": "x"}, trust_env=False, timeout=30)
            assert answer.text.splitlines() == ["7", "hello you", *ACCESS[what]]


@on_the_newest
@on_spin
def test_an_artifact_whose_middleware_is_not_in_it(box: Box, tmp_path: Path) -> None:
    """So Spin pushes one that it has not composed: nothing is served without."""
    lost = {"source": {"content_type": "application/wasm", "source": "file:///gate.wasm"}, "export": None}
    layers = locked(trigger_dependencies={"middleware": [lost]})[1]
    start(box, tmp_path, artifact(layers))
    words = "components[0].trigger_dependencies.middleware[0].source is no layer of the image"
    assert words in spin_refused(box)
