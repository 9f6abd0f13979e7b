"""Slight's routes, requests and answers."""

from typing import Any

import pytest

from shimd.apps.slight.http_server import Router, parsed
from shimd.apps.slight.messages import InvalidResponse, SlightResponse, response
from shimd.apps.slight.routes import RouteTable, SlightRoute
from shimd.apps.slight.sql import numbered
from shimd.component.results import Case, Err, Ok

TABLE = RouteTable(
    [
        SlightRoute("GET", "/", "root"),
        SlightRoute("GET", "/person/:name", "person"),
        SlightRoute("GET", "/person/me", "never"),
        SlightRoute("PUT", "/person/:name", "change_it"),
        SlightRoute("GET", "/person/:name/visits/:day.html", "visit"),
        SlightRoute("GET", "/files/*", "files"),
        SlightRoute("GET", "/a+b", "literal"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "handler", "params"),
    [
        ("GET", "/", "root", []),
        ("GET", "/person/ada", "person", [("name", "ada")]),
        ("GET", "/person/me/", "person", [("name", "me")]),
        ("PUT", "/person/ada", "change_it", [("name", "ada")]),
        ("GET", "/person/ada/visits/7.html", "visit", [("name", "ada"), ("day", "7")]),
        ("GET", "/files/a/b", "files", [("*", "a/b")]),
        ("GET", "/a+b", "literal", []),
    ],
)
def test_routes(method: str, path: str, handler: str, params: list[tuple[str, str]]) -> None:
    match = TABLE.find(method, path)
    assert match is not None and (match.route.handler, match.params) == (handler, params)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/"), ("GET", "/person"), ("GET", "/person/a/b"), ("GET", "/aab"), ("GET", "/files"), ("GET", "/x/")],
)
def test_no_route(method: str, path: str) -> None:
    assert TABLE.find(method, path) is None


def test_the_export_of_a_handler() -> None:
    assert SlightRoute("GET", "/", "handle_hello_world").export == "handle-hello-world"


def test_routers() -> None:
    first = Router().get("/a", "x")
    assert [route.method for route in first.put("/a", "y").post("/b", "z").delete("/c", "w").routes] == [
        "GET", "PUT", "POST", "DELETE",
    ]  # fmt: skip
    assert len(first.routes) == 1, "a router does not change"
    with pytest.raises(Err) as raised:
        first.get("a", "x")
    assert raised.value.value == Case("invalid-url", "the route 'a' of x does not begin with a slash")


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("0.0.0.0:3000", "0.0.0.0", 3000),
        ("[::1]:8080", "::1", 8080),
        ("[::1]", "::1", 80),
        ("localhost", "localhost", 80),
        (":8080", "0.0.0.0", 8080),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert parsed(address) == (host, port)


@pytest.mark.parametrize("address", ["a:b", "a:99999", "a:"])
def test_addresses_that_are_wrong(address: str) -> None:
    with pytest.raises(Err):
        parsed(address)


def answered(
    status: int = 200, headers: list[tuple[str, str]] | None = None, body: bytes | None = b"x"
) -> SlightResponse:
    record: dict[str, Any] = {"status": status, "headers": headers, "body": body}
    return response(Ok(record))


def test_answers() -> None:
    assert answered(headers=None, body=None) == SlightResponse(200)
    echoed = [("Host", "a"), ("Content-Length", "7"), ("connection", "close"), ("X-Mine", " é ")]
    assert answered(headers=echoed).headers == [(b"host", b"a"), (b"x-mine", "é".encode())]
    assert answered(status=204).body == b""
    assert response(Err(Case("status-error", 410))) == SlightResponse(410)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Ok({"status": 101, "headers": None, "body": None}), "status 101"),
        (Ok({"status": 200, "headers": [("a b", "c")], "body": None}), "header 'a b'"),
        (Ok({"status": 200, "headers": [("a", "b\r\nc: d")], "body": None}), "header 'a'"),
        (Err(Case("unexpected-error", "why")), "unexpected-error: why"),
        (Err(Case("status-error", 200)), "status-error: 200"),
    ],
)
def test_answers_that_cannot_be_sent(answer: Ok | Err, words: str) -> None:
    with pytest.raises(InvalidResponse, match=words):
        response(answer)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("SELECT ?, ?", "SELECT $1, $2"),
        ("SELECT '?', \"?\", 'it''s ?', ?", "SELECT '?', \"?\", 'it''s ?', $1"),
        ("SELECT $1", "SELECT $1"),
    ],
)
def test_parameters(query: str, numbers: str) -> None:
    assert numbered(query) == numbers
