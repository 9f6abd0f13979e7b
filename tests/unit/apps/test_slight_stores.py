"""Slight's stores on the file system, and its HTTP client against a server."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shimd.apps.slight.http_client import HttpClient
from shimd.apps.slight.keyvalue import FilesBackend
from shimd.apps.slight.messaging import Topics
from shimd.component.results import Err
from shimd.wasi.trust import BuiltIn, Trust
from tests.certificates import made


def case(raised: pytest.ExceptionInfo[Err]) -> str:
    tag: str = raised.value.value.tag
    return tag


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "x" * 256, ".shimd-x"])
def test_keys_that_are_no_names_of_files(tmp_path: Path, key: str) -> None:
    store = FilesBackend(tmp_path, "store")
    for attempt in (lambda: store.get(key), lambda: store.set(key, b""), lambda: store.delete(key)):
        with pytest.raises(Err) as raised:
            attempt()
        assert case(raised) == "invalid-key"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "/etc", ""])
def test_stores_stay_in_their_directory(tmp_path: Path, name: str) -> None:
    for make in (FilesBackend, Topics):
        with pytest.raises(Err):
            make(tmp_path, name)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    store = FilesBackend(tmp_path, "store")
    with pytest.raises(Err) as raised:
        store.set("a", b"1")
    assert case(raised) == "io-error"
    with pytest.raises(Err) as raised:
        store.keys()
    assert case(raised) == "io-error"


def test_a_subscription_gives_each_message_once_and_in_order(tmp_path: Path) -> None:
    """Whoever asks: requests are served by instances of their own, and by processes that share a volume."""
    topics, others = Topics(tmp_path, "broker"), Topics(tmp_path, "broker")
    token = topics.subscribe("news")
    sent = [f"{number}".encode() for number in range(60)]
    for message in sent:
        topics.publish(message, "news")
    got: list[list[bytes]] = [[], []]

    def receive(which: Topics, into: list[bytes]) -> None:
        while message := which.receive(token):
            into.append(message)

    threads = [threading.Thread(target=receive, args=pair) for pair in zip((topics, others), got, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got[0] + got[1], key=int) == sent
    assert all(each == sorted(each, key=int) for each in got)


class Handler(BaseHTTPRequestHandler):
    """Redirects by paths such as ``/302/there``, and says what it was asked."""

    def do_GET(self) -> None:
        status, _, rest = self.path.strip("/").partition("/")
        if status == "away":
            self._answer(302, b"", f"http://localhost:{self.headers['host'].partition(':')[2]}/{rest}")
            return
        if status.isdigit():
            self._answer(int(status), b"", f"/{rest}")
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(200, f"{self.command} {self.path} {self.headers.get('authorization')} ".encode() + body, None)

    do_POST = do_PUT = do_GET

    def _answer(self, status: int, body: bytes, location: str | None) -> None:
        self.send_response(status)
        if location is not None:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def address() -> Iterator[str]:
    with serving() as address:
        yield address


def ask(method: str, url: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    message = {"method": method, "uri": url, "headers": [("Authorization", "it")], "params": [], "body": b"data"}
    return HttpClient(Trust(BuiltIn(), env or {})).request(message)


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("put", "/there", b"PUT /there it data"),
        ("post", "/302/there", b"GET /there it "),
        ("put", "/307/303/there", b"GET /there it "),
        ("post", "/308/there", b"POST /there it data"),
        ("post", "/304/there", b""),
        ("get", "/away/there", b"GET /there None "),
    ],
)
def test_redirections(address: str, method: str, path: str, said: bytes) -> None:
    answer = ask(method, address + path)
    assert answer["body"] == said
    assert ("content-length", str(len(said))) in answer["headers"]


@pytest.mark.parametrize(
    ("url", "tag"),
    [("ftp://x/", "invalid-url"), ("nonsense", "invalid-url"), ("http://127.0.0.1:1/", "unexpected-error")],
)
def test_requests_that_fail(url: str, tag: str) -> None:
    with pytest.raises(Err) as raised:
        ask("get", url)
    assert case(raised) == tag


def test_too_many_redirections(address: str) -> None:
    with pytest.raises(Err, match="more than 10 redirections"):
        ask("get", address + "/302" * 12 + "/there")


def test_a_private_authority(tmp_path: Path) -> None:
    files = made(tmp_path, "IP:127.0.0.1")
    with serving(files.server()) as address:
        url = f"{address}/there"
        assert ask("get", url, {"SSL_CERT_FILE": str(files.authority)})["body"] == b"GET /there it data"
        with pytest.raises(Err):
            ask("get", url)
