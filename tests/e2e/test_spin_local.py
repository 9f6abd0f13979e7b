"""Applications by ``shimd run``: from a directory of this machine, as ``spin up`` runs them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.box import until
from tests.e2e.http_app import answers, serving
from tests.e2e.spin_app import is_without_python, program
from tests.e2e.spin_local import command, on_hosts, refused, running
from tests.slight.build import guest
from tests.wasmtimes import native_only

MANIFEST = """
spin_manifest_version = 2
application = { name = "local" }
[variables]
word = { default = "default" }
home = { default = "not the shell's" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "build/app.wasm"
key_value_stores = ["default"]
sqlite_databases = ["default"]
variables = { word = "{{ word }}", home = "{{ home }}" }
environment = { COLOUR = "green" }
files = ["assets/**/*", { source = "shared", destination = "/mounted" }]
"""
SLIGHTFILE = """
specversion = "0.2"
[[capability]]
resource = "http"
name = "my-rest-api"
[[capability]]
resource = "keyvalue.filesystem"
name = "files"
"""


@pytest.fixture(scope="module")
def environment(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "SPIN_VARIABLE_WORD": "from the shell"}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An application's directory, which is not the working directory."""
    files = {
        "spin.toml": MANIFEST.encode(),
        "build/app.wasm": program(),
        "assets/deep/a.txt": b"deep",
        "shared/note": b"a note",
        "secret": b"not a component's",
    }
    for name, data in files.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "shop"


@pytest.mark.parametrize("what", ["shop", "shop/spin.toml"])
def test_an_application(tmp_path: Path, environment: dict[str, str], shop: Path, what: str) -> None:
    """Its paths are relative to its directory, and so is its state, which outlives it."""
    (shop / "runtime-config.toml").write_text('[sqlite_database.default]\ntype = "spin"\npath = "data/sql.db"\n')
    for round, number in ((1, signal.SIGTERM), (2, signal.SIGINT)):
        with running(tmp_path, environment, what) as app:
            assert app.value("/counter") == round
            assert len(app.value(f"/people/number{round}")["rows"]) == round
            assert app.value("/read/assets/deep/a.txt") == "deep"
            assert app.value("/read/mounted/note") == "a note"
            assert app.value("/read/secret") == "No such file or directory"
            assert app.value("/variable/word") == "from the shell"
            assert app.value("/variable/home") == "not the shell's"
            assert app.value("/about")["environ"]["COLOUR"] == "green"
            assert app.end(number) == 0, app.said()
    assert (shop / ".spin" / "sqlite_key_value.db").exists() and (shop / "data" / "sql.db").exists()
    assert not Path("/.spin").exists()
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


@native_only
@pytest.mark.parametrize("zygote", ["yes", "no"])
def test_the_native_host_with_python_and_without(
    tmp_path: Path, environment: dict[str, str], shop: Path, zygote: str
) -> None:
    (shop / "spin.toml").write_text(MANIFEST + OTHER)
    with running(tmp_path, {**environment, "SHIMD_ZYGOTE": zygote}, "shop") as app:
        assert is_without_python(serving(app)) == (zygote == "yes")
        assert [app.value("/counter"), app.value("/other/counter")] == [1, 2]
        assert app.value("/read/assets/deep/a.txt") == "deep"
        assert app.end() == 0, app.said()


#: A second component, of the same program.
OTHER = """
[[trigger.http]]
route = "/other/..."
component = "other"
[component.other]
source = "build/app.wasm"
key_value_stores = ["default"]
"""
PATTERNS = """
spin_manifest_version = 2
application = { name = "patterns" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
files = [%s]
"""
#: By patterns what they find, of the same names in each directory.
FOUND = {
    "set/[a-b]1": ["a1", "b1"],
    "not/[!a-b]1": ["-1", "]1", "c1", "ü1"],
    "same/[a-a]1": ["a1"],
    "last/[a-]1": ["-1", "a1"],
    "closing/[]]1": ["]1"],
    "any/?1": ["-1", "]1", "a1", "b1", "c1", "ü1"],
    "star/*1": ["-1", "]1", "a1", "b1", "c1", "ü1"],
    "dot/.*": [".d1"],
    "deep/**/c1": ["c1", "sub"],
}


@on_hosts
def test_patterns_of_files(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    for pattern in FOUND:
        for name in ("-1", "]1", "a1", "b1", "c1", "ü1", ".d1", "sub/c1", ".hidden/c1"):
            path = tmp_path / "app" / pattern.partition("/")[0] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    (tmp_path / "app/spin.toml").write_text(PATTERNS % ", ".join(f'"{pattern}"' for pattern in FOUND))
    (tmp_path / "app/app.wasm").write_bytes(program())
    with running(tmp_path, environment, "--engine", engine, "app") as app:
        for pattern, names in FOUND.items():
            assert app.value(f"/listing/{pattern.partition('/')[0]}") == names, pattern
        assert app.end() == 0, app.said()


def test_variables_and_how_it_went(tmp_path: Path, environment: dict[str, str], shop: Path) -> None:
    (shop / ".env").write_text("SPIN_VARIABLE_HOME=from dotenv\n")
    with running(tmp_path, environment, "--json", "--env", "SPIN_VARIABLE_WORD=given", "shop") as app:
        assert (app.value("/variable/word"), app.value("/variable/home")) == ("given", "from dotenv")
        assert app.end() == 0
        told = json.loads(app.said().splitlines()[-1])
    assert (told["program"], told["engine"], told["exit_status"], told["error"]) == ("shop", "spin", 0, None)


def test_it_is_started_anew_when_something_changes(tmp_path: Path, environment: dict[str, str], shop: Path) -> None:
    """Also where it could not start before."""
    manifest = shop / "spin.toml"
    with running(tmp_path, environment, "--watch", "shop") as app:
        started = app.said().count("serving on")
        (shop / "assets" / "new.txt").write_text("new")
        until(lambda: app.said().count("serving on") > started, "another start, for a file")
        manifest.write_text(MANIFEST.replace("source =", "sauce ="))
        until(lambda: "component.it.sauce is unknown; source is probably meant" in app.said(), "the mistake to be told")
        manifest.write_text(MANIFEST.replace("green", "blue"))
        until(lambda: answers(app.address), "another start, for the manifest")
        assert app.value("/about")["environ"]["COLOUR"] == "blue"
        assert app.value("/read/assets/new.txt") == "new"
        assert app.end() == 0, app.said()


def test_an_end_while_it_waits_for_a_change(tmp_path: Path, environment: dict[str, str], shop: Path) -> None:
    (shop / "spin.toml").write_text("x = 1\nspin_manifest_version = 2")
    output = tmp_path / "output"
    with (
        output.open("w") as log,
        subprocess.Popen(command("--watch", "shop"), stderr=log, env=environment, cwd=tmp_path) as process,
    ):
        until(lambda: "spin.toml: x is unknown" in output.read_text() or process.poll() is not None, "why not")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, output.read_text()


def test_what_is_wrong(tmp_path: Path, environment: dict[str, str], shop: Path) -> None:
    (shop / "spin.toml").write_text(MANIFEST.replace("key_value_stores", "keyvalue_stores"))
    code, said = refused(tmp_path, environment, "shop")
    words = f"shimd: {shop}/spin.toml: component.it.keyvalue_stores is unknown; key_value_stores is probably meant\n"
    assert (code, said) == (126, words)
    (shop / "spin.toml").write_text(MANIFEST.replace("build/app.wasm", "none.wasm"))
    assert refused(tmp_path, environment, "shop") == (127, f"shimd: {shop}/none.wasm: no such file or directory\n")
    (tmp_path / "empty").mkdir()
    words = "shimd: empty is a directory without a spin.toml or a slightfile.toml\n"
    assert refused(tmp_path, environment, "empty") == (126, words)
    (tmp_path / "other.toml").write_text("x = 1")
    words = "shimd: other.toml has neither spin_manifest_version (Spin) nor specversion (Slight)\n"
    assert refused(tmp_path, environment, "other.toml") == (126, words)
    (tmp_path / "broken.toml").write_text("= =")
    code, said = refused(tmp_path, environment, "broken.toml")
    assert code == 126 and said.startswith("shimd: broken.toml is not TOML: ")
    assert refused(tmp_path, environment, "none.toml") == (127, "shimd: none.toml: no such file or directory\n")
    for option, value in (("--dir", "."), ("--cwd", "/x"), ("--invoke", "f")):
        words = f"shimd: {option} is for programs: what an application sees is in shop/spin.toml\n"
        assert refused(tmp_path, environment, option, value, "shop") == (126, words)
    words = "shimd: --engine wasmedge: shop/spin.toml is run by spin\n"
    assert refused(tmp_path, environment, "--engine", "wasmedge", "shop") == (126, words)
    words = "shimd: --listen: an application has one address\n"
    assert refused(tmp_path, environment, "-p", "1", "-p", "2", "shop") == (126, words)
    words = "shimd: --watch is for applications, and shop/build/app.wasm is a program\n"
    assert refused(tmp_path, environment, "--watch", "shop/build/app.wasm") == (126, words)


@pytest.mark.parametrize("what", ["thin", "thin/slightfile.toml"])
def test_an_application_of_slight(tmp_path: Path, environment: dict[str, str], what: str) -> None:
    directory = tmp_path / "thin"
    directory.mkdir()
    (directory / "slightfile.toml").write_text(SLIGHTFILE)
    (directory / "app.wasm").write_bytes(guest("app").read_bytes())
    with running(tmp_path, environment, "--env", "APP_ADDRESS=127.0.0.1:1", what) as app:
        assert httpx.put(f"http://{app.address}/kv/files/key", content=b"value", trust_env=False).status_code in (
            200,
            204,
        )
        assert app.get("/kv/files/key").text == "value"
        assert app.end() == 0, app.said()
    assert os.path.exists(f"{environment['TMPDIR']}/files")
    (directory / "slightfile.toml").write_text(SLIGHTFILE.replace("0.2", "3"))
    code, said = refused(tmp_path, environment, "thin")
    assert (code, said) == (
        126,
        f'shimd: {directory}/slightfile.toml: specversion is \'3\', and must be "0.1" or "0.2"\n',
    )
