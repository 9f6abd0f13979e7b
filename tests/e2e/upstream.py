"""A server that guests ask: HTTP/1.1 and, where TLS agrees on it, HTTP/2. Its authority is private."""

import asyncio
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from tests.certificates import made


@dataclass
class Upstream:
    """Answers with a request's version, and the number of its connection; at ``/hold`` of HTTP/1.1 never, at
    ``/together`` when :attr:`party` requests are there, at ``/crowd`` a while later."""

    address: str = ""
    party: int = 1
    connections: int = 0
    open: int = 0
    most: int = 0
    """Connections that were open at a time."""
    crowd: int = 0
    """The most requests that were there at a time, at ``/crowd``."""
    _there: int = 0
    _waiting: int = 0
    _together: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        talk = writer.get_extra_info("ssl_object")
        speaks_2 = talk is not None and talk.selected_alpn_protocol() == "h2"
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await (self._newer if speaks_2 else self._older)(self.connections, reader, writer)
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _older(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if (path := head.split()[1].decode()) == "/hold":
                await reader.read()  # until the client closes
                return
            await self._wait(path)
            body = f"1.1 {number}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async def _newer(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        answering = set()

        async def answer(stream: int, path: str) -> None:
            await self._wait(path)
            connection.send_headers(stream, [(":status", "200")])
            connection.send_data(stream, f"2 {number}".encode(), end_stream=True)
            writer.write(connection.data_to_send())

        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    assert event.headers is not None and event.stream_id is not None
                    path = dict(event.headers)[b":path"].decode()
                    answering.add(asyncio.create_task(answer(event.stream_id, path)))
            writer.write(connection.data_to_send())

    async def _wait(self, path: str) -> None:
        if path == "/crowd":
            self._there += 1
            self.crowd = max(self.crowd, self._there)
        if path in ("/together", "/crowd"):
            self._waiting += 1
            if self._waiting >= self.party:
                self._together.set()
            await self._together.wait()
        if path == "/crowd":
            await asyncio.sleep(0.5)  # for more to come, if they may
            self._there -= 1


@contextmanager
def running(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Upstream]:
    upstream, started = Upstream(), threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with await asyncio.start_server(upstream.serve, host, 0, ssl=context, backlog=1024) as server:
            upstream.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await ended.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def authority(directory: Path, protocols: Sequence[str] = ()) -> tuple[Path, ssl.SSLContext]:
    """Make a private authority, and what a server at 127.0.0.1 has from it.

    :param protocols: that it offers (ALPN)
    :returns: the authority's certificate, and the server's context
    """
    files = made(directory, "IP:127.0.0.1")
    context = files.server()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return files.authority, context
