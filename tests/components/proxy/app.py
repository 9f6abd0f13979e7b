"""A server of many paths: each shows one thing that ``wasi:http`` or WASI can do. Runs as a component."""

import json
import os
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from wit_world import exports
from wit_world.imports import monotonic_clock, outgoing_handler, poll
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    Method_Other,
    Method_Post,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    RequestOptions,
    ResponseOutparam,
    Scheme_Http,
    Scheme_Https,
)
from wit_world.types import Err, Ok

#: Not to be collected.
LEFT: list["Exchange"] = []


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        globals()[url.path.strip("/").replace("-", "_") or "hello"](Exchange(request, response_out), **query)


class Exchange:
    def __init__(self, request: IncomingRequest, out: ResponseOutparam) -> None:
        self.request, self.out = request, out

    def start(self, status: int = 200, **headers: str) -> None:
        fields = [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]
        response = OutgoingResponse(Fields.from_list(fields))
        response.set_status_code(status)
        self.body = response.body()
        ResponseOutparam.set(self.out, Ok(response))
        self.stream = self.body.write()

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), 4096):
            self.stream.blocking_write_and_flush(data[start : start + 4096])

    def finish(self) -> None:
        self.stream.__exit__(None, None, None)
        OutgoingBody.finish(self.body, None)

    def answer(self, text: str | bytes, status: int = 200, **headers: str) -> None:
        self.start(status, **headers)
        self.write(text if isinstance(text, bytes) else text.encode())
        self.finish()

    def chunks(self) -> Iterator[bytes]:
        yield from chunks(self.request.consume())


def chunks(body: IncomingBody) -> Iterator[bytes]:
    stream = body.stream()
    while True:
        try:
            yield stream.blocking_read(65536)
        except Err:
            break
    stream.__exit__(None, None, None)
    IncomingBody.finish(body)


def hello(exchange: Exchange) -> None:
    exchange.answer("hello from a component\n", content_type="text/plain")


def about(exchange: Exchange, **_query: str) -> None:
    """All that is known of a request."""
    request = exchange.request
    method = request.method()
    exchange.answer(
        json.dumps(
            {
                "method": method.value if isinstance(method, Method_Other) else type(method).__name__,
                "path": request.path_with_query(),
                "scheme": type(request.scheme()).__name__,
                "authority": request.authority(),
                "headers": [[name, value.decode()] for name, value in request.headers().entries()],
                "environ": dict(os.environ),
            }
        )
    )


def echo(exchange: Exchange) -> None:
    """The body comes back while it is still being sent."""
    exchange.start(content_type="application/octet-stream")
    for chunk in exchange.chunks():
        exchange.write(chunk)
    exchange.finish()


def count(exchange: Exchange) -> None:
    exchange.answer(str(sum(len(chunk) for chunk in exchange.chunks())))


def status(exchange: Exchange, code: str, text: str = "") -> None:
    exchange.answer(text, int(code), x_header="one")


def zeros(exchange: Exchange, size: str) -> None:
    exchange.answer(bytes(int(size)))


def ticks(exchange: Exchange, number: str, every: str) -> None:
    """A line each so many milliseconds."""
    exchange.start()
    for index in range(int(number)):
        monotonic_clock.subscribe_duration(int(every) * 1_000_000).block()
        exchange.write(f"{index}\n".encode())
    exchange.finish()


def sleep(exchange: Exchange, ms: str) -> None:
    monotonic_clock.subscribe_duration(int(ms) * 1_000_000).block()
    exchange.answer("slept")


def spin(exchange: Exchange) -> None:
    while True:
        pass


def late_spin(exchange: Exchange) -> None:
    exchange.answer("answered")
    while True:
        pass


def late_sleep(exchange: Exchange, ms: str) -> None:
    exchange.answer("answered")
    monotonic_clock.subscribe_duration(int(ms) * 1_000_000).block()
    print("slept afterwards", flush=True)


def wait_for_two(exchange: Exchange) -> None:
    """Which of two things is ready first."""
    late, soon = (monotonic_clock.subscribe_duration(ms * 1_000_000) for ms in (60_000, 10))
    exchange.answer(str(poll.poll([late, soon])))


def trap(exchange: Exchange) -> None:
    raise RuntimeError("on purpose")


def late_trap(exchange: Exchange) -> None:
    exchange.start()
    exchange.write(b"the beginning")
    raise RuntimeError("in the middle")


def late_leave(exchange: Exchange, code: str) -> None:
    exchange.start()
    exchange.write(b"the beginning")
    os._exit(int(code))


def twice(exchange: Exchange) -> None:
    exchange.start()
    exchange.write(b"the beginning")
    exchange.start()


def header(exchange: Exchange, name: str, value: str) -> None:
    """Whether it may be sent."""
    try:
        Fields().append(name, value.encode())
    except Err as refused:
        exchange.answer(type(refused.value).__name__)
        return
    exchange.start(200, **{name: value})
    exchange.write(b"taken")
    exchange.finish()


def unfinished(exchange: Exchange, drop: str, length: str | None = None) -> None:
    """A body that is left open, or dropped, without an end."""
    exchange.start(200, **({"content_length": length} if length else {}))
    exchange.write(b"the beginning")
    exchange.stream.__exit__(None, None, None)
    if drop == "yes":
        exchange.body.__exit__(None, None, None)
    else:
        LEFT.append(exchange)


def silent(exchange: Exchange) -> None:
    """Returns without an answer."""


def leave(exchange: Exchange) -> None:
    sys.exit(3)


def say(exchange: Exchange) -> None:
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    exchange.answer("said")


def files(exchange: Exchange, path: str) -> None:
    """Read, list, write, rename, remove."""
    with open(f"{path}/made", "w") as file:
        file.write("written by a component")
    os.rename(f"{path}/made", f"{path}/renamed")
    with open(f"{path}/renamed") as file:
        text = file.read()
    found = sorted(os.listdir(path))
    size = os.stat(f"{path}/renamed").st_size
    os.mkdir(f"{path}/d")
    os.rmdir(f"{path}/d")
    exchange.answer(json.dumps({"text": text, "found": found, "size": size}))


def read(exchange: Exchange, path: str) -> None:
    try:
        with open(path) as file:
            exchange.answer(file.read())
    except OSError as error:
        exchange.answer(f"{type(error).__name__}: {error.strerror}", 404)


def fetch(exchange: Exchange, authority: str, path: str = "/", body: str = "", scheme: str = "http") -> None:
    """Ask another server, and pass its answer on."""
    request = OutgoingRequest(Fields.from_list([("x-asked-by", b"a component")]))
    request.set_scheme(Scheme_Https() if scheme == "https" else Scheme_Http())
    request.set_authority(authority)
    request.set_path_with_query(path)
    if body:
        request.set_method(Method_Post())
        out = request.body()
        stream = out.write()
        stream.blocking_write_and_flush(body.encode())
        stream.__exit__(None, None, None)
    options = RequestOptions()
    options.set_connect_timeout(2_000_000_000)
    try:
        future = outgoing_handler.handle(request, options)
    except Err as refused:
        exchange.answer(type(refused.value).__name__, 502)
        return
    if body:
        OutgoingBody.finish(out, None)
    poll.poll([future.subscribe()])
    outcome = future.get().value
    if isinstance(outcome, Err):
        exchange.answer(type(outcome.value).__name__, 502)
        return
    response = outcome.value
    exchange.start(response.status())
    for chunk in chunks(response.consume()):
        exchange.write(chunk)
    exchange.finish()
