"""The exceptions of ttrpc. The type says whose fault it was, as in h11."""

from shimd.ttrpc.codes import Code


class TtrpcError(Exception):
    """Base of everything that this package raises on purpose."""


class ProtocolError(TtrpcError):
    """The rules of the protocol were broken."""


class LocalProtocolError(ProtocolError):
    """This side tried to break the rules. Nothing was sent; the connection is as it was."""


class MessageTooLarge(LocalProtocolError):
    """A message does not fit into a frame (see :data:`shimd.ttrpc.frames.MAX_DATA`)."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules."""


class ConnectionClosed(TtrpcError):
    """The connection ended, by either side, before an answer came; whether the call took effect is not known."""


class StatusError(TtrpcError):
    """The call failed with a status: raised by handlers to answer so, and by client calls that were answered so.

    :param code: a :class:`~shimd.ttrpc.codes.Code`, or any other number that the peer chose; never ``OK``
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{_name(self.code)}: {self.message}"


def _name(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return f"code {code}"
