"""A server of WASI 0.3: each path uses one interface that is beside WASI's worlds. Runs as a component."""

import json
from urllib.parse import parse_qs, urlsplit

import componentize_py_async_support
import wit_world
from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import logging, wasi_config_store, wasi_keyvalue_store
from wit_world.imports.wasi_http_types import Fields, Request, Response
from wit_world.imports.wasi_sockets_types import IpAddressFamily, IpSocketAddress_Ipv4, Ipv4SocketAddress, TcpSocket
from wit_world.imports.wasi_tls_client import Connector

#: Of this instance.
BUCKET: list[wasi_keyvalue_store.Bucket] = []


class Handler(exports.Handler):
    async def handle(self, request: Request) -> Response:
        url = urlsplit(request.get_path_with_query() or "/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        text: str = await globals()[url.path.strip("/")](**query)
        writer, reader = wit_world.byte_stream()
        future = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future
        last, trailers = future(lambda: Ok(None))
        response, _sent = Response.new(Fields.from_list([]), reader, trailers)

        async def body() -> None:
            with writer:
                await writer.write_all(text.encode())
            # Else they come when it is collected: an error that was caught may hold the frame that has it until then.
            await last.write(Ok(None))

        componentize_py_async_support.spawn(body())
        return response


async def config(key: str) -> str:
    return json.dumps([wasi_config_store.get(key), dict(wasi_config_store.get_all())])


async def log(message: str) -> str:
    logging.log(logging.Level.WARN, "a server", message)
    return "logged"


async def bucket() -> str:
    """What was in a new bucket, and in the one that is left open."""
    if not BUCKET:
        BUCKET.append(wasi_keyvalue_store.open(""))
    with wasi_keyvalue_store.open("") as new:
        found = [new.get("key"), BUCKET[0].get("key")]
        new.set("key", b"new")
        BUCKET[0].set("key", b"left open")
        return json.dumps([it and it.decode() for it in found])


async def tls(port: str) -> str:
    """What a server says by TLS, or why it does not."""
    socket = TcpSocket.create(IpAddressFamily.IPV4)
    await socket.connect(IpSocketAddress_Ipv4(Ipv4SocketAddress(int(port), (127, 0, 0, 1))))
    connector = Connector()
    writer, outgoing = wit_world.byte_stream()
    encrypted, _sent = connector.send(outgoing)
    sending = socket.send(encrypted)
    came, receiving = socket.receive()
    reader, _received = connector.receive(came)
    try:
        await Connector.connect(connector, "127.0.0.1")
    except Err as refused:
        return str(refused.value.to_debug_string())
    await writer.write_all(b"GET / HTTP/1.1\r\n\r\n")
    heard: bytes = await reader.read(1000)
    del sending, receiving
    return heard.decode()
