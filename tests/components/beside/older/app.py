"""A server of WASI 0.2: each path uses one interface that is beside WASI's worlds. Runs as a component."""

import json
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import instance_network, logging, tcp_create_socket, wasi_config_store, wasi_keyvalue_store
from wit_world.imports.network import IpAddressFamily, IpSocketAddress_Ipv4, Ipv4SocketAddress
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)
from wit_world.imports.wasi_tls_types import ClientHandshake

#: Of this instance.
BUCKET: list[wasi_keyvalue_store.Bucket] = []


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        text: str = globals()[url.path.strip("/")](**query)
        response = OutgoingResponse(Fields.from_list([]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(text.encode())
        OutgoingBody.finish(body, None)


def config(key: str) -> str:
    return json.dumps([wasi_config_store.get(key), dict(wasi_config_store.get_all())])


def log(message: str) -> str:
    logging.log(logging.Level.WARN, "a server", message)
    return "logged"


def bucket() -> str:
    """What was in a new bucket, and in the one that is left open."""
    if not BUCKET:
        BUCKET.append(wasi_keyvalue_store.open(""))
    with wasi_keyvalue_store.open("") as new:
        found = [new.get("key"), BUCKET[0].get("key")]
        new.set("key", b"new")
        BUCKET[0].set("key", b"left open")
        return json.dumps([it and it.decode() for it in found])


def tls(port: str) -> str:
    """What a server says by TLS, or why it does not."""
    socket = tcp_create_socket.create_tcp_socket(IpAddressFamily.IPV4)
    there = IpSocketAddress_Ipv4(Ipv4SocketAddress(int(port), (127, 0, 0, 1)))
    socket.start_connect(instance_network.instance_network(), there)
    socket.subscribe().block()
    future = ClientHandshake.finish(ClientHandshake("127.0.0.1", *socket.finish_connect()))
    future.subscribe().block()
    made = future.get()
    assert made is not None and isinstance(made, Ok)
    if isinstance(made.value, Err):
        return str(made.value.value.to_debug_string())
    _connection, reader, writer = made.value.value
    writer.blocking_write_and_flush(b"GET / HTTP/1.1\r\n\r\n")
    heard: bytes = reader.blocking_read(1000)
    return heard.decode()
