"""What an application's variables say of telemetry, and what is told of functions and lines."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from shimd.apps.spin import telemetry
from shimd.apps.spin.model import Application, Triggers
from shimd.apps.spin.telemetry import Telemetry, exporters
from shimd.apps.spin.telemetry.lines import streams
from shimd.apps.spin.telemetry.names import called
from shimd.engine import InvalidSetting
from shimd.otlp import SIGNALS, limit, protocols, servers
from shimd.wasi.trust import BuiltIn, Trust

EVERY, HOW = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"
LOGS_HEADERS = "OTEL_EXPORTER_OTLP_LOGS_HEADERS"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
LOGS = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
APPLICATION = Application("spin.toml", "app", "1", {}, {}, Triggers())


def of(**env: str) -> Telemetry:
    return telemetry.telemetry(env, APPLICATION, Trust(BuiltIn(), env))


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, {}),
        ({EVERY: ""}, {}),
        ({HOW: "grpc", "OTEL_SERVICE_NAME": "app"}, {}),
        ({EVERY: "http://h"}, dict.fromkeys(SIGNALS, "http/protobuf")),
        ({EVERY: "http://h", "OTEL_SDK_DISABLED": "True"}, {}),
        ({EVERY: "http://h", "OTEL_SDK_DISABLED": "false"}, dict.fromkeys(SIGNALS, "http/protobuf")),
        ({LOGS: "https://h:1/x"}, {"logs": "http/protobuf"}),
        (
            {EVERY: "http://h", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
            {"metrics": "http/protobuf"},
        ),
        ({LOGS: "http://h", HEADERS: "a = b c%2C,x-y_z.1=,", LOGS_HEADERS: "d=e==%20/:?"}, {"logs": "http/protobuf"}),
        ({LOGS: "http://h", HEADERS: "none", LOGS_HEADERS: "a=b"}, {"logs": "http/protobuf"}),
        (
            {
                EVERY: "http://h",
                HOW: "grpc",
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
            },
            {"traces": "grpc", "metrics": "grpc", "logs": "http/protobuf"},
        ),
    ],
)
def test_what_is_told_by_which_protocol(env: dict[str, str], told: dict[str, str]) -> None:
    assert protocols(env) == told


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {EVERY: "http://h", HOW: "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/json is neither",
        ),
        ({EVERY: "http://h", HEADERS: "a=b,,c d=e"}, "header 3 of OTEL_EXPORTER_OTLP_HEADERS is not"),
        ({EVERY: "http://h", HEADERS: "a=b%0d"}, "header 1 of OTEL_EXPORTER_OTLP_HEADERS is not"),
        ({EVERY: "http://h", HEADERS: "a=b;c"}, "header 1 of OTEL_EXPORTER_OTLP_HEADERS is not"),
        ({EVERY: "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no address"),
        ({EVERY: "http://u:s3c^ret@h:1"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no address: http://HOST"),
        ({EVERY: "http://[::1:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no address"),
        ({EVERY: "http://h:99999"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no address"),
        (
            {EVERY: "http://h", LOGS: "h"},
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is no address",
        ),
        ({EVERY: "http://h", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT=soon is no number"),
        ({LOGS: "http://h", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "1.5"}, "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT=1.5 is no"),
    ],
)
def test_what_is_wrong(env: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        protocols(env)


def test_whom_it_is_told_to() -> None:
    """Each once, and without what is secret."""
    env = {EVERY: "http://me:s3cret@h:1", LOGS: "https://[::1]:4318/v1/logs"}
    assert servers(env, SIGNALS) == "http://h:1 and https://[::1]:4318"


def test_nothing_is_in_the_way_where_nothing_is_told() -> None:
    """All that would be watched is itself."""
    silent = of(OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://h")
    given: list[Any] = [object() for _ in range(5)]
    server, component, call, function, sender = given
    found: list[Any] = [silent.server(server), silent.component("id", component), silent.call("cron", "id", "", call)]
    found += [silent.function("fermyon:spin/llm@2.0.0", "infer", function), silent.sender(sender)]
    assert all(one is other for one, other in zip(found, given, strict=True))
    assert (silent.headers(), silent.streams("id")) == ({}, {})


def test_libraries_that_are_not_there(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """What is only watched goes on unwatched."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [name for name in sys.modules if name.startswith("shimd.apps.spin.telemetry.otlp")]:
        monkeypatch.delitem(sys.modules, name)
    silent = of(OTEL_EXPORTER_OTLP_ENDPOINT="http://h")
    assert silent.headers() == {}

    async def enter() -> None:
        async with silent:
            pass

    anyio.run(enter)
    words = "shimd: telemetry is not sent: this node has no Python package opentelemetry (pip install 'shimd[otel]')\n"
    assert capfd.readouterr().err == words


def database(kind: str) -> dict[str, str | int]:
    return {"db.system.name": kind}


@pytest.mark.parametrize(
    ("interface", "function", "arguments", "name", "told"),
    [
        ("fermyon:spin/key-value@2.0.0", "[static]store.open", ["default"], "spin_key_value.open", {}),
        ("wasi:keyvalue/store@0.2.0-draft2", "[method]bucket.list-keys", [0, None], "wasi_key_value.list_keys", {}),
        (
            "spin:sqlite/sqlite@3.0.0",
            "[method]connection.execute",
            [0, "", []],
            "spin_sqlite.execute",
            database("sqlite"),
        ),
        (
            "fermyon:spin/redis@2.0.0",
            "[method]connection.execute",
            [0, "MGET", []],
            "MGET",
            database("redis"),
        ),
        (
            "spin:postgres/postgres@4.0.0",
            "[static]connection.open",
            ["postgres://me:s3cret@db:5433/x"],
            "spin_outbound_pg.open",
            {**database("postgresql"), "server.address": "db", "server.port": 5433},
        ),
        (
            "spin:postgres/postgres@3.0.0",
            "[static]connection.open",
            ["host=db password=s3cret"],
            "spin_outbound_pg.open",
            database("postgresql"),
        ),
        (
            "fermyon:spin/mysql@2.0.0",
            "[static]connection.open",
            ["mysql://[bad"],
            "spin_outbound_mysql.open",
            database("mysql"),
        ),
        (
            "fermyon:spin/mqtt@2.0.0",
            "[method]connection.publish",
            [0, "topic", b"", 0],
            "spin_outbound_mqtt.publish",
            {"messaging.destination.name": "topic"},
        ),
    ],
)
def test_what_functions_are_called(
    interface: str, function: str, arguments: list[Any], name: str, told: dict[str, str | int]
) -> None:
    found = called(interface, function)
    assert found is not None
    assert (found.name(arguments), found.told(arguments)) == (name, told)


def test_functions_that_are_not_told() -> None:
    assert called("wasi:io/streams@0.2.0", "[method]output-stream.write") is None
    assert called("wasi:http/outgoing-handler@0.2.0", "handle") is None


@pytest.fixture
def quiet() -> Iterator[list[bytes]]:
    """What comes to our stdout meanwhile."""
    read, write = os.pipe()
    before, found = os.dup(1), list[bytes]()
    os.dup2(write, 1)
    yield found
    os.dup2(before, 1)
    for fd in (write, before):
        os.close(fd)
    with open(read, "rb") as file:
        found.append(file.read())


def test_lines(quiet: list[bytes]) -> None:
    """A line is told when it ends, or its instance does; one that does not end, in parts."""
    told: list[tuple[str, str]] = []
    out = streams(lambda stream, line: told.append((stream, line)))["wasi:cli/stdout"].get_stdout()
    for piece in (b"a ", b"line\n\nanother\nund\xff", b"one", b""):
        out.write(piece)
    assert told == [("stdout", "a line"), ("stdout", "another")]
    out.close()
    assert told[2:] == [("stdout", "und�one")]
    out.close()
    out.write(b"x" * 40_000)
    assert [len(line) for _stream, line in told[3:]] == [16384, 16384]


def test_the_libraries_see_the_applications_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of ours, nor what names a plugin."""
    monkeypatch.setattr(os, "environ", {"OTEL_SERVICE_NAME": "daemon", "OTEL_BSP_SCHEDULE_DELAY": "1", "PATH": "/"})
    exporters.adopt({"OTEL_SERVICE_NAME": "app", "OTEL_PYTHON_X": "y", "HOME": "/x"})
    assert os.environ == {"OTEL_SERVICE_NAME": "app", "PATH": "/"}


def test_what_nobody_is_told_by_need_not_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout of a signal that is not sent."""
    env = {LOGS: "http://h", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_TIMEOUT": "1500"}
    monkeypatch.setattr(os, "environ", {})
    assert protocols(env) == {"logs": "http/protobuf"}
    exporters.adopt(env)
    assert os.environ == env
    assert limit(env, "logs") == 1.5
    assert limit({LOGS: "http://h"}, "logs") is None
