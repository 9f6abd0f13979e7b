"""What is encoded by hand, against the library."""

from datetime import UTC, datetime, timedelta

from betterproto2 import Message
from hypothesis import example, given
from hypothesis import strategies as st

from shimd import betterproto
from shimd.api.containerd.events import TaskCreate, TaskDelete, TaskExit, TaskIo, TaskPaused
from shimd.api.containerd.services.events.ttrpc.v1 import ForwardRequest
from shimd.api.containerd.types import Envelope, Mount
from shimd.api.google.protobuf import Any
from shimd.supervisor.envelope import forward_request, packed_any

TIMES = st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(TIMES, st.text(max_size=300), st.text(max_size=40), st.text(max_size=40), st.binary(max_size=300))
@example(datetime(1970, 1, 1, tzinfo=UTC), "", "", "", b"")
@example(datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1), "k8s.io", "/tasks/exit", "x", b"y")
def test_a_request_is_what_the_library_makes_of_it(
    time: datetime, namespace: str, topic: str, kind: str, value: bytes
) -> None:
    envelope = Envelope(timestamp=time, namespace=namespace, topic=topic, event=Any(type_url=kind, value=value))
    request = forward_request(time, namespace, topic, packed_any(kind, value))
    assert request == bytes(ForwardRequest(envelope=envelope))


def test_the_short_way_of_the_library_comes_to_the_same() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    messages: list[Message] = [
        TaskExit(container_id="a", id="b", pid=1, exit_status=137, exited_at=when),
        TaskCreate(container_id="a", rootfs=[Mount(options=["x", "y"])], io=TaskIo(stdin="in", terminal=True)),
        TaskDelete(container_id="a", exit_status=0),
        TaskPaused(),
    ]
    before, way = [bytes(one) for one in messages], Message._get_field_default
    try:
        betterproto.take_short_way()
        assert Message._get_field_default is not way
        assert [bytes(one) for one in messages] == before
    finally:
        Message._get_field_default = way  # type: ignore[method-assign]
