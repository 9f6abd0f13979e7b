"""Messages as bytes, and bytes that are none."""

import os
import socket
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import pytest

from shimd.engine import Layer, Preopen
from shimd.oci import Process
from shimd.oci.listen import Address
from shimd.protocol import fork_server, jailer, plans, worker
from shimd.protocol.codec import Decoder, NotAMessage, encode
from shimd.protocol.packets import receive, send

#: Every union, with what decodes it.
UNIONS: list[tuple[Any, Decoder[Any]]] = [
    (fork_server.Request, fork_server.decode_request),
    (fork_server.Event, fork_server.decode_event),
    (worker.Event, worker.decode_event),
    (worker.Answer, worker.decode_answer),
    (worker.Order, worker.decode_order),
    (jailer.Request, jailer.decode_request),
    (jailer.Reply, jailer.decode_reply),
    (plans.JailPlan, plans.decode_jail_plan),
    (plans.WorkerPlan, plans.decode_worker_plan),
]


@pytest.mark.parametrize(("union", "decode"), UNIONS)
def test_each_message_of_a_union_is_known_to_its_decoder(union: Any, decode: Decoder[Any]) -> None:
    for message in get_args(union):
        assert is_dataclass(message) and isinstance(message, type)
        made = message(**{one.name: "x" for one in fields(message) if "items" not in one.metadata}, **_items(message))
        assert decode(encode(made)) == made


def _items(message: Any) -> dict[str, list[object]]:
    return {one.name: [] for one in fields(message) if "items" in one.metadata}


def test_what_is_in_a_message_comes_out_as_it_went_in() -> None:
    preopens = [Preopen("/", "/"), Preopen("/d", "/d", True)]
    process = Process(args=["a"], cwd="/")
    app = plans.ContainerApp("app", process, preopens, True, listen=[Address("", 80)], listening=[7])
    assert plans.decode_worker_plan(encode(app)) == app
    layers = worker.Layers([Layer("sha256:a", "application/wasm", 7)])
    assert worker.decode_layers(encode(layers)) == layers


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no json", b"[]", b'"Spawn"', b"{}", b'{"type": "Nope"}', b'{"type": "Spawn"}', b'{"type": []}',
        b'{"type": "Forget", "key": "a", "more": 1}', b"\xff" * 70,
    ],
)  # fmt: skip
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(NotAMessage):
        fork_server.decode_request(data)


def test_descriptors_of_what_is_no_message_are_closed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        send(theirs, worker.Start(), [0, 1, 2])
        with pytest.raises(NotAMessage):
            receive(ours, fork_server.decode_request)
        assert len(os.listdir("/proc/self/fd")) == before


def test_messages_do_not_change() -> None:
    with pytest.raises(AttributeError):
        worker.Error(1, "a").code = 2  # type: ignore[misc]
