"""What Spin applications use besides components and stores: fixed answers, models, secrets, databases elsewhere."""

from pathlib import Path

import httpx
import pytest

from tests.e2e.test_spin_local import refused, running

STATIC = """
spin_manifest_version = 2
application = { name = "moved" }
[[trigger.http]]
route = "/..."
static_response = { status_code = 404, body = "not found" }
[[trigger.http]]
route = "/old/:name"
static_response = { status_code = 302, headers = { Location = "/new" } }
[[trigger.http]]
route = "/empty"
static_response = { status_code = 204 }
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One cache for all: a module of that size takes a while to compile."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "SHIMD_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }


def application(tmp_path: Path, manifest: str, files: dict[str, bytes] | None = None) -> Path:
    """A directory with a ``spin.toml``."""
    directory = tmp_path / "app"
    directory.mkdir()
    for name, data in {"spin.toml": manifest.encode(), **(files or {})}.items():
        (directory / name).write_bytes(data)
    return directory


def test_an_application_of_fixed_answers(tmp_path: Path, environment: dict[str, str]) -> None:
    """It has no component at all."""
    with running(tmp_path, environment, application(tmp_path, STATIC)) as app:
        found = app.get("/any/where")
        assert (found.status_code, found.text, found.headers["content-length"]) == (404, "not found", "9")
        assert "content-type" not in found.headers
        moved = app.get("/old/thing")
        assert (moved.status_code, moved.headers["location"], moved.content) == (302, "/new", b"")
        assert app.get("/empty").status_code == 204
        asked = httpx.head(f"http://{app.address}/x", trust_env=False)
        assert (asked.status_code, asked.content, asked.headers["content-length"]) == (404, b"", "9")
        assert app.end() == 0, app.said()


def test_a_part_that_is_none(tmp_path: Path, environment: dict[str, str]) -> None:
    given = environment | {"SPIN_COMPONENTS_TO_RETAIN": "a"}
    manifest = application(tmp_path, STATIC + '[component.a]\nsource = "none.wasm"\n') / "spin.toml"
    words = f"shimd: SPIN_COMPONENTS_TO_RETAIN=a: no trigger of {manifest} calls what it names\n"
    assert refused(tmp_path, given, manifest) == (126, words)
