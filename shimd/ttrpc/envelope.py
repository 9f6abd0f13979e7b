"""The messages that ttrpc itself puts into frames (proto/ttrpc/request.proto), with their codec.

The payload inside is opaque here: methods bring decoders and encoders of their own.
"""

from dataclasses import dataclass

from shimd.ttrpc import wire
from shimd.ttrpc.wire import DecodeError

#: Pairs in the order sent; a key may come more than once.
Metadata = tuple[tuple[str, str], ...]

_INT32_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Request:
    """The message of a request frame."""

    service: str
    method: str
    payload: bytes = b""
    timeout_nano: int = 0
    """Nanoseconds left for the call; 0 means no limit, a negative number that it is too late already."""
    metadata: Metadata = ()

    def encode(self) -> bytes:
        return b"".join((
            wire.bytes_field(1, self.service.encode()),
            wire.bytes_field(2, self.method.encode()),
            wire.bytes_field(3, self.payload) if self.payload else b"",
            wire.int_field(4, self.timeout_nano),
            *(wire.bytes_field(5, _encode_pair(key, value)) for key, value in self.metadata),
        ))  # fmt: skip

    @classmethod
    def decode(cls, data: bytes) -> "Request":
        """
        :raises DecodeError: it is not a Request
        """
        service, method, payload, timeout, metadata = "", "", b"", 0, []
        for field, value in wire.fields(data):
            if field == 1:
                service = wire.text(value)
            elif field == 2:
                method = wire.text(value)
            elif field == 3:
                payload = wire.blob(value)
            elif field == 4:
                timeout = wire.signed(wire.number(value))
            elif field == 5:
                metadata.append(_decode_pair(wire.blob(value)))
        return cls(service, method, payload, timeout, tuple(metadata))


@dataclass(frozen=True, slots=True)
class Status:
    """google.rpc.Status without its details, which no ttrpc implementation reads."""

    code: int = 0
    message: str = ""

    def encode(self) -> bytes:
        message = wire.bytes_field(2, self.message.encode(errors="replace")) if self.message else b""
        return wire.int_field(1, self.code) + message

    @classmethod
    def decode(cls, data: bytes) -> "Status":
        """
        :raises DecodeError: it is not a Status
        """
        code, message = 0, ""
        for field, value in wire.fields(data):
            if field == 1:
                code = _int32(wire.number(value))
            elif field == 2:
                message = wire.text(value)
        return cls(code, message)


OK = Status()


@dataclass(frozen=True, slots=True)
class Response:
    """The message of a response frame: a payload, or a status other than OK."""

    status: Status = OK
    payload: bytes = b""

    def encode(self) -> bytes:
        status = wire.bytes_field(1, self.status.encode()) if self.status.code else b""
        return status + wire.bytes_field(2, self.payload) if self.payload else status

    @classmethod
    def decode(cls, data: bytes) -> "Response":
        """
        :raises DecodeError: it is not a Response
        """
        status, payload = OK, b""
        for field, value in wire.fields(data):
            if field == 1:
                status = Status.decode(wire.blob(value))
            elif field == 2:
                payload = wire.blob(value)
        return cls(status, payload)


def _encode_pair(key: str, value: str) -> bytes:
    return wire.bytes_field(1, key.encode()) + wire.bytes_field(2, value.encode())


def _decode_pair(data: bytes) -> tuple[str, str]:
    pair = {1: "", 2: ""}
    for field, value in wire.fields(data):
        if field in pair:
            pair[field] = wire.text(value)
    return pair[1], pair[2]


def _int32(value: int) -> int:
    value &= _INT32_MASK
    return value - (1 << 32) if value >> 31 else value


__all__ = ["OK", "DecodeError", "Metadata", "Request", "Response", "Status"]
