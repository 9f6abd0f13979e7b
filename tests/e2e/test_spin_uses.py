"""What Spin applications use besides components and stores: fixed answers, models, secrets, databases elsewhere."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import servers
from tests.e2e import spin_app
from tests.e2e.box import Box
from tests.e2e.spin_app import SPIN, image, on_spin, on_the_newest, program
from tests.e2e.spin_local import Running, on_hosts, refused, running

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
[[trigger.http]]
route = "/odd"
static_response = { status_code = 999, headers = { X-Name = "ü" }, body = "ü" }
"""


MANIFEST = """
spin_manifest_version = 2
application = { name = "uses" }
[variables]
word = { default = "default" }
needed = { required = true }
broken = { default = "" }
port = { default = "1" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
ai_models = ["small", "none"]
sqlite_databases = ["default", "other", "nobody"]
key_value_stores = ["default"]
allowed_outbound_hosts = ["http://127.0.0.1:{{ port }}"]
variables = { word = "<{{ word }}>", needed = "{{ needed }}", broken = "{{ broken }}", plain = "plain" }
"""


def application(tmp_path: Path, manifest: str, files: dict[str, bytes] | None = None) -> Path:
    """A directory with a ``spin.toml``."""
    directory = tmp_path / "app"
    directory.mkdir()
    for name, data in {"spin.toml": manifest.encode(), **(files or {})}.items():
        (directory / name).write_bytes(data)
    return directory


@on_hosts
def test_an_application_of_fixed_answers(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """It has no component at all."""
    with running(tmp_path, environment, "--engine", engine, application(tmp_path, STATIC)) as app:
        found = app.get("/any/where")
        assert (found.status_code, found.text, found.headers["content-length"]) == (404, "not found", "9")
        assert "content-type" not in found.headers
        moved = app.get("/old/thing")
        assert (moved.status_code, moved.headers["location"], moved.content) == (302, "/new", b"")
        empty = app.get("/empty")
        assert (empty.status_code, "content-length" in empty.headers) == (204, False)
        odd = app.get("/odd")
        assert (odd.status_code, odd.headers["x-name"], odd.content) == (999, "ü", "ü".encode())
        asked = httpx.head(f"http://{app.address}/x", trust_env=False)
        assert (asked.status_code, asked.content, asked.headers["content-length"]) == (404, b"", "9")
        assert app.end() == 0, app.said()


def test_a_part_that_is_none(tmp_path: Path, environment: dict[str, str]) -> None:
    given = environment | {"SPIN_COMPONENTS_TO_RETAIN": "a"}
    manifest = application(tmp_path, STATIC + '[component.a]\nsource = "none.wasm"\n') / "spin.toml"
    words = f"shimd: SPIN_COMPONENTS_TO_RETAIN=a: no trigger of {manifest} calls what it names\n"
    assert refused(tmp_path, given, manifest) == (126, words)


Questions = list[tuple[str, str, Any]]
"""Path, authorization and body of each."""


@contextmanager
def models() -> Iterator[tuple[str, Questions]]:
    """A server of the test's own, which has both protocols: what it answers tells what it was asked."""
    asked: Questions = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, self.headers["authorization"], question))
            status, answer = _answer(self.path, question)
            body = json.dumps(answer).encode() if answer else b"<html>"
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/ignored", asked
        finally:
            server.shutdown()
            thread.join()


def _answer(path: str, question: Any) -> tuple[int, Any]:
    if question["model"] == "none":
        return 404, {"error": {"message": "no model of that name"}} if path.startswith("/v1") else None
    vectors = [[float(len(text)), 0.5] for text in question.get("input", ())]
    match path:
        case "/infer":
            return 200, {"text": question["prompt"].upper(), "usage": {"promptTokenCount": 1, "generatedTokenCount": 2}}
        case "/embed":
            return 200, {"embeddings": vectors, "usage": {"promptTokenCount": 3}}
        case "/v1/chat/completions":
            (message,) = question["messages"]
            choices = [{"message": {"role": "assistant", "content": message["content"].upper()}}]
            return 200, {"choices": choices, "usage": {"prompt_tokens": 4, "completion_tokens": 5}}
        case "/v1/embeddings":
            return 200, {"data": [{"embedding": vector} for vector in vectors], "usage": {"prompt_tokens": 6}}
    return 404, None


@contextmanager
def configured(
    tmp_path: Path, environment: dict[str, str], runtime: str, engine: str = SPIN.name, **variables: str
) -> Iterator[Running]:
    files = {"app.wasm": program(), "runtime-config.toml": runtime.encode()}
    given = {"SPIN_VARIABLE_NEEDED": "shell", **{f"SPIN_VARIABLE_{name}": value for name, value in variables.items()}}
    with running(tmp_path, environment | given, "--engine", engine, application(tmp_path, MANIFEST, files)) as app:
        yield app
        assert app.end() == 0, app.said()


def test_models_by_spins_protocol(tmp_path: Path, environment: dict[str, str]) -> None:
    with models() as (url, asked):
        runtime = f'[llm_compute]\ntype = "remote_http"\nurl = "{url}"\nauth_token = "t0ken"'
        with configured(tmp_path, environment, runtime) as app:
            assert app.value("/infer/small/hello") == ["HELLO", 1, 2]
            usual = {"maxTokens": 100, "repeatPenalty": 1.1, "repeatPenaltyLastNTokenCount": 64}
            usual |= {"temperature": 0.8, "topK": 40, "topP": 0.9}
            assert asked.pop() == ("/infer", "bearer t0ken", {"model": "small", "prompt": "hello", "options": usual})
            assert app.value("/infer-with-options/small/hi") == "HI"
            own = {"maxTokens": 7, "repeatPenalty": 1.5, "repeatPenaltyLastNTokenCount": 5}
            own |= {"temperature": 0.25, "topK": 3, "topP": 0.5}
            assert asked.pop()[2]["options"] == own
            assert app.value("/embeddings/small/a/bcd") == [[[1.0, 0.5], [3.0, 0.5]], 3]
            assert asked.pop() == ("/embed", "bearer t0ken", {"model": "small", "input": ["a", "bcd"]})
            kind, words = app.value("/said/infer/none")
            assert (kind, words) == (
                "Error_RuntimeError",
                f"{url.removesuffix('/ignored')} answers POST /infer with 404, and with no such result",
            )
            kind, words = app.value("/said/infer/large")
            assert (kind, words) == (
                "Error_InvalidInput",
                "the component may not use 'large': its ai_models does not name it",
            )
            assert [path for path, *_rest in asked] == ["/infer"], "what is not granted is not asked for"


def test_models_by_the_protocol_of_openai(tmp_path: Path, environment: dict[str, str]) -> None:
    with models() as (url, asked):
        runtime = f'[llm_compute]\ntype = "remote_http"\nurl = "{url}"\nauth_token = "t0ken"\napi_type = "open_ai"'
        with configured(tmp_path, environment, runtime) as app:
            assert app.value("/infer/small/hello") == ["HELLO", 4, 5]
            assert asked.pop() == (
                "/v1/chat/completions",
                "bearer t0ken",
                {
                    "model": "small",
                    "messages": [{"role": "user", "content": "hello"}],
                    "max_completion_tokens": 100,
                    "frequency_penalty": 1.1,
                },
            )
            assert app.value("/embeddings/small/a/bcd") == [[[1.0, 0.5], [3.0, 0.5]], 6]
            assert asked.pop() == ("/v1/embeddings", "bearer t0ken", {"model": "small", "input": ["a", "bcd"]})
            assert app.value("/said/infer/none") == ["Error_RuntimeError", "no model of that name"]


@on_hosts
def test_models_that_are_not_there(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """An application that may use some starts all the same, as in Spin."""
    with configured(tmp_path, environment, "", engine) as app:
        for asked in ("infer", "infer-with-options", "embeddings"):
            assert app.value(f"/said/{asked}/small/hello") == [
                "Error_RuntimeError",
                "no model is there: runtime-config.toml has no llm_compute",
            ]
            assert app.value(f"/said/{asked}/large/hello") == [
                "Error_InvalidInput",
                "the component may not use 'large': its ai_models does not name it",
            ]


@pytest.fixture(scope="module")
def vault() -> Iterator[tuple[str, str]]:
    with servers.vault() as found:
        yield found


def keep(vault: tuple[str, str], path: str, **fields: object) -> None:
    url, token = vault
    secret = f"{url}/v1/secret/data/{path}"
    httpx.post(secret, json={"data": fields}, headers={"X-Vault-Token": token}, trust_env=False).raise_for_status()


VAULT = """
[[variables_provider]]
type = "static"
values = { broken = "static" }
[[variables_provider]]
type = "vault"
url = "%s"
token = "%s"
mount = "secret"
%s
"""


def test_variables_from_a_vault(tmp_path: Path, environment: dict[str, str], vault: tuple[str, str]) -> None:
    """Each is read when a guest asks; who is first in the list of providers counts."""
    keep(vault, "app/word", value="first")
    keep(vault, "app/broken", value="not asked for")
    keep(vault, "app/port", value="2")
    with configured(tmp_path, environment, VAULT % (*vault, 'prefix = "app"'), WORD="shell") as app:
        assert app.value("/variable/word") == "<first>"
        keep(vault, "app/word", value="second")
        assert app.value("/variable/word") == "<second>"
        assert app.value("/variable/needed") == "shell", "the vault has none"
        assert app.value("/variable/broken") == "static"
        assert app.value("/config") == {"word": "<second>", "needed": "shell", "broken": "static", "plain": "plain"}
        keep(vault, "app/needed", other="no value")
        address = vault[0]
        assert app.value("/said/variable/needed") == [
            "Error_Provider",
            f"the variable needed: Vault at {address}: the secret app/needed has no field named value with a text",
        ]
        kind, words = app.value("/said/config")
        assert kind == "Error_Upstream" and "app/needed" in words
        assert app.value("/variable/plain") == "plain"


def test_hosts_from_a_vault(tmp_path: Path, environment: dict[str, str], vault: tuple[str, str]) -> None:
    """Where a component may connect to is asked for once, before it serves; for all of its processes."""
    with models() as (url, _asked):
        port = url.rpartition(":")[2].removesuffix("/ignored")
        keep(vault, "port", value=port)
        several = environment | {"SHIMD_HTTP_PROCESSES": "2"}
        with configured(tmp_path, several, VAULT % (*vault, "")) as app:
            assert app.value(f"/fetch/127.0.0.1:{port}/x")[0] == 501, "it has POST only"
            assert app.get(f"/fetch/{app.address}/").json() == "ErrorCode_HttpRequestDenied"


def test_a_vault_that_gives_nothing(tmp_path: Path, environment: dict[str, str], vault: tuple[str, str]) -> None:
    """A guest that asks is told; what is needed to start ends the application."""
    keep(vault, "word", value="secret")
    runtime = VAULT.replace('broken = "static"', 'port = "1"') % (vault[0], "wrong", "")
    with configured(tmp_path, environment, runtime) as app:
        told = ["Error_Provider", f"the variable word: Vault at {vault[0]} answers 403: permission denied"]
        assert app.value("/said/variable/word") == told
    (tmp_path / "app/runtime-config.toml").write_text(VAULT % ("http://127.0.0.1:1", "wrong", ""))
    code, said = refused(tmp_path, environment, tmp_path / "app")
    assert code == 137, said
    assert said.startswith("shimd: the application cannot start: the variable port: http://127.0.0.1:1: "), said


DATABASES = """
[sqlite_database.default]
type = "libsql"
url = "%s"
token = "t0ken"
[sqlite_database.other]
type = "libsql"
url = "http://127.0.0.1:1/"
token = ""
"""


def test_a_database_of_libsql(tmp_path: Path, environment: dict[str, str]) -> None:
    with servers.turso() as url, configured(tmp_path, environment, DATABASES % url) as app:
        for _ in range(2):
            found = app.value("/sql-kinds/default")
            assert found["columns"] == ["i", "r", "t", "b", "n", "one"]
            assert found["row"] == [
                ["Integer", str(-(1 << 63))],
                ["Real", "0.1"],
                ["Text", repr("ü'?")],
                ["Blob", "00ff"],
                ["Null", "None"],
                ["Integer", "1"],
            ]
        change, count = "UPDATE kinds SET t = 'x' WHERE id = 1", "SELECT t, count(*) FROM kinds GROUP BY t ORDER BY t"
        assert app.value(f"/sql/default/{change}/{count}")[:2] == [
            [],
            [[["Text", "'x'"], ["Integer", "1"]], [["Text", repr("ü'?")], ["Integer", "1"]]],
        ]
        kind, words = app.value("/said/sql/default/SELEKT")
        assert kind == "Error_Io" and "SELEKT" in words.upper(), words
        kind, words = app.value("/said/sql/other/SELECT 1")
        assert kind == "Error_Io" and words.startswith("http://127.0.0.1:1: "), words
        assert app.value("/said/sql/nobody/SELECT 1") == ["Error_NoSuchDatabase", None]
        assert app.value("/said/sql/secret/SELECT 1") == ["Error_AccessDenied", None]
    assert not (tmp_path / "app/.spin/sqlite_db.db").exists()


@on_hosts
def test_the_last_row_is_ones_own(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """Of a file, too, which all connections share."""
    create, insert = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t (v) VALUES (1), (2)"
    update = "UPDATE t SET v = 3 WHERE id = 1"
    with configured(tmp_path, environment, "", engine) as app:
        assert app.value(f"/sql/default/{create}/{insert}/SELECT 1") == [[], [], [[["Integer", "1"]]], 2, 2]
        assert app.value(f"/sql/default/SELECT 1/{update}") == [[[["Integer", "1"]]], [], 0, 1]
        assert app.value(f"/sql/default/{insert}/{update}") == [[], [], 4, 1]
        assert app.value(f"/sql/default/-- a comment%0A {update}") == [[], 0, 1]
        assert app.value(f"/sql/default/-- a comment%0A {insert}") == [[], 6, 2]


@on_spin
@on_the_newest
def test_all_of_it_in_a_container(box: Box, tmp_path: Path, vault: tuple[str, str]) -> None:
    """Where nothing can be loaded any more, since the node's files are out of sight."""
    with models() as (url, _asked), servers.turso() as database:
        port = url.rpartition(":")[2].removesuffix("/ignored")
        keep(vault, "boxed/port", value=port)
        keep(vault, "boxed/word", value="boxed")
        model = f'[llm_compute]\ntype = "remote_http"\nurl = "{url}"\nauth_token = "t"\n'
        runtime = VAULT % (*vault, 'prefix = "boxed"') + DATABASES % database + model
        name = "test.invalid/uses:1"
        path = image(tmp_path / "uses.tar", name, MANIFEST, {"/runtime-config.toml": runtime.encode()})
        box.ctr("images", "import", str(path))
        with spin_app.running(box, name, SPIN_VARIABLE_NEEDED="x") as app:
            assert app.value("/variable/word") == "<boxed>"
            assert app.value(f"/fetch/127.0.0.1:{port}/x")[0] == 501
            assert app.value("/infer/small/hello") == ["HELLO", 1, 2]
            assert app.value("/sql/default/SELECT 1 AS one")[0] == [[["Integer", "1"]]]
