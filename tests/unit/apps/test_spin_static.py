"""Answers that take no component: ``static_response`` of an HTTP trigger."""

import json
from typing import Any

import anyio
import pytest

from shimd.apps.spin import locked, manifest
from shimd.apps.spin.application import SpinServer
from shimd.apps.spin.routes import SpinRoute, StaticResponse
from shimd.engine import InvalidSetting

ROUTE = 'spin_manifest_version = 2\napplication = {{ name = "a" }}\n[[trigger.http]]\nroute = "/..."\n{}'


def routes(settings: str) -> tuple[SpinRoute, ...]:
    return manifest.parse(ROUTE.format(settings).encode()).triggers.http


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("static_response = {}", StaticResponse(200, (), b"")),
        ('static_response = { body = "ü" }', StaticResponse(200, (), "ü".encode())),
        (
            'static_response = { status_code = 302, headers = { Location = " /b\\t", x = "" } }',
            StaticResponse(302, (("Location", "/b"), ("x", "")), b""),
        ),
    ],
)
def test_what_is_answered(settings: str, expected: StaticResponse) -> None:
    assert routes(settings) == (SpinRoute("/...", "", expected),)


def test_a_locked_application_with_nulls() -> None:
    """As ``spin registry push`` writes what is left out."""
    response: dict[str, Any] = {"status_code": None, "headers": {}, "body": None}
    config = {"component": None, "static_response": response, "route": "/...", "executor": None}
    trigger = {"id": "a", "trigger_type": "http", "trigger_config": config}
    text = json.dumps({"spin_lock_version": 1, "triggers": [trigger], "components": []})
    assert locked.parse(text.encode(), []).triggers.http == (SpinRoute("/...", "", StaticResponse()),)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "component is missing, and static_response, too"),
        ('component = ""', "component names '', which is no component"),
        ('component = "a"\nstatic_response = {}', "static_response answers without a component, and there is one"),
        (
            'component = { source = "a" }\nstatic_response = {}',
            "static_response answers without a component, and there",
        ),
        ("static_response = 404", "static_response is missing, or not a table"),
        ("static_response = { status = 404 }", "static_response.status is unknown; status_code is probably meant"),
        ("static_response = { status_code = 100 }", "static_response.status_code is 100, which is no answer's"),
        ("static_response = { status_code = 1000 }", "static_response.status_code is 1000, which is no answer's"),
        ('static_response = { status_code = "404" }', "static_response.status_code is no number"),
        ("static_response = { body = 1 }", "static_response.body is missing, or not a string"),
        ("static_response = { headers = { a = 1 } }", "static_response.headers.a is not a string"),
        ('static_response = { headers = { "a b" = "" } }', "static_response.headers.a b is no header"),
        ('static_response = { headers = { a = "b\\r\\nc: d" } }', "static_response.headers.a is no header"),
        (
            'static_response = { headers = { Content-Length = "1" } }',
            "static_response.headers.Content-Length is for the",
        ),
    ],
)
def test_what_is_wrong(settings: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        routes(settings)
    assert str(caught.value).startswith(f"/spin.toml: trigger.http[0].{words}")


def test_one_route_for_two() -> None:
    text = 'static_response = {}\n[[trigger.http]]\nroute = "/..."\nstatic_response = {}'
    words = r"trigger.http\[1\].route gives the route /... to its static_response; a static_response has it"
    with pytest.raises(InvalidSetting, match=words):
        routes(text)


@pytest.mark.parametrize(
    ("response", "headers", "body"),
    [
        ('body = "é"', [(b"content-length", b"2")], "é".encode()),
        ('headers = { X-A = "b" }', [(b"x-a", b"b"), (b"content-length", b"0")], b""),
        ('status_code = 204, body = "none"', [], b""),
    ],
)
def test_what_is_sent(response: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    application = manifest.parse(ROUTE.format(f"static_response = {{ {response} }}").encode())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads the request")

    scope = {"type": "http", "raw_path": b"/any/where", "headers": [], "method": "GET", "query_string": b""}
    anyio.run(SpinServer(application, {}), scope, receive, send)
    start, rest = sent
    assert (start["headers"], rest["body"]) == (headers, body)
