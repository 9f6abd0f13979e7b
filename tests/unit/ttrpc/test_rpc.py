"""One implementation of a generated service over ttrpc (as Task v2 and v3) and over gRPC."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import grpclib.server
import pytest
from grpclib import GRPCError
from grpclib.client import Channel

from shimd import errors
from shimd.api.containerd.services.content.v1 import ContentBase
from shimd.api.containerd.task import v2
from shimd.api.containerd.task.v3 import (
    CreateTaskRequest,
    CreateTaskResponse,
    DeleteRequest,
    KillRequest,
    PidsRequest,
    StateRequest,
    StateResponse,
    TaskBase,
    TaskStub,
    WaitRequest,
)
from shimd.api.containerd.types import Mount
from shimd.api.containerd.v1.types import Status
from shimd.api.google import protobuf
from shimd.api.google.protobuf import Empty
from shimd.rpc import GRPC_NAMESPACE, TTRPC_NAMESPACE, GrpcService, namespace, ttrpc_services
from shimd.ttrpc import Server, StatusError
from shimd.ttrpc.testing import client_for
from tests.unit.ttrpc.stub_channel import stub_channel

pytestmark = pytest.mark.anyio

V2 = "containerd.task.v2.Task"
CREATE = CreateTaskRequest(
    id="web",
    bundle="/b",
    rootfs=[Mount(type="bind", source="/s", options=["ro", "rbind"])],
    options=protobuf.Any("runtimeoptions.v1.Options", b"x"),
)


class Tasks(TaskBase):
    """Tasks that do nothing, in a dictionary."""

    def __init__(self) -> None:
        self.tasks: dict[tuple[str | None, str], CreateTaskRequest] = {}

    async def create(self, message: CreateTaskRequest) -> CreateTaskResponse:
        if (namespace(), message.id) in self.tasks:
            raise errors.AlreadyExists(f"task {message.id} exists")
        self.tasks[namespace(), message.id] = message
        return CreateTaskResponse(pid=42)

    async def state(self, message: StateRequest) -> StateResponse:
        task = self.tasks.get((namespace(), message.id))
        if task is None:
            raise errors.NotFound(f"no task {message.id} in {namespace()}")
        return StateResponse(id=task.id, bundle=task.bundle, pid=42, status=Status.CREATED, exec_id=message.exec_id)

    async def delete(self, message: DeleteRequest) -> None:  # type: ignore[override]
        raise ZeroDivisionError("a bug")

    async def kill(self, message: KillRequest) -> Empty:
        raise errors.FailedPrecondition(f"task {message.id} is not running")


Serve = Callable[[Tasks], AbstractAsyncContextManager[TaskStub]]


@asynccontextmanager
async def over_ttrpc(tasks: Tasks, service: str | None = None) -> AsyncIterator[TaskStub]:
    async with client_for(Server(ttrpc_services(tasks, [V2]))) as client:
        yield TaskStub(stub_channel(client, service), metadata={TTRPC_NAMESPACE: "k8s.io"})


def over_ttrpc_v2(tasks: Tasks) -> AbstractAsyncContextManager[TaskStub]:
    return over_ttrpc(tasks, V2)


@pytest.fixture(params=["ttrpc v3", "ttrpc v2", "gRPC"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def over_grpc(tasks: Tasks) -> AsyncIterator[TaskStub]:
        server = grpclib.server.Server([GrpcService(tasks, [V2])])
        await server.start(path=str(tmp_path / "grpc.sock"))
        async with Channel(path=str(tmp_path / "grpc.sock")) as channel:
            yield TaskStub(channel, metadata={GRPC_NAMESPACE: "k8s.io"})
        server.close()
        await server.wait_closed()

    return {"ttrpc v3": over_ttrpc, "ttrpc v2": over_ttrpc_v2, "gRPC": over_grpc}[request.param]


def code_of(error: BaseException) -> tuple[int, str]:
    assert isinstance(error, StatusError | GRPCError)
    code = error.code if isinstance(error, StatusError) else error.status.value
    return code, error.message or ""


async def test_messages_pass_both_ways(serve: Serve) -> None:
    tasks = Tasks()
    async with serve(tasks) as stub:
        assert await stub.create(CREATE) == CreateTaskResponse(pid=42)
        state = await stub.state(StateRequest("web", "e"))
    assert state == StateResponse("web", "/b", pid=42, status=Status.CREATED, exec_id="e")
    assert tasks.tasks == {("k8s.io", "web"): CREATE}


async def test_errors_keep_their_codes(serve: Serve) -> None:
    async with serve(Tasks()) as stub:
        await stub.create(CREATE)
        with pytest.raises((StatusError, GRPCError)) as exists:
            await stub.create(CREATE)
        with pytest.raises((StatusError, GRPCError)) as missing:
            await stub.state(StateRequest("api"))
        with pytest.raises((StatusError, GRPCError)) as stopped:
            await stub.kill(KillRequest("web"))
        with pytest.raises((StatusError, GRPCError)) as absent:
            await stub.wait(WaitRequest("web"))
    assert code_of(exists.value) == (errors.Code.ALREADY_EXISTS, "task web exists")
    assert code_of(missing.value) == (errors.Code.NOT_FOUND, "no task api in k8s.io")
    assert code_of(stopped.value) == (errors.Code.FAILED_PRECONDITION, "task web is not running")
    code, message = code_of(absent.value)
    assert code == errors.Code.UNIMPLEMENTED
    assert message.endswith("Task/Wait is not implemented")


async def test_a_bug_is_logged_and_the_service_lives(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(Tasks()) as stub:
        with pytest.raises((StatusError, GRPCError)) as bug:
            await stub.delete(DeleteRequest("web"))
        assert (await stub.create(CREATE)).pid == 42
    assert code_of(bug.value) == (errors.Code.INTERNAL, "ZeroDivisionError: a bug")
    (record,) = [record for record in caplog.records if record.name == "shimd.rpc"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_without_a_namespace() -> None:
    """As containerd 1.6 calls."""
    tasks = Tasks()
    async with client_for(Server(ttrpc_services(tasks, [V2]))) as client:
        await v2.TaskStub(stub_channel(client)).create(v2.CreateTaskRequest.parse(bytes(CREATE)))
    assert list(tasks.tasks) == [(None, "web")]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x0a\x05ab", id="truncated string"),
        pytest.param(b"\x08\x01", id="varint for a string"),
        pytest.param(b"\x0a\x02\xff\xfe", id="not UTF-8"),
        pytest.param(b"\x1a\x02\x0a\x09", id="truncated message inside"),
        pytest.param(b"\x1a\x02\x08\x01", id="varint for a string inside"),
        pytest.param(b"\x22\x01x", id="bytes for a bool"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x25\x01\x02\x03\x04", id="fixed32 for a bool"),
    ],
)
async def test_garbage_does_not_reach_the_implementation(payload: bytes) -> None:
    tasks = Tasks()
    async with client_for(Server(ttrpc_services(tasks, [V2]))) as client:
        with pytest.raises(StatusError, match="INTERNAL: ttrpc: error unmarshalling payload"):
            await client.unary(V2, "Create", payload)
        assert await client.unary(V2, "Create", bytes(CREATE) + b"\xf2\x07\x01x") == bytes(CreateTaskResponse(42))


def test_all_methods_of_both_versions_are_served() -> None:
    services = ttrpc_services(Tasks(), [V2])
    expected = {route.rpartition("/")[2] for route in v2.TaskBase().__mapping__()}
    assert {name: set(methods) for name, methods in services.items()} == {
        V2: expected,
        "containerd.task.v3.Task": expected,
    }
    assert len(expected) == 17


def test_v2_and_v3_are_the_same_on_the_wire() -> None:
    """The claim that lets one implementation serve both."""
    from shimd.api.containerd.task import v3

    def shape(message: Any) -> dict[str, tuple[Any, ...]]:
        fields = message._betterproto.meta_by_field_name.items()
        return {name: (field.number, field.proto_type, field.repeated) for name, field in fields}

    messages = [name for name in v3.__all__ if hasattr(getattr(v3, name), "_betterproto")]
    assert len(messages) > 20
    for name in messages:
        assert shape(getattr(v3, name)) == shape(getattr(v2, name)), name


def test_streaming_services_are_refused() -> None:
    with pytest.raises(TypeError, match="Content/List streams"):
        ttrpc_services(ContentBase())


async def test_a_stub_that_streams_is_refused() -> None:
    from shimd.api.containerd.services.content.v1 import ContentStub, ListContentRequest

    async with client_for(Server({})) as client:
        stub = ContentStub(stub_channel(client))
        with pytest.raises(TypeError, match="streams"):
            async for _ in stub.list(ListContentRequest()):
                pass


async def test_a_stubs_timeout_is_the_calls() -> None:
    class Slow(TaskBase):
        async def pids(self, message: PidsRequest) -> None:  # type: ignore[override]
            import anyio

            await anyio.sleep_forever()

    async with client_for(Server(ttrpc_services(Slow()))) as client:
        with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
            await TaskStub(stub_channel(client)).pids(PidsRequest("web"), timeout=0.05)


async def test_what_is_shielded_is_done_whoever_hangs_up(serve: Serve) -> None:
    begun, may_end, done = anyio.Event(), anyio.Event(), anyio.Event()

    class Shielded(Tasks):
        async def kill(self, message: KillRequest) -> Empty:
            with anyio.CancelScope(shield=True):
                begun.set()
                await may_end.wait()
                done.set()
            return Empty()

    async def hang_up() -> None:
        async with serve(Shielded()) as stub, anyio.create_task_group() as calls:
            calls.start_soon(stub.kill, KillRequest("web"))
            await begun.wait()
            calls.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang_up)
        await begun.wait()
        await anyio.sleep(0.1)
        assert not done.is_set()
        may_end.set()
    assert done.is_set()
