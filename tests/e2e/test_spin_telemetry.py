"""Telemetry of Spin applications, by ``shimd run`` and in a container, as OpenTelemetry's collector takes it."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import redis as redis_client
from paho.mqtt import publish

from shimd.engine import EXIT_TRAP
from shimd.engines.wasmtime import NATIVE
from tests import servers
from tests.certificates import both, made
from tests.components import rust
from tests.components.build import spin_4
from tests.e2e import spin_app
from tests.e2e.box import Box, until
from tests.e2e.http_app import free_port, serving
from tests.e2e.otlp_sink import Json, Sink, listening, sink
from tests.e2e.spin_app import PORTABLE_SPIN, SPIN, image, on_spin, on_the_newest, program
from tests.e2e.spin_local import Running, ended, on_hosts, refused, running
from tests.wasmtimes import native_only

MANIFEST = """
spin_manifest_version = 2
application = { name = "watched", version = "1.2.3" }
[variables]
word = { default = "a word" }
[[trigger.http]]
route = "/it/..."
component = "it"
[[trigger.http]]
route = "/fixed"
static_response = { status_code = 503 }
[[trigger.http]]
route = { private = true }
component = "other"
[component.it]
source = "app.wasm"
key_value_stores = ["default"]
sqlite_databases = ["default"]
ai_models = ["llama"]
variables = { word = "{{ word }}" }
allowed_outbound_hosts = ["http://*.spin.internal", "*://127.0.0.1:*"]
[component.other]
source = "app.wasm"
key_value_stores = ["default"]
"""
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
#: Of a request whose trace is recorded.
CARRIED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
#: Kinds of spans.
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
HEALTH = "/.well-known/spin/health"


def application(directory: Path) -> Path:
    """A directory with a ``spin.toml``."""
    directory.mkdir()
    (directory / "spin.toml").write_text(MANIFEST)
    (directory / "app.wasm").write_bytes(program())
    return directory


@dataclass
class Watched:
    """What was told of an application, which has ended."""

    sink: Sink
    redis: str
    said: str
    infers: bool = False
    """Whether there are models."""

    def children(self, parent: Json) -> list[Json]:
        """The spans below another, in the order in which they began."""
        spans = [span for span in self.sink.spans() if span.get("parentSpanId") == parent["spanId"]]
        assert all(span["traceId"] == parent["traceId"] for span in spans)
        return sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))

    def request(self, path: str) -> Json:
        """The span of a request."""
        spans = [span for span in self.sink.spans() if span["kind"] == SERVER]
        (found,) = [span for span in spans if span["told"]["url.path"] == path]
        return found

    def work(self, path: str) -> Json:
        """The span of a component's work for a request."""
        (found,) = self.children(self.request(path))
        assert found["name"] == "execute_wasm_component it"
        return found

    def called(self, path: str) -> list[str]:
        """The names of what a component calls for a request."""
        return [span["name"] for span in self.children(self.work(path))]


#: Who serves, and by which protocol it is told: models are the portable host's.
_WATCHED = [("portable", "grpc"), ("portable", "http/protobuf")]
if NATIVE:
    _WATCHED += [("native", "grpc"), ("native", "http/protobuf")]


@pytest.fixture(scope="module", params=_WATCHED, ids="-".join)
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Watched]:
    tmp_path = tmp_path_factory.mktemp("watched")
    directory = application(tmp_path / "shop")
    host, protocol = request.param
    infers = host == "portable"
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints, servers.redis() as cache:
        if infers:
            (directory / "runtime-config.toml").write_text(
                f'[llm_compute]\ntype = "remote_http"\nurl = "http://{it.address}"\nauth_token = "t"\n'
            )
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol],
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_RESOURCE_ATTRIBUTES": "team=ours",
        }
        redis = cache.removeprefix("redis://")
        with running(tmp_path, environment | told, directory) as app:
            assert ask(app.address, "/it/counter?a=b", **CARRIED).status_code == 200
            assert (ask(app.address, "/it/infer").status_code == 200) == infers
            for path in ("people/ada", "variable/word", "say/words", f"redis/{redis}"):
                assert ask(app.address, f"/it/{path}").status_code == 200, path
            assert ask(app.address, f"/it/fetch/{it.address}/asked", **CARRIED).json() == [200, "{}"]
            assert ask(app.address, f"/it/fetch/{it.address}/missing").json() == [404, "{}"]
            assert ask(app.address, "/it/fetch/other.spin.internal/counter").json() == [200, "2"]
            assert ask(app.address, "/it/bad-sql").status_code == 500
            assert ask(app.address, "/fixed").status_code == 503
            assert ask(app.address, "/nowhere").status_code == 404
            assert ask(app.address, HEALTH).text == "OK"
            assert app.end() == 0, app.said()
        yield Watched(it, redis, app.said(), infers)


def ask(address: str, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://{address}{path}", headers=headers, timeout=30, trust_env=False)


def parent(header: str) -> tuple[str, str]:
    """The trace and the span of a ``traceparent``, which is recorded."""
    version, trace, span, flags = header.split("-")
    assert version == "00" and int(flags, 16) & 1
    return trace, span


def test_a_request_belongs_to_its_clients_trace(watched: Watched) -> None:
    first = watched.request("/it/counter")
    assert (first["traceId"], first["parentSpanId"], first["traceState"]) == (TRACE, PARENT, "vendor=1")
    assert first["name"] == "GET /it/..."
    told = first["told"]
    assert (told["http.route"], told["url.query"], told["http.response.status_code"]) == ("/it/...", "a=b", "200")
    assert (told["network.peer.address"], told["url.scheme"]) == ("127.0.0.1", "http")
    of = first["of"]
    assert (of["service.name"], of["service.version"], of["team"]) == ("watched", "1.2.3", "ours")


def test_requests_without_a_component(watched: Watched) -> None:
    fixed, health, lost = map(watched.request, ("/fixed", HEALTH, "/nowhere"))
    assert (fixed["name"], fixed["told"]["error.type"], fixed["status"]) == ("GET /fixed", "503", {"code": 2})
    assert (health["name"], health["told"]["http.response.status_code"]) == (f"GET {HEALTH}", "200")
    assert (lost["name"], lost["told"]["http.response.status_code"], lost["status"]) == ("GET", "404", {})
    assert not any(map(watched.children, (fixed, health, lost)))
    assert "parentSpanId" not in fixed or not fixed["parentSpanId"]


def test_what_components_call(watched: Watched) -> None:
    assert watched.called("/it/counter") == ["spin_key_value.open", "spin_key_value.get", "spin_key_value.set"]
    assert watched.called("/it/people/ada") == ["spin_sqlite.open", *["spin_sqlite.execute"] * 3]
    assert watched.called("/it/variable/word") == ["spin_variables.get"]
    assert watched.called("/it/infer") == (["spin_llm.infer"] if watched.infers else [])
    opened, *commands = watched.children(watched.work(f"/it/redis/{watched.redis}"))
    names = ["SET", "DEL", "GET", "GET", "INCRBY", "INCRBY", "SADD", "SREM", "SMEMBERS"]
    assert [span["name"] for span in commands] == [*names, "set", "GET", "GET", "STRLEN", "MGET"]
    assert (opened["name"], opened["kind"]) == ("spin_outbound_redis.open_connection", CLIENT)
    server = {"server.address": "127.0.0.1", "server.port": watched.redis.rpartition(":")[2]}
    assert opened["told"] == {"db.system.name": "redis", **server}


def test_what_fails(watched: Watched) -> None:
    opened, executed = watched.children(watched.work("/it/bad-sql"))
    assert (opened["name"], opened["status"], executed["name"]) == ("spin_sqlite.open", {}, "spin_sqlite.execute")
    assert executed["status"]["code"] == 2 and "SELEKT" in executed["status"]["message"]
    assert executed["told"] == {"db.system.name": "sqlite", "error.type": "io"}


def test_the_trace_goes_on_elsewhere(watched: Watched) -> None:
    """In other servers, and in those of the runtime."""
    sent, here = watched.sink.headers, watched.sink.address
    (request,) = watched.children(watched.work(f"/it/fetch/{here}/asked"))
    assert (request["name"], request["kind"]) == ("GET", CLIENT)
    assert (request["told"]["url.full"], request["told"]["server.address"]) == (f"http://{here}/asked", "127.0.0.1")
    assert parent(sent["/asked"]["traceparent"]) == (TRACE, request["spanId"])
    assert sent["/asked"]["tracestate"] == "vendor=1"
    (missing,) = watched.children(watched.work(f"/it/fetch/{here}/missing"))
    assert (missing["told"]["http.response.status_code"], missing["status"]) == ("404", {"code": 2})
    assert parent(sent["/missing"]["traceparent"]) == (missing["traceId"], missing["spanId"])
    if not watched.infers:
        return
    (inferred,) = watched.children(watched.work("/it/infer"))
    assert parent(sent["/infer"]["traceparent"]) == (inferred["traceId"], inferred["spanId"])


def test_the_trace_goes_on_in_a_neighbour(watched: Watched) -> None:
    (request,) = watched.children(watched.work("/it/fetch/other.spin.internal/counter"))
    assert (request["kind"], request["told"]["server.address"]) == (CLIENT, "other.spin.internal")
    (other,) = watched.children(request)
    assert other["name"] == "execute_wasm_component other"
    names = [span["name"] for span in watched.children(other)]
    assert names == ["spin_key_value.open", "spin_key_value.get", "spin_key_value.set"]


def test_counts(watched: Watched) -> None:
    counted = {("watched", "it", "http"): 10, ("watched", "other", "http"): 1}
    assert watched.sink.counts("spin.request_count") == counted
    assert watched.sink.counts("spin.llm_infer") == ({("llama",): 1} if watched.infers else {})


def test_the_log(watched: Watched) -> None:
    """What components write is in both: where it was, and with the trace that it belongs to."""
    assert watched.said.count("words\n") == 2 and "telemetry" not in watched.said
    work = watched.work("/it/say/words")
    said = [line for line in watched.sink.lines() if line["body"]["stringValue"] == "words"]
    assert [line["told"]["log.iostream"] for line in said] == ["stdout", "stderr"]
    for line in said:
        assert (line["traceId"], line["spanId"]) == (work["traceId"], work["spanId"])
        assert (line["told"]["component_id"], line["of"]["service.name"]) == ("it", "watched")


def telling(pid: int) -> set[str]:
    """What of OpenTelemetry's a process has: parts in C of its libraries in Python, and threads."""
    loaded = Path(f"/proc/{pid}/maps").read_text()
    threads = {file.read_text().strip() for file in Path(f"/proc/{pid}/task").glob("*/comm")}
    return {name for name in ("cygrpc", "_upb") if name in loaded} | {it for it in threads if "Telemetry" in it}


#: By the host: of one that tells.
TELLING = {SPIN.name: {f"OpenTelemetry.{of}" for of in "TML"}} if NATIVE else {}
TELLING[PORTABLE_SPIN.name] = {"cygrpc", "_upb"}


@on_hosts
def test_an_application_that_is_not_to_be_watched(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """Nothing is sent, and nothing is loaded for it."""
    loaded: dict[str, set[str]] = {}
    with sink() as it:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{it.address}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        for disabled in ("true", "false"):
            given = environment | told | {"OTEL_SDK_DISABLED": disabled}
            with running(tmp_path, given, "--engine", engine, application(tmp_path / disabled)) as app:
                assert ask(app.address, f"/it/fetch/{it.address}/{disabled}").status_code == 200
                loaded[disabled] = telling(serving(app))
                assert app.end() == 0, app.said()
    assert loaded == {"true": set(), "false": TELLING[engine]}
    assert "traceparent" not in it.headers["/true"] and "traceparent" in it.headers["/false"]


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@on_hosts
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("dead", [lambda: nullcontext("127.0.0.1:1"), silent], ids=["refuses", "silent"])
def test_a_collector_that_is_not_there(
    tmp_path: Path,
    environment: dict[str, str],
    engine: str,
    protocol: str,
    dead: Callable[[], AbstractContextManager[str]],
) -> None:
    """Requests are answered as ever; the log has one sentence of it, and the application ends."""
    with dead() as address:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with running(tmp_path, environment | told, "--engine", engine, application(tmp_path / "shop")) as app:
            assert ask(app.address, "/it/counter").json() == 1
            until(lambda: "is lost" in app.said(), "a sentence")
            assert [ask(app.address, "/it/counter").json() for _ in range(3)] == [2, 3, 4]
            assert app.end() == 0, app.said()
        (line,) = [line for line in app.said().splitlines() if "serving on" not in line]
        assert line.startswith(f"shimd: telemetry for http://{address} is lost (this is told once): Failed to export")


@on_hosts
def test_an_end_before_anything_is_sent(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """To a collector that does not answer: what is left is given up."""
    with silent() as address:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"}
        with running(tmp_path, environment | told, "--engine", engine, application(tmp_path / "shop")) as app:
            assert ask(app.address, "/it/counter").json() == 1
            assert app.end() == 0
        words = f"shimd: telemetry for http://{address} is lost (this is told once): what is left was not taken within"
        assert words in app.said()


@on_hosts
def test_one_signal_alone(tmp_path: Path, environment: dict[str, str], engine: str) -> None:
    """Its endpoint is a whole address. The client's trace goes on."""
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints:
        told = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{endpoints['http/protobuf']}/v1/logs"}
        with running(tmp_path, environment | told, "--engine", engine, application(tmp_path / "shop")) as app:
            assert ask(app.address, "/it/say/words", **CARRIED).status_code == 200
            assert ask(app.address, f"/it/fetch/{it.address}/asked", **CARRIED).status_code == 200
            assert app.end() == 0, app.said()
    assert {path for path, _sent in it.taken} == {"/v1/logs"}
    assert [line["body"]["stringValue"] for line in it.lines()] == ["words", "words"]
    assert {line["traceId"] for line in it.lines()} == {TRACE}
    assert parent(it.headers["/asked"]["traceparent"]) == (TRACE, PARENT)


def test_wrong_settings(tmp_path: Path, environment: dict[str, str]) -> None:
    directory = application(tmp_path / "shop")
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    words = "shimd: OTEL_EXPORTER_OTLP_PROTOCOL=http/json is neither http/protobuf nor grpc\n"
    assert refused(tmp_path, environment | told, directory) == (126, words)
    told |= {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}
    words = "shimd: OTEL_EXPORTER_OTLP_TIMEOUT=soon is no number of milliseconds\n"
    assert refused(tmp_path, environment | told, directory) == (126, words)


TRIGGERED = """
spin_manifest_version = 2
application = { name = "triggered" }
[[trigger.redis]]
address = "redis://127.0.0.1:{port}"
channel = "news"
component = "it"
[[trigger.cron]]
cron_expression = "* * * * * *"
component = "it"
[[trigger.http]]
route = "/it/..."
component = "it"
[component.it]
source = "app.wasm"
key_value_stores = ["default"]
"""


def test_other_triggers(tmp_path: Path, environment: dict[str, str]) -> None:
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints, servers.redis() as cache:
        directory = application(tmp_path / "shop")
        (directory / "spin.toml").write_text(TRIGGERED.replace("{port}", cache.rpartition(":")[2]))
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["http/protobuf"], "OTEL_SERVICE_NAME": "named"}
        with running(tmp_path, environment | told, directory) as app, redis_client.from_url(cache) as client:
            until(lambda: client.publish("news", b"x") > 0, "the subscriber")
            until(lambda: app.value("/it/noted/redis") == ["x"], "the message")
            until(lambda: app.value("/it/noted/cron") != [], "a moment")
            assert app.end() == 0, app.said()
        of = Watched(it, "", "")
        (message,) = [span for span in it.spans() if span["name"] == "news receive"]
        assert (message["kind"], message["told"]["messaging.system"]) == (CONSUMER, "redis")
        assert message["of"]["service.name"] == "named"
        called = ["spin_key_value.open", "spin_key_value.get", "spin_key_value.set"]
        assert [span["name"] for span in of.children(message)] == called
        alone = [span for span in it.spans() if span["name"] == "execute_wasm_component it"]
        moment = next(span for span in alone if not span.get("parentSpanId"))
        assert [span["name"] for span in of.children(moment)] == called
        counted = it.counts("spin.request_count")
        assert counted["triggered", "it", "redis"] == 1 and counted["triggered", "it", "cron"] >= 1
        lines = [line["body"]["stringValue"] for line in it.lines() if line["traceId"] == moment["traceId"]]
        assert lines and lines[0].startswith("cron ")


BY_MQTT = """
spin_manifest_version = 2
[application]
name = "listening"
[application.trigger.mqtt]
address = "mqtt://owner:s3cret@{server}"
[[trigger.mqtt]]
topic = "rooms/+"
component = "it"
[[trigger.http]]
route = "/it/..."
component = "it"
[component.it]
source = "app.wasm"
key_value_stores = ["default"]
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_messages_by_mqtt(tmp_path: Path, environment: dict[str, str], protocol: str) -> None:
    """A trace for each, whose name is that of what the component listens to."""
    with (
        sink() as it,
        servers.collector(f"http://{it.address}") as endpoints,
        servers.mosquitto() as (host, port),
    ):
        directory = application(tmp_path / "shop")
        (directory / "spin.toml").write_text(BY_MQTT.replace("{server}", f"{host}:{port}"))
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol], "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        with running(tmp_path, environment | told, directory) as app:
            for room, degrees in (("7", "21"), ("8", "22")):
                publish.single(f"rooms/{room}", degrees, qos=1, retain=True, hostname=host, port=port)
            until(lambda: len(app.value("/it/noted/mqtt")) == 2, "both messages")
            assert sorted(app.value("/it/noted/mqtt")) == ["rooms/7: 21", "rooms/8: 22"]
            assert app.end() == 0, app.said()
        of = Watched(it, "", "")
        messages = [span for span in it.spans() if span["name"] == "rooms/+ receive"]
        assert [span["kind"] for span in messages] == [CONSUMER] * 2
        assert len({span["traceId"] for span in messages}) == 2
        assert not any(span.get("parentSpanId") for span in messages)
        for span in messages:
            assert span["told"] == {"messaging.operation": "receive", "messaging.system": "mqtt"}
            called = ["spin_key_value.open", "spin_key_value.get", "spin_key_value.set"]
            assert [child["name"] for child in of.children(span)] == called
        assert it.counts("spin.request_count")["listening", "it", "mqtt"] == 2
        assert "s3cret" not in json.dumps(it.taken) + app.said()


COMMAND = """
spin_manifest_version = 2
application = { name = "once", version = "3.0.0" }
[[trigger.command]]
component = "only"
[component.only]
source = "app.wasm"
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("echo hello", 0, [("stdout", "hello")]),
        ("fail", 1, []),
        ("what", 1, [("stderr", 'what is ["what"]?')]),
        ("panic", EXIT_TRAP, None),
    ],
)
def test_a_command(
    tmp_path: Path,
    environment: dict[str, str],
    protocol: str,
    words: str,
    code: int,
    said: list[tuple[str, str]] | None,
) -> None:
    """What is told of one that ends at once is sent before the application ends, with the command's exit code."""
    directory = application(tmp_path / "once")
    (directory / "spin.toml").write_text(COMMAND)
    (directory / "app.wasm").write_bytes(rust.component("command").read_bytes())
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol], "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        done = ended(tmp_path, environment | told, directory, *words.split())
        assert done.returncode == code, done.stderr
        assert "telemetry" not in done.stderr
        (span,) = it.spans()
        assert (span["name"], span["kind"], span.get("parentSpanId", "")) == ("execute_wasm_component only", 1, "")
        assert (span["of"]["service.name"], span["of"]["service.version"]) == ("once", "3.0.0")
        assert it.counts("spin.request_count") == {("once", "only", "command"): 1}
        lines = it.lines()
        assert all((line["traceId"], line["spanId"]) == (span["traceId"], span["spanId"]) for line in lines)
        told_lines = [(line["told"]["log.iostream"], line["body"]["stringValue"]) for line in lines]
        if said is None:  # Rust's own words, in several lines
            assert any("on purpose" in line for stream, line in told_lines if stream == "stderr")
        else:
            assert told_lines == said
        for _stream, line in told_lines:
            assert line in done.stdout + done.stderr


SECRETS = {
    # a header's value, as it is given, and as it comes
    "Bearer%20s3cret%3D%2C": "Bearer s3cret=,",
    "Basic dXNlcjpzM2NyZXQ=": "Basic dXNlcjpzM2NyZXQ=",
}


@contextmanager
def noting_http(seen: dict[str, dict[str, str]]) -> Iterator[str]:
    """A server that takes all, and notes the headers of each signal."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen[self.path.rpartition("/")[2]] = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with listening(Handler) as address:
        yield address


@contextmanager
def noting_grpc(seen: dict[str, dict[str, str]]) -> Iterator[str]:
    class Export(grpc.GenericRpcHandler):  # type: ignore[misc] # it has no types
        def service(self, call: Any) -> Any:
            signal = call.method.split("/")[1].rpartition(".")[2].removesuffix("Service").lower()
            seen["traces" if signal == "trace" else signal] = dict(call.invocation_metadata)
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")

    server = grpc.server(ThreadPoolExecutor(3), [Export()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


NOTING = {"grpc": noting_grpc, "http/protobuf": noting_http}


@contextmanager
def refusing() -> Iterator[str]:
    """The address of a server that lets nobody in, of HTTP's first version."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_error(401)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with listening(Handler) as address:
        yield address


@on_hosts
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("given", SECRETS)
def test_headers(tmp_path: Path, environment: dict[str, str], engine: str, protocol: str, given: str) -> None:
    """Of each request that tells something; and their values are in no log."""
    seen: dict[str, dict[str, str]] = {}
    with NOTING[protocol](seen) as address:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={given},X-Tenant=ours",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": f"authorization={given},x-tenant=logs",
        }
        with running(tmp_path, environment | told, "--engine", engine, application(tmp_path / "shop")) as app:
            assert ask(app.address, "/it/say/words").status_code == 200
            assert app.end() == 0, app.said()
    assert {signal: headers["x-tenant"] for signal, headers in seen.items()} == {
        "traces": "ours",
        "metrics": "ours",
        "logs": "logs",
    }
    assert {headers["authorization"] for headers in seen.values()} == {SECRETS[given]}
    assert app.said().splitlines() == [f"serving on http://{app.address}", "words", "words"]


def lost(app: Running) -> bool:
    return "is lost" in app.said()


@on_hosts
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_headers_for_a_server_that_is_not_there(
    tmp_path: Path, environment: dict[str, str], engine: str, protocol: str
) -> None:
    """Or does not let them in."""
    told = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cret",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with refusing() as closed:
        for name, address in (("nobody", "127.0.0.1:1"), ("refusing", closed)):
            given = environment | told | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"}
            with running(tmp_path, given, "--engine", engine, application(tmp_path / name)) as app:
                assert ask(app.address, "/it/counter").json() == 1
                until(partial(lost, app), "a sentence")
                assert app.end() == 0
            assert "s3cret" not in app.said()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    "header", ["authorization=Bearer%0As3cret", "authorization=%C3%BCs3cret", "x!y=s3cret", "s3cret"]
)
def test_headers_that_cannot_be_sent(tmp_path: Path, environment: dict[str, str], protocol: str, header: str) -> None:
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": f"x-tenant=ours,{header}",
    }
    code, said = refused(tmp_path, environment | told, "-p", str(free_port()), application(tmp_path / "shop"))
    words = "header 2 of OTEL_EXPORTER_OTLP_METRICS_HEADERS is not NAME=VALUE"
    assert code == 126 and words in said, said
    assert "s3cret" not in said


@dataclass(frozen=True)
class Sampled:
    """What becomes of a request, by its client's flags: whether its spans are sent, and the flags that go on."""

    settings: dict[str, str]
    without: bool
    off: bool
    on: bool


SAMPLERS = {
    "none": Sampled({"OTEL_TRACES_SAMPLER": "always_off"}, without=False, off=False, on=False),
    "all": Sampled({"OTEL_TRACES_SAMPLER": "always_on"}, without=True, off=True, on=True),
    "client's, else none": Sampled(
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        without=False,
        off=False,
        on=True,
    ),
    "client's, else all": Sampled({}, without=True, off=False, on=True),
}


@on_hosts
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(tmp_path: Path, environment: dict[str, str], engine: str, name: str) -> None:
    """The trace goes on also where it is not recorded; metrics and logs are told in any case."""
    wanted = SAMPLERS[name]
    clients = {"without": (None, wanted.without), "off": ("00", wanted.off), "on": ("01", wanted.on)}
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["grpc"], "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        given = environment | told | wanted.settings
        with running(tmp_path, given, "--engine", engine, application(tmp_path / "shop")) as app:
            for client, (flags, _sampled) in clients.items():
                carried = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", "tracestate": "vendor=1"} if flags else {}
                assert ask(app.address, f"/it/fetch/{it.address}/{client}", **carried).json() == [200, "{}"]
            assert ask(app.address, "/it/say/words").status_code == 200
            assert app.end() == 0, app.said()
        of, paths = Watched(it, "", app.said()), []
        for client, (flags, sampled) in clients.items():
            path = f"/it/fetch/{it.address}/{client}"
            version, trace, span, sent = it.headers[f"/{client}"]["traceparent"].split("-")
            assert (version, bool(int(sent, 16) & 1)) == ("00", sampled), client
            assert (trace == TRACE) == (flags is not None) and span != PARENT
            assert it.headers[f"/{client}"].get("tracestate") == ("vendor=1" if flags else None)
            if sampled:
                (request,) = of.children(of.work(path))
                assert (request["traceId"], request["spanId"]) == (trace, span)
                paths.append(path)
        paths += ["/it/say/words"] if wanted.without else []
        requests = [span for span in it.spans() if span["kind"] == SERVER]
        assert sorted(span["told"]["url.path"] for span in requests) == sorted(paths)
        assert bool(it.spans()) == bool(paths)
        assert it.counts("spin.request_count") == {("watched", "it", "http"): 4}
        lines = it.lines()
        assert [line["body"]["stringValue"] for line in lines] == ["words", "words"]
        assert all(line["traceId"] for line in lines)
        assert "telemetry" not in app.said()


def test_servers_that_components_use(tmp_path: Path, environment: dict[str, str]) -> None:
    """Where they are is told, and no password."""
    with (
        sink() as it,
        servers.collector(f"http://{it.address}") as endpoints,
        servers.postgres() as postgres,
        servers.mariadb() as mariadb,
        servers.mosquitto() as (host, port),
    ):
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["http/protobuf"]}
        places = {kind: urlsplit(url).netloc for kind, url in (("postgres", postgres), ("mysql", mariadb))}
        paths = [f"/it/{kind}-values/{place}" for kind, place in places.items()] + [
            f"/it/mqtt-publish/{host}:{port}/a/b"
        ]
        with running(tmp_path, environment | told, application(tmp_path / "shop")) as app:
            for path in paths:
                assert ask(app.address, path).status_code == 200, app.said()
            assert app.end() == 0, app.said()
        of = Watched(it, "", "")
        relational, other, messages = (of.children(of.work(path)) for path in paths)
        opened, executed, queried = (f"spin_outbound_pg.{name}" for name in ("open", "execute", "query"))
        assert [span["name"] for span in relational] == [opened, *[executed] * 3, queried]
        opened, executed, queried = (f"spin_outbound_mysql.{name}" for name in ("open", "execute", "query"))
        assert [span["name"] for span in other] == [opened, *[executed] * 3, queried]
        assert [span["told"]["db.system.name"] for span in (relational[1], other[1])] == ["postgresql", "mysql"]
        for (first, *_others), place in ((relational, postgres), (other, mariadb)):
            assert first["told"]["server.port"] == str(urlsplit(place).port)
        connected, *published = messages
        assert (connected["name"], connected["told"]["server.port"]) == (
            "spin_outbound_mqtt.open_connection",
            str(port),
        )
        assert [(span["name"], span["kind"]) for span in published] == [("spin_outbound_mqtt.publish", PRODUCER)] * 3
        assert published[0]["told"] == {"messaging.destination.name": "a"}
        assert "s3cret" not in json.dumps([relational, other])


@on_hosts
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_by_tls(tmp_path: Path, environment: dict[str, str], engine: str, protocol: str) -> None:
    """Whom the application trusts is trusted, and nobody else."""
    tls = made(tmp_path, "IP:127.0.0.1")
    with sink() as it, servers.collector(f"http://{it.address}", tls) as endpoints:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol], "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        by = {"trusted": "SSL_CERT_FILE", "named": "OTEL_EXPORTER_OTLP_CERTIFICATE", "other": "UNUSED"}
        for name, trusted in ((name, {variable: str(tls.authority)}) for name, variable in by.items()):
            given = environment | told | trusted
            with running(tmp_path, given, "--engine", engine, application(tmp_path / name)) as app:
                assert ask(app.address, f"/{name}").status_code == 404
                assert app.end() == 0, app.said()
            assert ("is lost" in app.said()) == (name == "other"), app.said()
    assert [span["told"]["url.path"] for span in it.spans()] == ["/trusted", "/named"]


@on_hosts
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_knows_its_clients(
    tmp_path: Path, environment: dict[str, str], engine: str, protocol: str
) -> None:
    tls, client = both(tmp_path)
    with sink() as it, servers.collector(f"http://{it.address}", tls, client) as endpoints:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol],
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "SSL_CERT_FILE": str(tls.authority),
        }
        shown = {
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(client.certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(client.key),
        }
        for name, more in (("stranger", {}), ("known", shown)):
            given = environment | told | more
            with running(tmp_path, given, "--engine", engine, application(tmp_path / name)) as app:
                assert ask(app.address, f"/{name}").status_code == 404
                assert app.end() == 0, app.said()
            assert ("is lost" in app.said()) == (name == "stranger"), app.said()
    assert [span["told"]["url.path"] for span in it.spans()] == ["/known"]


NEWER = """
spin_manifest_version = 2
application = { name = "newer" }
[[trigger.http]]
route = "/it/..."
component = "it"
[[trigger.http]]
route = { private = true }
component = "other"
[component.it]
source = "app.wasm"
key_value_stores = ["default"]
sqlite_databases = ["default"]
allowed_outbound_hosts = ["http://*.spin.internal", "*://127.0.0.1:*"]
[component.other]
source = "app.wasm"
key_value_stores = ["default"]
"""


@native_only
def test_components_of_wasi_0_3(tmp_path: Path, environment: dict[str, str]) -> None:
    """What they call at the same time belongs to the request that it is for."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/spin.toml").write_text(NEWER)
    (tmp_path / "app/app.wasm").symlink_to(spin_4())
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints, servers.redis() as cache:
        redis = cache.removeprefix("redis://")
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["http/protobuf"]}
        with running(tmp_path, environment | told, tmp_path / "app") as app, ThreadPoolExecutor() as threads:
            many = [threads.submit(ask, app.address, f"/it/counter?{number}") for number in range(8)]
            assert {answer.result().status_code for answer in many} == {200}
            for path in ("people/ada", f"redis/{redis}", f"fetch/{it.address}/asked"):
                assert ask(app.address, f"/it/{path}", **CARRIED).status_code == 200, app.said()
            assert ask(app.address, "/it/fetch/other.spin.internal/counter").status_code == 200
            assert ask(app.address, "/it/bad-sql").status_code == 500
            assert app.end() == 0, app.said()
    of = Watched(it, "", "")
    counts = [span for span in it.spans() if span["kind"] == SERVER and span["told"]["url.path"] == "/it/counter"]
    stored = ["spin_key_value.open", "spin_key_value.get", "spin_key_value.set"]
    assert {span["told"]["url.query"] for span in counts} == {str(number) for number in range(8)}
    for span in counts:
        (work,) = of.children(span)
        assert [it["name"] for it in of.children(work)] == stored
    assert of.called("/it/people/ada")[:2] == ["spin_sqlite.open", "spin_sqlite.execute"]
    assert of.called(f"/it/redis/{redis}")[:2] == ["spin_outbound_redis.open_connection", "SET"]
    (request,) = of.children(of.work(f"/it/fetch/{it.address}/asked"))
    assert parent(it.headers["/asked"]["traceparent"]) == (TRACE, request["spanId"])
    (request,) = of.children(of.work("/it/fetch/other.spin.internal/counter"))
    (other,) = of.children(request)
    assert (other["name"], [span["name"] for span in of.children(other)]) == ("execute_wasm_component other", stored)
    failed = of.children(of.work("/it/bad-sql"))[-1]
    assert failed["status"]["code"] == 2 and failed["told"]["error.type"] == "io"


@on_spin
@on_the_newest
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_in_a_container(box: Box, tmp_path: Path, protocol: str) -> None:
    box.ctr("images", "import", str(image(tmp_path / "watched.tar", SPIN.image, MANIFEST)))
    with sink() as it, servers.collector(f"http://{it.address}") as endpoints:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol], "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        with spin_app.running(box, **told) as app:
            assert ask(app.address, "/it/counter", **CARRIED).json() == 1
            assert ask(app.address, "/it/say/words").status_code == 200
        of = Watched(it, "", "")
        request = of.request("/it/counter")
        assert (request["traceId"], request["parentSpanId"]) == (TRACE, PARENT)
        assert request["of"]["service.name"] == "watched"
        assert of.called("/it/counter") == ["spin_key_value.open", "spin_key_value.get", "spin_key_value.set"]
        assert it.counts("spin.request_count") == {("watched", "it", "http"): 2}
        assert [line["body"]["stringValue"] for line in it.lines()] == ["words", "words"]
        assert "is lost" not in app.output.read_text()
