"""A server of WASI 0.2 and of 0.3, which says which one it was asked by. Runs as a component."""

import componentize_py_async_support
import wit_world
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import wasi_http_types_0_2_0 as older
from wit_world.imports import wasi_http_types_0_3_0 as newer


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: older.IncomingRequest, response_out: older.ResponseOutparam) -> None:
        response = older.OutgoingResponse(older.Fields.from_list([]))
        body = response.body()
        older.ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(b"0.2")
        older.OutgoingBody.finish(body, None)


class Handler(exports.Handler):
    async def handle(self, request: newer.Request) -> newer.Response:
        writer, reader = wit_world.byte_stream()
        future = wit_world.result_option_wasi_http_types_0_3_0_fields_wasi_http_types_0_3_0_error_code_future
        _last, trailers = future(lambda: Ok(None))
        response, _sent = newer.Response.new(newer.Fields.from_list([]), reader, trailers)

        async def body() -> None:
            with writer:
                await writer.write_all(b"0.3")

        componentize_py_async_support.spawn(body())
        return response
