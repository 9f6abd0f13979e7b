"""Reads streams and futures that it is given over a bridge, and tells what there was. Runs as a component."""

from typing import Any

import componentize_py_async_support
import wit_world
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import flows
from wit_world.imports.wasi_http_types import Fields, Request, Response


class Handler(exports.Handler):
    async def handle(self, request: Request) -> Response:
        path, _, query = (request.get_path_with_query() or "/").partition("?")
        if path == "/bytes":
            return response(await flows.bytes(int(query)))
        told: object = await globals()[path.strip("/")]()
        writer, reader = wit_world.byte_stream()

        async def body() -> None:
            with writer:
                await writer.write_all(repr(told).encode())

        componentize_py_async_support.spawn(body())
        return response(reader)


def response(body: Any) -> Response:
    """What comes of a stream is passed on by the host, where it is the host's."""
    _last, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))
    made: Response = Response.new(Fields(), body, trailers)[0]
    return made


async def entries() -> object:
    stream, end = await flows.entries()
    last = await end.read()
    return [vars(it) for it in await all_of(stream)], last


async def later() -> object:
    """The other way round, one by one."""
    stream, end = await flows.entries()
    return [it.title for it in await all_of(stream, 1)], (await end.read()).value.title


async def books() -> object:
    return [it.title() for it in await all_of(await flows.books())]


async def nested() -> object:
    return [await all_of(it) for it in await all_of(await flows.nested())]


async def wrong() -> object:
    return await all_of(await flows.wrong())


async def breaks() -> object:
    return await all_of(await flows.breaks())


async def left() -> object:
    """One that is not read at all, one in part, and one whose items never come."""
    before = await flows.closed()
    (await flows.bytes(10)).__exit__(None, None, None)
    with await flows.bytes(1 << 20) as stream:
        found = len(await stream.read(10))
    stream, end = await flows.nothing()
    stream.__exit__(None, None, None)
    end.__exit__(None, None, None)
    while await flows.closed() - before < 3:
        pass
    return found


async def hangs() -> object:
    stream, _end = await flows.nothing()
    return await all_of(stream)


async def all_of(stream: Any, at_a_time: int = 100) -> list[Any]:
    found = []
    with stream:
        while not stream.writer_dropped:
            found += await stream.read(at_a_time)
    return found
