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
        return httpx.request(method, url, content=data, timeout=30, trust_env=False, verify=False, **more)  # type: ignore[arg-type]

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


def image(path: Path, slightfile: str | None, program: Path) -> Path:
    contents = {"/app.wasm": program.read_bytes(), "/tmp/.slightkey": KEY, "/etc/note": b"a note\n"}
    if slightfile is not None:
        contents["/slightfile.toml"] = slightfile.encode()
    layer = images.layer(contents, guests.DIRECTORIES, {"/data/note": "/etc/note"})
    images.save(path, [images.image(SLIGHT.image, [layer], {"Entrypoint": ["/"], "Env": ["PATH=/", "COLOUR=green"]})])
    return path


@contextmanager
def running(box: Box, archive: Path, *flags: str, port: int | None = None, **env: str) -> Iterator[App]:
    """An application in a container."""
    id = "app"
    box.ctr("images", "import", str(archive))
    address = f"127.0.0.1:{port or free_port()}"
    variables = {"APP_ADDRESS": address, **env}
    given = ["--net-host", *flags, *(item for key, value in variables.items() for item in ("--env", f"{key}={value}"))]
    output = box.detach(id, flags=tuple(given), image=SLIGHT.image)
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
    assert app.error("PUT", "/kv/files/.shimd-x").startswith("error 1: ")
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
        "exit": "shimd: handle_bad: the guest exited with 3",
        "error": "the guest answers with the error unexpected-error: as was asked",
        "handle": "77 is no handle of a keyvalue",
        "pointer": "99 bytes at 0x7fff0000 reach beyond the guest's memory",
    }.items():
        answer = app.get(f"/bad/{what}")
        assert (answer.status_code, answer.text) == (500, "")
        until(lambda words=words: words in app.output.read_text(), words)  # type: ignore[misc]
    assert app.get("/bad/gone").status_code == 410
    assert "cannot be opened: a blob store is a cloud's service" in app.error("GET", "/blob")


@on_slight
def test_servers(box: Box, tmp_path: Path) -> None:
    """Redis, PostgreSQL, mosquitto and etcd."""
    with (
        servers.redis() as redis,
        servers.mosquitto() as (host, port),
        servers.postgres() as postgres,
        servers.etcd() as etcd,
    ):
        told = {"{host}": host, "{port}": str(port), "{postgres}": postgres, "{etcd}": etcd}
        slightfile = (
            SLIGHTFILE.replace('[[capability]]\nresource = "messaging.filesystem"\nname = "topics"\n', "") + SERVED
        )
        for name, value in told.items():
            slightfile = slightfile.replace(name, value)
        archive = image(tmp_path / "served.tar", slightfile, guest("app"))
        with running(box, archive, CACHE=redis) as app:
            check_redis(app)
            check_mosquitto(app)
            check_postgres(app)
            check_etcd(app)


def check_redis(app: App) -> None:
    assert app.get("/kv/cache/a").status_code == 404
    app.value("PUT", "/kv/cache/a", "one")
    app.value("PUT", "/kv/cache/b", b"\xff\0")
    app.value("PUT", "/kv/cache/empty", "")
    assert app.value("GET", "/kv/cache/a") == "one"
    assert app.get("/kv/cache/b").content == b"\xff\0"
    assert app.value("GET", "/kv/cache/empty") == ""
    assert app.value("GET", "/kv/cache") == "a\nb\nempty\n"
    app.value("DELETE", "/kv/cache/b")
    assert app.value("GET", "/kv/cache") == "a\nempty\n"


def check_mosquitto(app: App) -> None:
    token = app.value("POST", "/subscribe/any/news")
    app.value("POST", "/publish/any/news", "first")
    app.value("POST", "/publish/any/else", "not this")
    app.value("POST", "/publish/any/news", "second")
    assert [app.value("GET", f"/receive/any/{token}") for _ in range(2)] == ["first", "second"]
    waiting: list[str] = []
    thread = Thread(target=lambda: waiting.append(app.value("GET", f"/receive/any/{token}")))
    thread.start()
    app.value("POST", "/publish/any/news", "third")
    thread.join()
    assert waiting == ["third"]
    assert app.error("POST", "/publish/any/news%23").startswith("error 6: "), "# is none in a topic to publish to"


TABLE = """CREATE TABLE things (
id int PRIMARY KEY, big bigint, small smallint, ratio float8, name text, yes boolean, data bytea, day date,
hour time, moment timestamp, none text, amount numeric)"""
ROW = (
    "INSERT INTO things VALUES (?, 5000000000, 7, 0.5, ?, true, 'abc', '2026-11-24', '21:00', "
    "'2026-11-24 21:00', NULL, 1.25)"
)


def check_postgres(app: App) -> None:
    app.value("POST", "/exec/db", TABLE.replace("\n", " "))
    app.value("POST", "/exec/db", f"{ROW}\n1\nada's")
    rows = app.value("POST", "/query/db", "SELECT * FROM things WHERE name = $1 AND id = $2\nada's\n1").splitlines()
    assert rows == [
        "id=0:1", "big=1:5000000000", "small=0:7", "ratio=5:0.5", "name=6:ada's", "yes=7:1", "data=11:abc",
        "day=8:2026-11-24", "hour=9:21:00:00", "moment=10:2026-11-24 21:00:00", "none=12:", "amount=6:1.25",
    ]  # fmt: skip
    assert app.value("POST", "/query/db", "SELECT id FROM things WHERE name = '?'") == ""
    assert app.error("POST", "/query/db", "SELEKT 1").startswith('error 0: syntax error at or near "SELEKT"')
    assert app.error("POST", "/query/db", "SELECT ?").startswith("error 0: ")
    assert app.error("POST", "/exec/db", f"{ROW}\n1\ngrace").startswith("error 1: duplicate key value")
    app.value("POST", "/exec/db", "CREATE ROLE nobody")
    app.value("POST", "/exec/db", "SET ROLE nobody")
    assert app.error("POST", "/exec/db", "DELETE FROM things").startswith("error 2: permission denied")


def check_etcd(app: App) -> None:
    """A second lock waits for the first, or for the end of its time."""
    key = app.value("POST", "/lock/door")
    assert key.startswith("door/")
    second: list[str] = []
    thread = Thread(target=lambda: second.append(app.value("POST", "/lock/door")))
    thread.start()
    app.value("POST", "/unlock", key)
    thread.join()
    assert second[0].startswith("door/") and second[0] != key
    assert app.value("POST", "/lock/gate/1") != app.value("POST", "/lock/gate/60")


@on_slight
def test_servers_that_are_not_there(box: Box, tmp_path: Path) -> None:
    """The application runs, and the guest is told; a request of another kind is answered."""
    gone = free_port()
    slightfile = SLIGHTFILE.replace("topics", "more") + SERVED.replace('name = "*"', 'name = "broker"')
    for name in ("{port}", "{host}", "{postgres}", "{etcd}"):
        value = {"{port}": str(gone), "{host}": "127.0.0.1", "{etcd}": f"127.0.0.1:{gone}"}
        slightfile = slightfile.replace(name, value.get(name, f"postgresql://owner@127.0.0.1:{gone}/db"))
    archive = image(tmp_path / "gone.tar", slightfile, guest("app"))
    with running(box, archive, CACHE=f"redis://127.0.0.1:{gone}") as app:
        assert f"connecting to 127.0.0.1:{gone}. Connection refused" in app.error("GET", "/kv/cache")
        assert app.error("GET", "/kv/cache").startswith("error 3: ")
        assert app.error("POST", "/publish/broker/news") == "error 3: [Errno 111] Connection refused"
        assert "Connection refused" in app.error("POST", "/query/db", "SELECT 1")
        assert app.error("POST", "/lock/door").startswith("error 3: ")
        assert app.value("GET", "/hello") == "hello 1"


@on_slight
def test_time(box: Box, tmp_path: Path) -> None:
    """A guest that is late is ended, whether it spins or waits, and others are answered meanwhile."""
    with servers.mosquitto() as (host, port):
        configs = f'configs = {{ MOSQUITTO_HOST = "{host}", MOSQUITTO_PORT = "{port}" }}'
        slightfile = f'{SLIGHTFILE}[[capability]]\nresource = "messaging.mosquitto"\nname = "broker"\n{configs}\n'
        archive = image(tmp_path / "time.tar", slightfile, guest("app"))
        with running(box, archive, SHIMD_HTTP_TIMEOUT="1") as app:
            check_time(app)


def check_time(app: App) -> None:
    token = app.value("POST", "/subscribe/broker/news")
    late: list[int] = []
    paths = ("/bad/spin", "/bad/spin", f"/receive/broker/{token}")
    threads = [Thread(target=lambda path=path: late.append(app.get(path).status_code)) for path in paths]
    for thread in threads:
        thread.start()
    assert app.value("GET", "/hello") == "hello 1"
    for thread in threads:
        thread.join()
    assert late == [504] * 3
    assert "shimd: handle_bad: no answer within 1 s" in app.output.read_text()
    assert app.value("GET", "/hello") == "hello 1"


@on_slight
def test_the_end(box: Box, archive: Path) -> None:
    """TERM: what is under way is finished, and nothing new is begun."""
    answers: list[str] = []
    with running(box, archive) as app:
        thread = Thread(target=lambda: answers.append(app.value("GET", "/bad/slow")))
        thread.start()
        until(lambda: "working" in app.output.read_text(), "the request to be under way")
    thread.join()
    assert answers == ["finished"]


@on_slight
def test_the_end_of_what_never_serves(box: Box, tmp_path: Path) -> None:
    """A guest that stays in its ``on-server-init`` has no requests to finish."""
    archive = image(tmp_path / "spins.tar", SLIGHTFILE, guest("app", "-DSPINS"))
    box.ctr("images", "import", str(archive))
    output = box.detach("app", image=SLIGHT.image)
    until(lambda: content(output) == "spinning\n", "the guest to spin")
    box.kill("app", "SIGTERM")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 143


@on_slight
def test_state_in_a_volume(box: Box, archive: Path, tmp_path: Path) -> None:
    """Of TMPDIR, as Slight has it; and the operator's address goes before the guest's."""
    (tmp_path / "volume").mkdir(mode=0o777)
    mount = ("--mount", f"type=bind,src={tmp_path}/volume,dst=/mnt,options=rbind:rw")
    for before, after in (("", "a\n"), ("a\n", "a\n")):
        port = free_port()
        own = {"SLIGHT_HTTP_LISTEN_ADDR": f"127.0.0.1:{port}", "TMPDIR": "/mnt"}
        with running(box, archive, *mount, port=port, **own) as app:
            assert app.value("GET", "/kv/files") == before
            app.value("PUT", "/kv/files/a", "one")
            assert app.value("GET", "/kv/files") == after
    assert (tmp_path / "volume/files/a").read_text() == "one"


def changed(changes: dict[str, str]) -> str:
    text = SLIGHTFILE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


#: More of them: tests/unit/apps/test_slight_file.py.
WRONG = {
    "resource": ({"keyvalue.filesystem": "keyvalue.files"}, "capability[4].resource is keyvalue.files, which is none"),
    "cloud": (
        {"keyvalue.filesystem": "keyvalue.azblob"},
        "capability[4].resource is keyvalue.azblob, a cloud's service that shimd does not connect to: use",
    ),
    "secret": (
        {'keyvalue.filesystem"': 'keyvalue.redis"\nconfigs = { REDIS_ADDRESS = "${envvars.NOBODY}" }'},
        "configs.REDIS_ADDRESS is ${envvars.NOBODY}, and the container has no variable NOBODY",
    ),
    "http": (
        {'resource = "http"\n': 'resource = "http-client"\n', "outside": "another"},
        "the module exports no function _start (it exports on-server-init: for that /slightfile.toml needs",
    ),
}


@on_slight
@pytest.mark.parametrize("what", WRONG)
def test_slightfiles_that_are_wrong(box: Box, tmp_path: Path, what: str) -> None:
    """One sentence that names the file and the field, when the container is created."""
    changes, words = WRONG[what]
    refused(box, image(tmp_path / "wrong.tar", changed(changes), guest("app")), words)


MODULES = {
    "init": ("command", ("-DNO_SERVER",), "the module exports no function on-server-init, and /slightfile.toml has"),
    "handler": ("app", ("-DNO_HANDLER",), "the module exports no function handle-nobody to handle GET /nobody"),
    "fails": ("app", ("-DFAILS",), "on-server-init failed: the guest does not like it here"),
    "serves": ("app", ("-DNO_SERVE",), "on-server-init left no server to run"),
    "traps": ("app", ("-DTRAPS",), "wasm trap: wasm `unreachable` instruction executed"),
}


@on_slight
@pytest.mark.parametrize("what", MODULES)
def test_modules_that_are_wrong(box: Box, tmp_path: Path, what: str) -> None:
    name, flags, words = MODULES[what]
    refused(box, image(tmp_path / "wrong.tar", SLIGHTFILE, guest(name, *flags)), words)


OTHERS = {
    "old": ('(import "kv" "kv::open" (func (param i32 i32 i32)))', "imports kv, an interface of Slight before 0.3"),
    "unknown": (
        '(import "gpio" "get" (func))',
        "the module imports gpio.get, and Slight has the interfaces blob-store",
    ),
    "type": ('(import "keyvalue" "keyvalue::get" (func (param i64)))', "the module does not link: "),
}


@on_slight
@pytest.mark.parametrize("what", OTHERS)
def test_imports_that_are_wrong(box: Box, tmp_path: Path, what: str) -> None:
    text, words = OTHERS[what]
    path = tmp_path / "module.wat"
    path.write_text(f'(module {text} (func (export "_start")) (func (export "canonical_abi_realloc")))')
    refused(box, image(tmp_path / "wrong.tar", SLIGHTFILE.replace('"http"', '"configs.envvars"', 1), path), words)


def refused(box: Box, archive: Path, words: str) -> None:
    box.ctr("images", "import", str(archive))
    done = box.run("wrong", flags=("--rm", "--net-host"), image=SLIGHT.image)
    assert done.code != 0
    assert words in done.err, done.err


@on_slight
def test_without_a_slightfile(box: Box, tmp_path: Path) -> None:
    refused(box, image(tmp_path / "wrong.tar", None, guest("app")), "there is no /slightfile.toml beside /app.wasm")


@on_slight
def test_a_port_that_is_taken(box: Box, archive: Path) -> None:
    box.ctr("images", "import", str(archive))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = box.run("wrong", flags=("--rm", "--net-host", "--env", f"APP_ADDRESS={address}"), image=SLIGHT.image)
    assert (done.code, done.err) == (137, f"shimd: cannot listen on {address}: Address already in use\n")


HARDENED = ("--read-only", "--mount", "type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k")
V1 = """
specversion = "0.1"
secret_store = "configs.envvars"
[[capability]]
name = "kv.filesystem"
"""


@on_slight
def test_a_command(box: Box, tmp_path: Path) -> None:
    """Without http the module's ``_start`` is called; in specversion 0.1 a guest opens whatever name it likes.

    It stores in a volume of a read-only root, and reads by an absolute link of the image's.
    """
    archive = image(tmp_path / "command.tar", V1, guest("command", "-DNO_SERVER"))
    box.ctr("images", "import", str(archive))
    done = box.run("app", image=SLIGHT.image, flags=("--rm", "--env", "CODE=7", *HARDENED))
    assert (done.code, done.out) == (7, "any: one\n/data/note: a note\n"), done.err


@on_slight
def test_a_container_that_is_no_application(box: Box, containerd: Containerd, tmp_path: Path) -> None:
    """A sidecar of a pod whose class is slight: an ordinary module, or a native program."""
    wasmtime, runc = (next(it for it in RUNTIMES if it.name == name) for name in ("wasmtime", "runc"))
    images.save(tmp_path / "standard.tar", guests.standard(*guests.build()))
    containerd.import_image(tmp_path / "standard.tar", box.namespace)
    for ordinary in (wasmtime, runc):
        done = box.ctr(
            "run", "--rm", "--runtime", SLIGHT.type, ordinary.image, "side", ordinary.program, "exit", "7", check=False
        )
        assert done.code == 7, done.err
