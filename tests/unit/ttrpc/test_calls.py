"""Calls of every kind, from a client to a server, in memory and over a Unix socket."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from shimd.api.containerd.task.v3 import PidsRequest, WaitResponse
from shimd.ttrpc import (
    Call,
    Client,
    Code,
    LocalProtocolError,
    MessageTooLarge,
    Method,
    Server,
    StatusError,
)
from shimd.ttrpc.frames import MAX_DATA
from tests.unit.ttrpc.ttrpc_support import Connect, all_kinds, eventually, raw

pytestmark = pytest.mark.anyio


async def everything(client: Client, method: str, *messages: bytes, server_streaming: bool = True) -> list[bytes]:
    """Send all messages, then take all answers."""
    async with await client.stream(
        "test.Test", method, client_streaming=True, server_streaming=server_streaming
    ) as stream:
        for message in messages:
            await stream.send(message)
        await stream.send_eof()
        return [answer async for answer in stream]


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 10000], ids=["empty", "small", "2.5 MB"])
async def test_unary(connect: Connect, payload: bytes) -> None:
    async with connect(all_kinds()) as client:
        assert await client.unary("test.Test", "Echo", payload) == payload


async def test_server_stream(connect: Connect) -> None:
    async with connect(all_kinds()) as client, await client.stream("test.Test", "Count", b"3") as stream:
        assert [message async for message in stream] == [b"0", b"1", b"2"]
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_client_stream(connect: Connect) -> None:
    async with connect(all_kinds()) as client:
        assert await everything(client, "Total", b"1", b"20", b"300", server_streaming=False) == [b"321"]
        assert await everything(client, "Total", server_streaming=False) == [b"0"]


async def test_bidirectional(connect: Connect) -> None:
    async with connect(all_kinds()) as client:
        async with await client.stream("test.Test", "Double", client_streaming=True) as stream:
            for message in (b"a", b"", b"bc"):
                await stream.send(message)
                assert await stream.receive() == message * 2
            await stream.send_eof()
            assert [message async for message in stream] == []
        assert await everything(client, "Double", b"1", b"2") == [b"11", b"22"]


async def test_an_empty_answer_is_an_answer_where_one_is_due(connect: Connect) -> None:
    async def swallow(call: Call, requests: AsyncIterator[bytes]) -> bytes:
        return b"".join([request async for request in requests][:0])

    async with connect({"test.Test": {"Swallow": Method.client_stream(swallow, raw, raw)}}) as client:
        assert await everything(client, "Swallow", b"x", server_streaming=False) == [b""]


async def test_the_request_may_carry_the_first_message_of_a_client_stream(connect: Connect) -> None:
    """As Go's client does if it is given a request."""
    async with (
        connect(all_kinds()) as client,
        await client.stream("test.Test", "Double", b"first", client_streaming=True) as stream,
    ):
        assert await stream.receive() == b"firstfirst"


async def test_messages_of_a_protobuf_library(connect: Connect) -> None:
    async def wait(call: Call, request: PidsRequest) -> WaitResponse:
        return WaitResponse(exit_status=len(request.id))

    async with connect({"test.Test": {"Wait": Method.unary(wait, PidsRequest.parse, bytes)}}) as client:
        assert await client.call("test.Test", "Wait", PidsRequest("abc"), WaitResponse) == WaitResponse(exit_status=3)


@pytest.mark.parametrize(
    ("service", "method", "code", "message"),
    [
        ("test.Test", "Nope", Code.UNIMPLEMENTED, "method Nope"),
        ("test.Nope", "Echo", Code.UNIMPLEMENTED, "service test.Nope"),
        ("", "", Code.UNIMPLEMENTED, "service "),
        ("test.Test", "Fail", Code.NOT_FOUND, "no such thing"),
        ("test.Test", "Count", Code.INVALID_ARGUMENT, "method Count streams, and the call is unary"),
    ],
)
async def test_errors(connect: Connect, service: str, method: str, code: Code, message: str) -> None:
    async with connect(all_kinds()) as client:
        with pytest.raises(StatusError) as caught:
            await client.unary(service, method, b"3")
        assert (caught.value.code, caught.value.message) == (code, message)
        assert await client.unary("test.Test", "Echo", b"alive") == b"alive"


async def test_an_error_ends_a_stream(connect: Connect) -> None:
    async def fail(call: Call, request: bytes) -> AsyncIterator[bytes]:
        yield b"one"
        raise StatusError(Code.ABORTED, "enough")

    async with (
        connect({"test.Test": {"Fail": Method.server_stream(fail, raw, raw)}}) as client,
        await client.stream("test.Test", "Fail") as stream,
    ):
        assert await stream.receive() == b"one"
        with pytest.raises(StatusError, match="ABORTED: enough"):
            await stream.receive()


async def test_a_bug_in_a_handler(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(all_kinds()) as client:
        with pytest.raises(StatusError, match="UNKNOWN: a bug"):
            await client.unary("test.Test", "Crash", b"")
        assert await client.unary("test.Test", "Echo", b"alive") == b"alive"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_payload_that_is_no_message(connect: Connect) -> None:
    async def never(call: Call, request: Any) -> bytes:
        raise AssertionError("it must not be called")

    async with connect({"test.Test": {"Pids": Method.unary(never, PidsRequest.parse, raw)}}) as client:
        for garbage in (b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\xff" * 20):
            with pytest.raises(StatusError, match="INTERNAL: ttrpc: error unmarshalling payload"):
                await client.unary("test.Test", "Pids", garbage)


async def test_metadata_reaches_the_handler(connect: Connect) -> None:
    async def tell(call: Call, request: bytes) -> bytes:
        assert call.get("missing") is None
        return f"{call.service} {call.method} {call.get('Containerd-Namespace-TTRPC')} {call.metadata}".encode()

    metadata = {"containerd-namespace-ttrpc": "k8s.io", "Other": "ä"}
    async with connect({"test.Test": {"Tell": Method.unary(tell, raw, raw)}}) as client:
        answer = await client.unary("test.Test", "Tell", b"", metadata=metadata)
    assert answer.decode() == ("test.Test Tell k8s.io (('containerd-namespace-ttrpc', 'k8s.io'), ('other', 'ä'))")


async def test_many_at_once(connect: Connect) -> None:
    """All are at work before the first is answered, and each gets its own answer."""
    arrived, everyone = 0, anyio.Event()

    async def meet(call: Call, request: bytes) -> bytes:
        nonlocal arrived
        arrived += 1
        if arrived == 200:
            everyone.set()
        await everyone.wait()
        return request

    async def ask(client: Client, number: int) -> None:
        assert await client.unary("test.Test", "Meet", b"%d" % number) == b"%d" % number

    async with (
        connect({"test.Test": {"Meet": Method.unary(meet, raw, raw)}}) as client,
        anyio.create_task_group() as group,
    ):
        for number in range(200):
            group.start_soon(ask, client, number)
    assert arrived == 200


async def test_a_deadline_cancels_the_handler(connect: Connect) -> None:
    cancelled = anyio.Event()

    async def slow(call: Call, request: bytes) -> bytes:
        assert call.deadline is not None
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return b""

    async with connect({"test.Test": {"Slow": Method.unary(slow, raw, raw)}}) as client:
        with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
            await client.unary("test.Test", "Slow", b"", timeout=0.05)
        await cancelled.wait()


async def test_the_server_answers_when_the_deadline_passes(connect: Connect) -> None:
    async with connect(all_kinds()) as client, await client.stream("test.Test", "Hang", timeout=0.05) as stream:
        with pytest.raises(StatusError, match="DEADLINE_EXCEEDED: context deadline exceeded"):
            await stream.receive()


@pytest.mark.parametrize("limit", [0, -1, 1e-12])
async def test_a_deadline_that_has_passed(connect: Connect, limit: float) -> None:
    """The handler does not even begin."""

    async def never(call: Call, request: bytes) -> bytes:
        raise AssertionError("it must not be called")

    async with (
        connect({"test.Test": {"Never": Method.unary(never, raw, raw)}}) as client,
        await client.stream("test.Test", "Never", timeout=limit) as stream,
    ):
        with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
            await stream.receive()


async def test_the_scopes_around_a_call_limit_it(connect: Connect) -> None:
    async def tell(call: Call, request: bytes) -> bytes:
        return b"none" if call.deadline is None else b"%d" % (call.deadline - anyio.current_time())

    async with connect({"test.Test": {"Tell": Method.unary(tell, raw, raw)}}) as client:
        assert await client.unary("test.Test", "Tell", b"") == b"none"
        with anyio.fail_after(1000):
            assert await client.unary("test.Test", "Tell", b"") == b"999"
            assert await client.unary("test.Test", "Tell", b"", timeout=5000) == b"999"
            assert await client.unary("test.Test", "Tell", b"", timeout=500) == b"499"


async def test_an_answer_that_does_not_fit(connect: Connect) -> None:
    async def huge(call: Call, request: bytes) -> bytes:
        return bytes(MAX_DATA)

    async def huge_stream(call: Call, request: bytes) -> AsyncIterator[bytes]:
        yield bytes(MAX_DATA + 1)

    methods = {"Huge": Method.unary(huge, raw, raw), "Stream": Method.server_stream(huge_stream, raw, raw)}
    async with connect({"test.Test": methods}) as client:
        with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: message length"):
            await client.unary("test.Test", "Huge", b"")
        async with await client.stream("test.Test", "Stream") as stream:
            with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: message length"):
                await stream.receive()


async def test_a_request_that_does_not_fit(connect: Connect) -> None:
    async with connect(all_kinds()) as client:
        with pytest.raises(MessageTooLarge):
            await client.unary("test.Test", "Echo", bytes(MAX_DATA))
        assert await client.unary("test.Test", "Echo", b"alive") == b"alive"


async def test_sending_after_the_end(connect: Connect) -> None:
    async with (
        connect(all_kinds()) as client,
        await client.stream("test.Test", "Total", client_streaming=True, server_streaming=False) as stream,
    ):
        await stream.send_eof()
        with pytest.raises(LocalProtocolError):
            await stream.send(b"1")
        with pytest.raises(LocalProtocolError):
            await stream.send_eof()
        assert await stream.receive() == b"0"


async def test_leaving_a_stream_tells_the_server_that_no_more_comes(connect: Connect) -> None:
    ended = anyio.Event()

    async def listen(call: Call, requests: AsyncIterator[bytes]) -> bytes:
        async for _ in requests:
            pass
        ended.set()
        return b""

    async with connect({"test.Test": {"Listen": Method.client_stream(listen, raw, raw)}}) as client:
        async with await client.stream("test.Test", "Listen", client_streaming=True) as stream:
            await stream.send(b"x")
        await ended.wait()


async def test_data_for_a_unary_method_is_dropped(connect: Connect) -> None:
    async with (
        connect(all_kinds()) as client,
        await client.stream("test.Test", "Echo", b"x", client_streaming=True) as stream,
    ):
        await stream.send(b"nobody wants this")
        assert await stream.receive() == b"x"


async def test_a_generator_is_closed_with_its_call(connect: Connect) -> None:
    closed = anyio.Event()

    async def endless(call: Call, request: bytes) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    async with connect({"test.Test": {"Endless": Method.server_stream(endless, raw, raw)}}) as client:
        async with await client.stream("test.Test", "Endless", timeout=0.05) as stream:
            with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
                async for _ in stream:
                    pass
        await closed.wait()


async def test_nothing_is_kept_of_calls_that_ended(connect: Connect) -> None:
    """However they ended."""
    server = Server(all_kinds())
    async with connect(server) as client:
        await client.unary("test.Test", "Echo", b"x")
        for method, limit in (("Fail", None), ("Crash", None), ("Hang", 0.01)):
            with pytest.raises(StatusError):
                await client.unary("test.Test", method, b"", timeout=limit)
        with anyio.move_on_after(0.01):
            await client.unary("test.Test", "Hang", b"")
        assert await everything(client, "Double", b"1") == [b"11"]
        async with await client.stream("test.Test", "Total", client_streaming=True) as stream:
            await stream.send(b"1")
        assert client._pending == {}
        assert client._connection._states == {}
        (session,) = server._sessions
        await eventually(lambda: not session._calls)
        assert session._connection._states == {}
        assert session._connection._unary == {}
