"""The hand-written codec against the one that is generated from proto/ttrpc/request.proto."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shimd.api import ttrpc as api
from shimd.api.google import rpc as google
from shimd.ttrpc.envelope import DecodeError, Request, Response, Status

TEXT = st.text(max_size=20)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
REQUESTS = st.builds(
    Request, TEXT, TEXT, st.binary(max_size=300), INT64, st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
)
FAILURES = st.builds(Status, INT32.filter(bool), TEXT)


def generated(request: Request) -> api.Request:
    pairs = [api.KeyValue(key, value) for key, value in request.metadata]
    return api.Request(request.service, request.method, request.payload, request.timeout_nano, pairs)


@given(REQUESTS)
def test_requests(request: Request) -> None:
    assert api.Request.parse(request.encode()) == generated(request)
    assert Request.decode(request.encode()) == request


@given(REQUESTS.filter(lambda request: ("", "") not in request.metadata))  # betterproto2 miswrites an empty item
def test_requests_of_others(request: Request) -> None:
    assert Request.decode(bytes(generated(request))) == request


@given(FAILURES)
def test_failures(status: Status) -> None:
    response = Response(status)
    assert api.Response.parse(response.encode()) == api.Response(google.Status(status.code, status.message))
    assert Response.decode(bytes(api.Response(google.Status(status.code, status.message)))) == response


@given(st.binary(max_size=300))
def test_answers(payload: bytes) -> None:
    response = Response(payload=payload)
    assert api.Response.parse(response.encode()) == api.Response(payload=payload)
    assert Response.decode(response.encode()) == response


def test_a_status_of_ok_with_details_is_no_failure() -> None:
    """Go sends an empty status message with every answer."""
    assert Response.decode(b"\x0a\x00\x12\x01x") == Response(payload=b"x")


def test_unknown_fields_are_skipped() -> None:
    unknown = b"\x78\x96\x01\x79" + bytes(8) + b"\x7a\x02hi\x7d" + bytes(4)
    assert Request.decode(unknown + Request("s", "m").encode() + unknown) == Request("s", "m")


def test_the_last_of_a_field_counts() -> None:
    assert Request.decode(Request("old", "m").encode() + Request("new", "m").encode()) == Request("new", "m")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a", id="no length"),
        pytest.param(b"\x0a\x05abc", id="truncated string"),
        pytest.param(b"\x20\x80", id="truncated varint"),
        pytest.param(b"\x20" + b"\xff" * 10, id="varint too long"),
        pytest.param(b"\x0a\x02\xff\xfe", id="not UTF-8"),
        pytest.param(b"\x08\x01", id="string sent as varint"),
        pytest.param(b"\x22\x00", id="varint sent as bytes"),
        pytest.param(b"\x02\x00", id="field number 0"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x0f", id="wire type 7"),
        pytest.param(b"\x2a\x02\x0a\x09", id="truncated metadata"),
        pytest.param(b"\x7d\x00", id="truncated fixed32"),
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Request.decode(data)


@given(st.binary(max_size=60))
def test_garbage_gives_a_message_or_a_decode_error(data: bytes) -> None:
    for message in (Request, Response, Status):
        try:
            message.decode(data)
        except DecodeError as error:
            assert str(error)
