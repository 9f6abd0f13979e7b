"""Slight applications, from an image with a ``/slightfile.toml``: guests in C, run by ``ctr``, with real servers."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests import servers
from tests.e2e import guests, images
from tests.e2e.box import RUNTIMES, Box, Runtime, content, until
from tests.e2e.containerd import Containerd
from tests.e2e.http_app import answers, free_port
from tests.slight.build import guest

SLIGHT = Runtime("slight", "test.invalid/slight:1", "/", "io.containerd.slight.v1")
on_slight = pytest.mark.parametrize("runtime", [SLIGHT], ids=["slight"], indirect=True)
SLIGHTFILE = """
specversion = "0.2"

[[capability]]
resource = "http"
name = "my-rest-api"
[[capability]]
resource = "http-client"
name = "outside"
[[capability]]
resource = "configs.envvars"
name = "settings"
[[capability]]
resource = "configs.usersecrets"
name = "secrets"
[[capability]]
resource = "keyvalue.filesystem"
name = "files"
[[capability]]
resource = "messaging.filesystem"
name = "topics"

[[secret_settings]]
name = "password"
value = "{secret}"
"""
SERVED = """
[[capability]]
resource = "keyvalue.redis"
name = "cache"
[capability.configs]
REDIS_ADDRESS = "${envvars.CACHE}"

[[capability]]
resource = "messaging.mosquitto"
name = "*"
[capability.configs]
MOSQUITTO_HOST = "{host}"
MOSQUITTO_PORT = "{port}"

[[capability]]
resource = "sql.postgres"
name = "db"
[capability.configs]
POSTGRES_CONNECTION_URL = "{postgres}"

[[capability]]
resource = "distributed_locking.etcd"
name = "locks"
[capability.configs]
ETCD_ENDPOINT = "{etcd}"
"""
#: ``hunter2``, as ``slight secret`` encrypts it with the key in ``/tmp/.slightkey``.
SECRET, KEY = "Nj0uFzkzX4w", b"magickey"


@dataclass
class App:
    address: str
    output: Path

    def ask(self, method: str, path: str, body: str | bytes = b"", **more: object) -> httpx.Response:
        data = body.encode() if isinstance(body, str) else body
        url = f"http://{self.address}{path}"
        return httpx.request(method, url, content=data, timeout=30, trust_env=False, **more)  # type: ignore[arg-type]

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def value(self, method: str, path: str, body: str | bytes = b"") -> str:
        """What a handler says."""
        answer = self.ask(method, path, body)
        assert answer.status_code in (200, 204), answer.text
        return answer.text

    def error(self, method: str, path: str, body: str = "") -> str:
        """A capability's: the number of its case, and its text."""
        answer = self.ask(method, path, body)
        assert answer.status_code == 409, answer.text
        return answer.text


def image(path: Path, slightfile: str | None, program: Path, name: str = SLIGHT.image, **files: bytes) -> Path:
    contents = {"/app.wasm": program.read_bytes(), "/tmp/.slightkey": KEY, "/data/note": b"a note\n"}
    if slightfile is not None:
        contents["/slightfile.toml"] = slightfile.encode()
    contents.update({f"/{key}": value for key, value in files.items()})
    layer = images.layer(contents, guests.DIRECTORIES)
    images.save(path, [images.image(name, [layer], {"Entrypoint": ["/"], "Env": ["PATH=/", "COLOUR=green"]})])
    return path


@contextmanager
def running(box: Box, archive: Path, *flags: str, name: str = SLIGHT.image, id: str = "app", **env: str) -> Iterator[App]:
    """An application in a container."""
    box.ctr("images", "import", str(archive))
    address = f"127.0.0.1:{free_port()}"
    variables = {"APP_ADDRESS": address, **env}
    given = ["--net-host", *flags, *(item for key, value in variables.items() for item in ("--env", f"{key}={value}"))]
    output = box.detach(id, flags=tuple(given), image=name)
    until(lambda: answers(address) or box.status(id) == "STOPPED", "the application to listen")
    assert box.status(id) == "RUNNING", content(output)
    yield App(address, output)
    box.kill(id, "SIGTERM")
    box.wait_status(id, "STOPPED")
    assert box.delete(id) == 0
    box.remove(id)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes the place of the standard images."""
    text = SLIGHTFILE.replace("{secret}", SECRET)
    return image(tmp_path_factory.mktemp("slight") / "slight.tar", text, guest("app"))


@on_slight
def test_an_application(box: Box, archive: Path) -> None:
    """One container for all that needs no server."""
    with running(box, archive) as app:
        check_routes(app)
        check_answers(app)
        check_files(app)
        check_topics(app)
        check_configs(app)
        check_client(app)
        check_failures(app)
        assert app.value("GET", "/hello") == "hello 1"


def check_routes(app: App) -> None:
    assert [app.value("GET", "/hello") for _ in range(3)] == ["hello 1"] * 3, "an instance for each request"
    assert app.value("GET", "/hello/") == "hello 1"
    assert app.value("GET", "/person/ada?x=1") == "0 /person/ada?x=1 [ada][]"
    assert app.value("GET", "/person/a%20b/files/deep/er") == "0 /person/a%20b/files/deep/er [a b][deep/er]"
    for method, path in (("GET", "/nowhere"), ("POST", "/hello"), ("HEAD", "/hello"), ("GET", "/person/a/b")):
        assert app.ask(method, path).status_code == 404, (method, path)
    preflight = app.ask("OPTIONS", "/kv/files/a")
    assert preflight.status_code == 204
    for answer in (preflight, app.get("/hello"), app.get("/nowhere")):
        assert answer.headers["access-control-allow-origin"] == "*"


def check_answers(app: App) -> None:
    """A handler may answer with the request's headers, as Slight's examples do."""
    for body in (b"", b"\xff\0" * 40_000):
        answer = app.ask("POST", "/echo", body, headers={"X-Mine": "it"})
        assert (answer.status_code, answer.content) == (201, body)
        assert answer.headers["x-mine"] == "it"


def check_files(app: App) -> None:
    """State outlives requests, each of which has an instance of its own."""
    assert app.get("/kv/files/a").status_code == 404
    assert app.value("GET", "/kv/files") == ""
    app.value("PUT", "/kv/files/a", "one")
    app.value("PUT", "/kv/files/b", b"\0" * 70_000)
    assert app.value("GET", "/kv/files/a") == "one"
    assert app.get("/kv/files/b").content == b"\0" * 70_000
    assert app.value("GET", "/kv/files") == "a\nb\n"
    app.value("DELETE", "/kv/files/b")
    assert app.value("GET", "/kv/files") == "a\n"
    assert app.error("DELETE", "/kv/files/b").startswith("error 0: ")
    assert app.error("PUT", "/kv/files/..").startswith("error 1: ")
    assert app.error("GET", "/kv/none") == "error 7: /slightfile.toml has no capability keyvalue of the name none"


def check_topics(app: App) -> None:
    app.value("POST", "/publish/topics/news", "first")
    token = app.value("POST", "/subscribe/topics/news")
    other = app.value("POST", "/subscribe/topics/news")
    app.value("POST", "/publish/topics/news", "second\nline")
    app.value("POST", "/publish/topics/else", "not this")
    assert [app.value("GET", f"/receive/topics/{token}") for _ in range(3)] == ["first", "second\nline", ""]
    assert app.value("GET", f"/receive/topics/{other}") == "first"
    assert app.error("GET", "/receive/topics/nobody") == "error 1: there is no subscription nobody"


def check_configs(app: App) -> None:
    assert app.value("GET", "/config/settings/COLOUR") == "green"
    assert app.error("GET", "/config/settings/NOTHING") == "error 0: the container has no variable NOTHING"
    app.value("PUT", "/config/settings/NOTHING", "something")
    assert app.value("GET", "/config/settings/NOTHING") == "something"
    assert app.value("GET", "/config/secrets/password") == "hunter2"
    app.value("PUT", "/config/secrets/other", "thing")
    assert app.value("GET", "/config/secrets/other") == "thing"


def check_client(app: App) -> None:
    assert app.ask("POST", "/fetch", f"http://{app.address}/echo").status_code == 201
    assert app.ask("PUT", "/fetch", f"http://{app.address}/nowhere").status_code == 404
    assert app.error("POST", "/fetch", "ftp://localhost/").startswith("error 0: ")
    assert app.error("POST", "/fetch", f"http://127.0.0.1:{free_port()}/").startswith("error 4: ")


def check_failures(app: App) -> None:
    for what, words in {
        "trap": "wasm trap: wasm `unreachable` instruction executed",
        "exit": "shimd: handle-bad: the guest exited with 3",
        "error": "the guest answers with the error unexpected-error: as was asked",
        "handle": "77 is no handle of a keyvalue",
        "pointer": "99 bytes at 0x7fff0000 reach beyond the guest's memory",
    }.items():
        answer = app.get(f"/bad/{what}")
        assert (answer.status_code, answer.text) == (500, "")
        until(lambda words=words: words in app.output.read_text(), words)  # type: ignore[misc]
    assert app.get("/bad/gone").status_code == 410
    assert "cannot be opened: a blob store is a cloud's service" in app.error("GET", "/blob")
