"""A server of WASI 0.3: each path shows one thing. Runs as a component."""

import json
import os
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import componentize_py_async_support
import wit_world
from componentize_py_async_support.streams import ByteStreamReader, ByteStreamWriter
from componentize_py_types import Ok
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
        response: Response = await globals()[url.path.strip("/").replace("-", "_") or "hello"](request, **query)
        return response


def answer(write: Callable[[ByteStreamWriter], Awaitable[None]], status: int = 200, **headers: str) -> Response:
    """A response whose body is written while it is on its way."""
    writer, reader = wit_world.byte_stream()
    _end, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))
    fields = Fields.from_list([(name.replace("_", "-"), value.encode()) for name, value in headers.items()])
    response, _sent = Response.new(fields, reader, trailers)
    response.set_status_code(status)

    async def body() -> None:
        with writer:
            await write(writer)

    componentize_py_async_support.spawn(body())
    return response


def text(words: str) -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(words.encode())

    return answer(write, content_type="text/plain")


def consumed(message: "Request | Response") -> ByteStreamReader:
    _failed, result = wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))
    body, _trailers = type(message).consume_body(message, result)
    return body


async def hello(_request: Request) -> Response:
    return text("hello from WASI 0.3\n")


async def about(request: Request) -> Response:
    headers = [[name, value.decode()] for name, value in request.get_headers().copy_all()]
    known = {"authority": request.get_authority(), "headers": headers, "environ": dict(os.environ)}
    return text(json.dumps(known))


async def count(_request: Request) -> Response:
    return text(str(COUNT))


async def echo(request: Request) -> Response:
    reader = consumed(request)

    async def write(writer: ByteStreamWriter) -> None:
        with reader:
            while not reader.writer_dropped:
                await writer.write_all(await reader.read(65536))

    return answer(write)


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


async def trap(_request: Request) -> Response:
    raise RuntimeError("on purpose")


async def late_trap(_request: Request) -> Response:
    async def write(writer: ByteStreamWriter) -> None:
        await writer.write_all(b"the beginning")
        os.abort()  # with the stream open

    return answer(write)


async def fetch(_request: Request, authority: str, scheme: str = "http") -> Response:
    _end, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))
    asked, _sent = Request.new(Fields.from_list([("x-asked-by", b"a component")]), None, trailers, None)
    asked.set_scheme(Scheme_Https() if scheme == "https" else Scheme_Http())
    asked.set_authority(authority)
    asked.set_path_with_query("/about")
    reader = consumed(await client.send(asked))

    async def write(writer: ByteStreamWriter) -> None:
        with reader:
            while not reader.writer_dropped:
                await writer.write_all(await reader.read(65536))

    return answer(write)
