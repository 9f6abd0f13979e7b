"""A server of WASI 0.3: each path shows one thing. Runs as a component."""

import json
import os
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import componentize_py_async_support
import wit_world
from componentize_py_async_support.streams import ByteStreamReader, ByteStreamWriter
from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import client, monotonic_clock
from wit_world.imports.wasi_http_types import Fields, Request, Response, Scheme_Http, Scheme_Https

#: Requests that this instance has been given.
COUNT = 0


class Handler(exports.Handler):
    async def handle(self, request: Request) -> Response:
        global COUNT
        COUNT += 1
        url = urlsplit(request.get_path_with_query() or "/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path.startswith("/test.Numbers/"):
            return await grpc(request, counts=url.path.endswith("Count"))
        response: Response = await globals()[url.path.strip("/").replace("-", "_") or "hello"](request, **query)
        return response


def answer(
    write: Callable[[ByteStreamWriter], Awaitable[None]],
    status: int = 200,
    end: list[tuple[str, bytes]] | None = None,
    then: Callable[[], Awaitable[None]] | None = None,
    **headers: str,
) -> Response:
    """A response whose body is written while it is on its way.

    :param end: its trailers
    :param then: what is done after its end
    """
    writer, reader = wit_world.byte_stream()
    last, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))
    fields = Fields.from_list([(name.replace("_", "-"), value.encode()) for name, value in headers.items()])
    response, _sent = Response.new(fields, reader, trailers)
    response.set_status_code(status)

    async def body() -> None:
        with writer:
            await write(writer)
        if end is not None or then is not None:
            await last.write(Ok(Fields.from_list(end) if end else None))
        if then is not None:
            await then()

    componentize_py_async_support.spawn(body())
    return response


def text(words: str, then: Callable[[], Awaitable[None]] | None = None) -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(words.encode())

    return answer(write, then=then, content_type="text/plain")


async def status(_request: Request, code: str, text: str = "") -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(text.encode())

    return answer(write, int(code), x_header="one")


def consumed(message: "Request | Response") -> ByteStreamReader:
    _failed, result = wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))
    body, _trailers = type(message).consume_body(message, result)
    return body


async def whole(request: Request) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Returns a request's body and its trailers."""
    _failed, result = wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))
    reader, trailers = Request.consume_body(request, result)
    body = b""
    with reader:
        while not reader.writer_dropped:
            body += await reader.read(65536)
    end = await trailers.read()
    assert isinstance(end, Ok)
    return body, end.value.copy_all() if end.value else []


async def trailers(request: Request) -> Response:
    body, came = await whole(request)
    back = [(f"x-back-{name}", value) for name, value in came]

    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(body)

    return answer(write, end=back, trailer=", ".join(name for name, _value in back))


async def grpc(request: Request, *, counts: bool) -> Response:
    """A service of gRPC by hand, whose messages are numbers of four bytes: their double, or all from 0 up to them."""
    body, _came = await whole(request)
    number = int.from_bytes(body[5:9])
    failed = not counts and number == 13
    numbers = list(range(number)) if counts else [] if failed else [number * 2]

    async def write(writer: ByteStreamWriter) -> None:
        for it in numbers:
            await writer.write_all(b"\0\0\0\0\4" + it.to_bytes(4))

    end = [("grpc-status", b"9"), ("grpc-message", b"unlucky")] if failed else [("grpc-status", b"0")]
    return answer(write, end=end, content_type="application/grpc")


async def hello(_request: Request) -> Response:
    return text("hello from WASI 0.3\n")


async def about(request: Request) -> Response:
    headers = [[name, value.decode()] for name, value in request.get_headers().copy_all()]
    known = {"authority": request.get_authority(), "headers": headers, "environ": dict(os.environ)}
    return text(json.dumps(known))


async def count(_request: Request) -> Response:
    return text(str(COUNT))


def passed_on(message: "Request | Response") -> Response:
    reader = consumed(message)

    async def write(writer: ByteStreamWriter) -> None:
        with reader:
            while not reader.writer_dropped:
                await writer.write_all(await reader.read(65536))

    return answer(write)


async def echo(request: Request) -> Response:
    return passed_on(request)


async def ticks(_request: Request, number: str, every: str) -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        for index in range(int(number)):
            await monotonic_clock.wait_for(int(every) * 1_000_000)
            await writer.write_all(f"{index}\n".encode())

    return answer(write)


async def sleep(_request: Request, ms: str) -> Response:
    await monotonic_clock.wait_for(int(ms) * 1_000_000)
    return text("slept")


async def spin(_request: Request) -> Response:
    while True:
        pass


async def wait_and_spin(_request: Request, ms: str) -> Response:
    await monotonic_clock.wait_for(int(ms) * 1_000_000)
    print("it spins", flush=True)
    while True:
        pass


async def late_spin(_request: Request) -> Response:
    async def spin() -> None:
        while True:
            pass

    return text("answered", spin)


async def late_sleep(_request: Request, ms: str) -> Response:
    async def sleep() -> None:
        await monotonic_clock.wait_for(int(ms) * 1_000_000)
        print("slept afterwards", flush=True)

    return text("answered", sleep)


async def trap(_request: Request) -> Response:
    raise RuntimeError("on purpose")


async def late_trap(_request: Request) -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(b"the beginning")
        os.abort()  # with the stream open

    return answer(write)


async def leave(_request: Request) -> Response:
    os._exit(3)


async def late_leave(_request: Request, code: str) -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(b"the beginning")
        os._exit(int(code))

    return answer(write)


async def header(_request: Request, name: str, value: str) -> Response:
    """Whether it may be sent."""
    try:
        Fields().append(name, value.encode())
    except Err as refused:
        return text(type(refused.value).__name__)

    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(b"taken")

    return answer(write, 200, None, None, **{name: value})


async def fetch(_request: Request, authority: str, scheme: str = "http", path: str = "/about") -> Response:
    return passed_on(await client.send(asking(authority, scheme, path)))


async def fetch_many(_request: Request, authority: str, path: str) -> Response:
    """Asks 10,000 times at once, and waits for one answer."""
    for _ in range(10_000):
        componentize_py_async_support.spawn(client.send(asking(authority, path=path)))
    await client.send(asking(authority, path=path))
    return text("answered")


def asking(authority: str, scheme: str = "http", path: str = "/about") -> Request:
    _end, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))
    asked, _sent = Request.new(Fields.from_list([("x-asked-by", b"a component")]), None, trailers, None)
    asked.set_scheme(Scheme_Https() if scheme == "https" else Scheme_Http())
    asked.set_authority(authority)
    asked.set_path_with_query(path)
    return asked
