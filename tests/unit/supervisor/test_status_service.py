"""The Status service: a real supervisor, asked over its real socket, by callers good and bad."""

import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from betterproto2 import Message
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import shimd
from shimd import paths
from shimd.api.containerd.events import TaskCreate, TaskExit, TaskStart
from shimd.api.containerd.types import Mount
from shimd.api.shimd.status import v1 as api
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord
from shimd.status_client import streamed
from shimd.supervisor.endpoint import Endpoint
from shimd.supervisor.modules.compilations import Compilation, Waiter
from shimd.supervisor.status.service import EVENTS, MAX_STREAMS, StatusServer
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.task.container import Container
from shimd.supervisor.task.process import Exit, Process
from shimd.supervisor.task.state import Step
from shimd.supervisor.task.stdio import Streams

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("runtime", "state", "cache"):
        (tmp_path / kind).mkdir(mode=0o700)
        monkeypatch.setenv(f"SHIMD_{kind.upper()}_DIR", str(tmp_path / kind))


@pytest.fixture
async def supervisor(directories: None) -> AsyncIterator[Supervisor]:
    """Serving on its status socket."""
    async with anyio.create_task_group() as tasks:
        supervisor = Supervisor(tasks, tasks)
        await tasks.start(StatusServer(supervisor).serve)
        yield supervisor
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def calling(config: Configuration | None = None) -> AsyncIterator[api.StatusStub]:
    channel = Channel(path=str(paths.status_socket()), config=config)
    try:
        yield api.StatusStub(channel)
    finally:
        channel.close()


@pytest.fixture
async def stub(supervisor: Supervisor) -> AsyncIterator[api.StatusStub]:
    async with calling() as stub:
        yield stub


def container(endpoint: Endpoint, id: str, **annotations: str) -> Container:
    """As Create leaves it, but for its processes."""
    spec: Any = {
        "process": {"args": ["/app.wasm", "serve"], "cwd": "/", "env": []},
        "annotations": {f"io.kubernetes.cri.{name.replace('_', '-')}": value for name, value in annotations.items()},
    }
    made = Container(endpoint, id, Path("/bundle") / id, spec, Streams(stdout=f"file:///log/{id}"))
    made.init.advance(Step.CREATE)
    endpoint.service.containers[id] = made
    return made


def publish(endpoint: Endpoint, event: Message) -> None:
    endpoint._parts.bus.publish(endpoint.events_address, endpoint.namespace, event)


def exited(process: Process, code: int) -> None:
    process.advance(Step.EXIT)
    process.exit = Exit(code, 1_700_000_000_500_000_000)


async def test_the_socket_is_for_root_only(supervisor: Supervisor) -> None:
    assert stat.S_IMODE(paths.status_socket().stat().st_mode) == 0o600


async def test_a_socket_left_behind_is_replaced(directories: None) -> None:
    paths.status_socket().touch()
    async with anyio.create_task_group() as tasks:
        await tasks.start(StatusServer(Supervisor(tasks, tasks)).serve)
        async with calling() as stub:
            assert (await stub.daemon()).pid == os.getpid()
        tasks.cancel_scope.cancel()


async def test_a_fresh_daemon(stub: api.StatusStub, tmp_path: Path) -> None:
    daemon = await stub.daemon()
    assert (daemon.version, daemon.pid) == (shimd.__version__, os.getpid())
    assert daemon.started_at is not None and daemon.started_at <= datetime.now(UTC)
    assert daemon.memory > 1 << 20
    assert daemon.runtime_dir == str(tmp_path / "runtime")
    assert daemon.state_dir == str(tmp_path / "state")
    assert daemon.cache_dir == str(tmp_path / "cache")
    assert daemon.tasks == api.TaskCounts()
    assert daemon.cache == api.Cache()
    assert not daemon.endpoints and not daemon.containerds and not daemon.compiling
    engines = {engine.name: engine for engine in daemon.engines}
    assert {"wasmer", "wasmtime"} <= engines.keys()
    assert engines["wasmtime"].version.startswith(("48.", "50."))  # its native host, or the portable one
    assert engines["wasmtime"].error == ""
    assert engines["wasmtime"].fork_server_pid == 0
    assert (await stub.tasks(api.TasksRequest())).tasks == []


async def test_counts_endpoints_queues_compilations_and_cache(
    supervisor: Supervisor, stub: api.StatusStub, tmp_path: Path
) -> None:
    address = f"{tmp_path}/nobody.sock"
    first = await supervisor.endpoint(EndpointRecord("wasmtime", "ns1", address, "grpc-address"))
    second = await supervisor.endpoint(EndpointRecord("wasmer", "ns2", "", ""))
    container(first, "created")
    container(first, "running").init.advance(Step.START)
    exited(container(second, "stopped").init, 1)
    for _ in range(3):
        publish(first, TaskStart(container_id="running", pid=1))
    compilations = supervisor.modules.compilations
    compilations.all.append(Compilation("big.wasm", "wasmtime", 7, "abc", "first"))
    entry = tmp_path / "cache" / "wasmtime" / "v1" / "abc"
    entry.mkdir(parents=True)
    (entry / "artifact").write_bytes(b"x" * 100)
    (entry.parent / "tmp.1").mkdir()

    daemon = await stub.daemon()
    assert daemon.tasks == api.TaskCounts(created=1, running=1, stopped=1)
    assert daemon.endpoints[0] == api.Endpoint(
        engine="wasmtime",
        namespace="ns1",
        events_address=address,
        grpc_address="grpc-address",
        path=str(first.path),
        tasks=2,
    )
    assert [(e.engine, e.namespace, e.tasks) for e in daemon.endpoints[1:]] == [("wasmer", "ns2", 1)]
    assert daemon.containerds == [api.Containerd(events_address=address, events_queued=3)]
    assert [item.program for item in daemon.compiling] == ["big.wasm"]
    assert daemon.cache == api.Cache(modules=1, size=100)


async def test_who_waits_for_a_compilation_is_being_created(supervisor: Supervisor, stub: api.StatusStub) -> None:
    """And who waits for what is compiled already is not: that takes no time."""
    compilations = supervisor.modules.compilations
    compilation = Compilation("/big.wasm", "wasmtime", 7, "abc", "gone")
    with (
        compilations.listed(compilation),
        compilations.waiting(Waiter("ns1", "first", "wasmtime"), "/big.wasm", "abc"),
        compilations.waiting(Waiter("ns1", "second", "spin"), "/big.wasm", "abc"),
        compilations.waiting(Waiter("ns1", "quick", "wasmtime"), "/small.wasm", "def"),
    ):
        (told,) = (await stub.daemon()).compiling
        assert (told.program, told.engine, told.size, told.queued) == ("/big.wasm", "wasmtime", 7, True)
        assert told.containers == ["first", "second"]
        with compilation.going_on():
            assert not (await stub.daemon()).compiling[0].queued
        tasks = (await stub.tasks(api.TasksRequest(namespace="ns1"))).tasks
        assert [(task.id, task.engine) for task in tasks] == [("first", "wasmtime"), ("second", "spin")]
        assert all(task.init and task.init.state is api.State.CREATING for task in tasks)
        assert not (await stub.tasks(api.TasksRequest(namespace="other"))).tasks
        assert [task.id for task in (await stub.tasks(api.TasksRequest(id="sec"))).tasks] == ["second"]
    assert not (await stub.daemon()).compiling
    assert not (await stub.tasks(api.TasksRequest())).tasks


async def test_tasks_with_their_processes(supervisor: Supervisor, stub: api.StatusStub) -> None:
    endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", "ns1", "", ""))
    made = container(endpoint, "web")
    made.init.advance(Step.START)
    made.execs["sh"] = Process.added("sh", {"args": ["/sh.wasm"], "cwd": "/"}, Streams(terminal=True))
    exited(made.init, 143)

    (task,) = (await stub.tasks(api.TasksRequest())).tasks
    assert (task.namespace, task.id, task.engine, task.bundle) == ("ns1", "web", "wasmtime", "/bundle/web")
    assert task.pod is None and task.image == "" and task.usage is None
    init = task.init
    assert init is not None and init.created_at is not None and init.started_at is not None
    assert (init.state, init.args, init.stdout) == (api.State.STOPPED, ["/app.wasm", "serve"], "file:///log/web")
    assert init.created_at <= init.started_at <= datetime.now(UTC)
    assert init.exit_status == 143
    assert init.exited_at == datetime.fromtimestamp(1_700_000_000.5, UTC)
    (exec,) = task.execs
    assert (exec.id, exec.state, exec.terminal, exec.exit_status) == ("sh", api.State.ADDED, True, None)


async def test_tasks_of_a_pod(supervisor: Supervisor, stub: api.StatusStub) -> None:
    endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", "k8s.io", "", ""))
    container(
        endpoint,
        "abc",
        sandbox_id="s1",
        sandbox_namespace="default",
        sandbox_name="web-0",
        container_name="app",
        image_name="example.test/app:1",
    )
    (task,) = (await stub.tasks(api.TasksRequest())).tasks
    assert task.pod == api.Pod(namespace="default", name="web-0", container="app")
    assert task.image == "example.test/app:1"


async def test_tasks_are_found_by_namespace_and_by_the_beginning_of_the_id(
    supervisor: Supervisor, stub: api.StatusStub
) -> None:
    for namespace in ("ns1", "ns2"):
        endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", namespace, "", ""))
        for id in ("web", "worker"):
            container(endpoint, id)

    async def found(namespace: str = "", id: str = "") -> list[str]:
        tasks = (await stub.tasks(api.TasksRequest(namespace=namespace, id=id))).tasks
        return [f"{task.namespace}/{task.id}" for task in tasks]

    assert await found() == ["ns1/web", "ns1/worker", "ns2/web", "ns2/worker"]
    assert await found(namespace="ns2") == ["ns2/web", "ns2/worker"]
    assert await found(id="we") == ["ns1/web", "ns2/web"]
    assert await found(id="eb") == []
    assert await found(namespace="n") == []


async def test_events_kept_and_to_come(supervisor: Supervisor, stub: api.StatusStub) -> None:
    endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", "ns1", "", ""))
    publish(endpoint, TaskCreate(container_id="a", pid=7, rootfs=[Mount(type="overlay", options=["x" * 10000])]))
    request = api.EventsRequest(follow=True)
    async with streamed(stub.events(request)) as events:
        created = await anext(events)
        assert (created.namespace, created.topic, created.container_id, created.pid) == ("ns1", "/tasks/create", "a", 7)
        assert created.exit_status is None
        publish(endpoint, TaskExit(container_id="a", id="a", pid=7, exit_status=0))
        left = await anext(events)
        assert (left.topic, left.exec_id, left.exit_status, left.lost) == ("/tasks/exit", "", 0, 0)


async def test_events_are_filtered(supervisor: Supervisor, stub: api.StatusStub) -> None:
    for namespace in ("ns1", "ns2"):
        endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", namespace, "", ""))
        for id in ("a", "b"):
            publish(endpoint, TaskStart(container_id=id, pid=1))

    async def found(**request: Any) -> list[str]:
        events = stub.events(api.EventsRequest(**request))
        return [f"{event.namespace}/{event.container_id}" async for event in events]

    assert await found() == ["ns1/a", "ns1/b", "ns2/a", "ns2/b"]
    assert await found(container_id="a") == ["ns1/a", "ns2/a"]
    assert await found(namespace="ns2", container_id="b") == ["ns2/b"]
    assert await found(last=1) == ["ns2/b"]


async def test_logs_of_one_container(supervisor: Supervisor, stub: api.StatusStub) -> None:
    log = logger("shimd.test")
    log.warning("container a: odd")
    log.warning("container ab: odd too")
    async with streamed(stub.logs(api.LogsRequest(container_id="a", follow=True))) as records:
        assert (await anext(records)).message == "container a: odd"
        log.error("container a: gone")
        record = await anext(records)
    assert (record.level, record.message) == ("ERROR", "container a: gone")
    assert record.time is not None and abs((datetime.now(UTC) - record.time).total_seconds()) < 3600


async def test_a_slow_caller_loses_events_and_harms_nobody(supervisor: Supervisor, stub: api.StatusStub) -> None:
    endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", "ns1", "", ""))
    narrow = Configuration(http2_connection_window_size=65535, http2_stream_window_size=65535)
    total, seen, lost = 20 * EVENTS, 0, 0
    async with calling(narrow) as slow, streamed(slow.events(api.EventsRequest(follow=True))) as events:
        publish(endpoint, TaskStart(container_id="first", pid=1))
        assert (await anext(events)).container_id == "first"
        for number in range(total):  # as fast as the loop lets the service run, while the caller reads nothing
            publish(endpoint, TaskStart(container_id="c" * 100, pid=number + 1))
            if number % 64 == 0:
                await anyio.lowlevel.checkpoint()
        assert (await stub.daemon()).pid == os.getpid()
        async for event in events:
            seen, lost = seen + 1, lost + event.lost
            if event.pid == total:
                break
    assert seen + lost == total
    assert lost > 0


async def test_callers_that_vanish_free_their_place(supervisor: Supervisor) -> None:
    async def follow(stack: AsyncExitStack) -> None:
        stub = await stack.enter_async_context(calling())
        events = await stack.enter_async_context(streamed(stub.events(api.EventsRequest(follow=True))))
        await anext(events)

    endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", "ns1", "", ""))
    publish(endpoint, TaskStart(container_id="a", pid=1))
    async with AsyncExitStack() as stack:
        for _ in range(MAX_STREAMS):
            await follow(stack)
        async with AsyncExitStack() as one_more:
            with pytest.raises(GRPCError) as caught:
                await follow(one_more)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert "64 callers" in (caught.value.message or "")
    with anyio.fail_after(30):
        while True:
            try:
                async with AsyncExitStack() as again:
                    await follow(again)
                return
            except GRPCError:
                await anyio.sleep(0.01)


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200],
    ids=["nothing", "http/1", "zeros", "broken frames"],
)
async def test_garbage_harms_nobody(stub: api.StatusStub, data: bytes) -> None:
    async with await anyio.connect_unix(paths.status_socket()) as stream:
        if data:
            await stream.send(data)
        assert (await stub.daemon()).pid == os.getpid()
    assert (await stub.daemon()).pid == os.getpid()


async def test_callers_that_follow_do_not_hold_up_the_end(directories: None) -> None:
    async with calling() as stub, streamed(stub.events(api.EventsRequest(follow=True))) as events:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                supervisor = Supervisor(tasks, tasks)
                await tasks.start(StatusServer(supervisor).serve)
                endpoint = await supervisor.endpoint(EndpointRecord("wasmtime", "ns1", "", ""))
                publish(endpoint, TaskStart(container_id="a", pid=1))
                await anext(events)
                tasks.cancel_scope.cancel()
        assert not supervisor.bus.subscribers
