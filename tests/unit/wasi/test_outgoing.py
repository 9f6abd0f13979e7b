"""Where requests of guests go: to the host that was checked, whatever else they hold."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread

from shimd.apps.spin.limits import ConnectionLimit
from shimd.component.results import Case, Err, Ok
from shimd.wasi.http.fields import Fields
from shimd.wasi.http.in_process import AsgiApplication
from shimd.wasi.http.outgoing import OutgoingHandler, OutgoingRules, anything
from shimd.wasi.http.types import FutureIncomingResponse, OutgoingRequest
from shimd.wasi.trust import BuiltIn, Trust


def outgoing(authority: str, path: str | None = "/") -> OutgoingRequest:
    request = OutgoingRequest(Fields())
    request.set_scheme(Case("HTTP"))
    request.set_authority(authority)
    request.set_path_with_query(path)
    return request


def outcome(request: OutgoingRequest, check: Callable[[str, str], None] = anything) -> Ok | Err:
    """Send a request as a guest does: from a thread of its own."""

    async def run() -> Ok | Err:
        async with OutgoingHandler(Trust(BuiltIn(), {}), check) as handler:
            try:
                future = await to_thread.run_sync(handler.handle, request, None)
            except Err as error:
                return error
            await future.subscribe().wait()
            found = future.outcome
            assert found is not None
            await to_thread.run_sync(future.close)
            return found

    return anyio.run(run)


class Listener:
    """A server of two addresses' one port, that notes the first line of each request, and where it came in."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._server = socket.create_server(("0.0.0.0", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _client = self._server.accept()
            with connection:
                line = connection.recv(65536).partition(b"\r\n")[0].decode()
                self.lines.append(f"{connection.getsockname()[0]} {line}")
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("@127.0.0.2:{port}/", "/@127.0.0.2:{port}/"),
        (".example.com/", "/.example.com/"),
        (":1/", "/:1/"),
        ("//127.0.0.2/", "//127.0.0.2/"),
        ("/a?b=@127.0.0.2", "/a?b=@127.0.0.2"),
        ("?a=b", "/?a=b"),
        ("/a#b", "/a"),
        (None, "/"),
    ],
)
def test_a_path_is_never_taken_for_a_part_of_the_host(path: str | None, target: str) -> None:
    server = Listener()
    path = path and path.format(port=server.port)
    answer = outcome(outgoing(f"127.0.0.1:{server.port}", path))
    assert isinstance(answer, Ok)
    assert server.lines == [f"127.0.0.1 GET {target.format(port=server.port)} HTTP/1.1"]


@pytest.mark.parametrize(
    "authority",
    [
        "[::1].example.com",
        "[::1",
        "::1",
        "user@example.com",
        "127.0.0.1:80.example.com",
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "example.com:\u0663",
        "ex\u00e4mple.com",
    ],
)
def test_what_is_no_host_and_port(authority: str) -> None:
    def never(scheme: str, authority: str) -> None:
        raise AssertionError(f"{authority} was checked, and may be read otherwise")

    found = outcome(outgoing(authority), never)
    assert isinstance(found, Err)
    assert found.value.tag == "HTTP-request-URI-invalid"


async def answered(future: FutureIncomingResponse) -> None:
    await future.subscribe().wait()


def drop_before_the_answer(future: FutureIncomingResponse) -> None:
    future.close()


def drop_the_answer_unseen(future: FutureIncomingResponse) -> None:
    from_thread.run(answered, future)
    future.close()


def drop_the_response(future: FutureIncomingResponse) -> None:
    from_thread.run(answered, future)
    future.get().value.value.close()
    future.close()


def drop_the_body(future: FutureIncomingResponse) -> None:
    from_thread.run(answered, future)
    response = future.get().value.value
    body = response.consume()
    response.close()
    body.close()
    future.close()


def drop_the_body_half_read(future: FutureIncomingResponse) -> None:
    from_thread.run(answered, future)
    body = future.get().value.value.consume()
    stream = body.stream()
    from_thread.run(stream.wait)
    assert stream.read_available(100) == b"first"
    stream.close()
    body.close()
    future.close()


@pytest.mark.parametrize(
    "drop",
    [drop_before_the_answer, drop_the_answer_unseen, drop_the_response, drop_the_body, drop_the_body_half_read],
)
def test_what_a_guest_drops_is_given_back(drop: Callable[[FutureIncomingResponse], None]) -> None:
    """The connection, and its place among those that there may be."""
    closed = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _client = server.accept()
        with connection:
            connection.recv(65536)
            if drop is not drop_before_the_answer:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")
            while connection.recv(65536):
                pass
        closed.set()

    async def run() -> None:
        limit = ConnectionLimit(anyio.Semaphore(1))
        async with OutgoingHandler(Trust(BuiltIn(), {}), anything, OutgoingRules(limit=limit)) as handler:
            request = outgoing(f"127.0.0.1:{server.getsockname()[1]}")
            await to_thread.run_sync(lambda: drop(handler.handle(request, None)))
            with anyio.fail_after(60):
                async with limit:
                    pass
                if drop is not drop_before_the_answer:  # else it may never have been made
                    await to_thread.run_sync(closed.wait, abandon_on_cancel=True)

    with server:
        threading.Thread(target=serve, daemon=True).start()
        anyio.run(run)


def test_a_neighbour_whose_answer_is_dropped_ends() -> None:
    """What it writes has nobody to read it, rather than be waited with for ever."""

    async def run() -> str:
        begun, ended = anyio.Event(), anyio.Event()

        async def neighbour(_scope: Any, _receive: Any, send: Any) -> None:
            begun.set()
            try:
                await anyio.wait_all_tasks_blocked()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"x"})
            finally:
                ended.set()

        def neighbours(_scheme: str, _authority: str) -> AsgiApplication:
            return neighbour

        async with OutgoingHandler(Trust(BuiltIn(), {}), anything, OutgoingRules(neighbour=neighbours)) as handler:
            future = await to_thread.run_sync(handler.handle, outgoing("one.spin.internal"), None)
            await begun.wait()
            await to_thread.run_sync(future.close)
            with anyio.fail_after(60):
                await ended.wait()
        return "ended"

    assert anyio.run(run) == "ended"
