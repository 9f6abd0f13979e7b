"""ttrpc: the remote procedure calls of containerd's shims, in Python.

Lightweight frames over a Unix socket, many calls at a time, unary and streaming: see the specification, PROTOCOL.md in
github.com/containerd/ttrpc, with which this package and its Go implementation agree on the wire.

* :mod:`.server_connection`, :mod:`.client_connection` — the protocol without I/O: bytes in, events out; the states and
  their rules are in :mod:`._state`
* :mod:`.server`, :mod:`.client` — above any anyio byte stream
* :mod:`.log` — what a connection keeps for a process that takes it over
* :mod:`.method` — handlers, and what they are told of the call
* :mod:`.testing` — client and server joined in memory

The package stands alone: it imports nothing else of shimd, and no protobuf library. Messages are bytes to it; a method
brings its decoder and encoder.
"""

from shimd.ttrpc.client import Client
from shimd.ttrpc.client_stream import ClientStream
from shimd.ttrpc.codes import Code
from shimd.ttrpc.errors import (
    ConnectionClosed,
    LocalProtocolError,
    MessageTooLarge,
    ProtocolError,
    RemoteProtocolError,
    StatusError,
    TtrpcError,
)
from shimd.ttrpc.limits import Limits
from shimd.ttrpc.log import Log
from shimd.ttrpc.method import Call, Method, Services
from shimd.ttrpc.server import Server
from shimd.ttrpc.session import Session

__all__ = [
    "Call",
    "Client",
    "ClientStream",
    "Code",
    "ConnectionClosed",
    "Limits",
    "LocalProtocolError",
    "Log",
    "MessageTooLarge",
    "Method",
    "ProtocolError",
    "RemoteProtocolError",
    "Server",
    "Services",
    "Session",
    "StatusError",
    "TtrpcError",
]
