"""The client's end of a streaming call."""

from collections.abc import Callable

import anyio
import anyio.lowlevel
from anyio.abc import ObjectStream

from shimd.ttrpc._inbox import Inbox
from shimd.ttrpc._link import Link
from shimd.ttrpc.client_connection import ClientConnection


class ClientStream(ObjectStream[bytes]):
    """Encoded messages, in order, both ways.

    Iterating gives the server's messages; where the server does not stream, the one response. Closing it early leaves
    the call: ttrpc cannot tell the server, which goes on until it has no more to say.
    """

    def __init__(
        self,
        connection: ClientConnection,
        link: Link,
        stream_id: int,
        inbox: Inbox,
        forget: Callable[[int], None],
    ) -> None:
        """Made by :meth:`shimd.ttrpc.client.Client.stream`."""
        self._connection = connection
        self._link = link
        self._stream_id = stream_id
        self._inbox = inbox
        self._forget = forget

    async def send(self, item: bytes) -> None:
        """Send one message; waits while the server reads too slowly.

        :raises LocalProtocolError: the client does not stream, or has sent its end, or the server ended the call (then
            :meth:`receive` tells why)
        :raises MessageTooLarge: it does not fit into a frame
        """
        await anyio.lowlevel.checkpoint()
        await self._link.room()
        self._link.push(self._connection.send_data(self._stream_id, item))

    async def send_eof(self) -> None:
        """Tell the server that no more messages come.

        :raises LocalProtocolError: as in :meth:`send`
        """
        await self._link.room()
        self._link.push(self._connection.send_end(self._stream_id))

    async def receive(self) -> bytes:
        """
        :raises anyio.EndOfStream: the server has sent all, and its status was OK
        :raises StatusError: the call ended with an error
        :raises ConnectionClosed: the connection ended before the call
        :raises RemoteProtocolError: the server broke the rules
        """
        message = await self._inbox.get()
        if message is None:
            raise anyio.EndOfStream
        return message

    async def aclose(self) -> None:
        """Leave the call."""
        if self._connection.may_send(self._stream_id):
            self._link.push(self._connection.send_end(self._stream_id))
        self._forget(self._stream_id)
