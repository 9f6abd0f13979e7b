"""Messages in ``google.protobuf.Any`` as Go's ``containerd/typeurl`` packs them: the type URL is the bare full name."""

from betterproto2 import Message

from shimd.api.google.protobuf import Any
from shimd.api.message_pool import default_message_pool


def name(message: Message) -> str:
    """The full protobuf name, such as ``containerd.events.TaskOOM``."""
    return default_message_pool.type_to_url[type(message)].rpartition("/")[2]


def pack(message: Message) -> Any:
    return Any(type_url=name(message), value=bytes(message))
