"""Through the Task API, without containerd: tasks a second, and memory of idle apps."""

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc

from benchmarks.shims import EVENTS, Shim, make_bundle, make_rootfs, processes, start
from shimd.api.containerd.task import v3 as api
from shimd.ttrpc import Call, Client, Method, Server

SERVICE = "containerd.task.v2.Task"


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self.rootfs.mkdir()
        make_rootfs(self.rootfs)
        self._serial = itertools.count()

    def bundle(self, shim: Shim, args: list[str]) -> Path:
        return make_bundle(self.directory / "bundles" / f"{shim.name}{next(self._serial)}", self.rootfs, args)

    async def rate(self, shim: Shim, tasks: int, parallel: int) -> float:
        """Create + start + wait + delete of hello, tasks a second; the shim runs already, one for all."""
        bundles = [self.bundle(shim, shim.hello) for _ in range(tasks)]
        address = start(shim, self.bundle(shim, shim.hello), self.directory)
        await self._warm(shim, address)
        send, receive = anyio.create_memory_object_stream[Path](tasks)
        for bundle in bundles:
            send.send_nowait(bundle)
        send.close()
        began = time.perf_counter()
        async with anyio.create_task_group() as workers:
            for _ in range(parallel):
                workers.start_soon(self._work, shim, address, receive.clone())
        receive.close()
        return tasks / (time.perf_counter() - began)

    async def try_once(self, shim: Shim) -> None:
        """:raises StatusError: it does not run here"""
        await self._warm(shim, start(shim, self.bundle(shim, shim.hello), self.directory))

    async def _warm(self, shim: Shim, address: str) -> None:
        async with await anyio.connect_unix(address) as stream, Client(stream) as client:
            await life(client, shim, self.bundle(shim, shim.hello))

    async def _work(self, shim: Shim, address: str, queue: "anyio.abc.ObjectReceiveStream[Path]") -> None:
        async with queue, await anyio.connect_unix(address) as stream, Client(stream) as client:
            async for bundle in queue:
                await life(client, shim, bundle)

    async def memory(self, shim: Shim, apps: int) -> float:
        """MiB of proportional set size per idle app, all processes counted."""
        clients: list[tuple[str, str]] = []
        address = ""
        for _ in range(apps):
            bundle = self.bundle(shim, shim.idle)
            if not address or not shim.shared:
                address = start(shim, bundle, self.directory)
            async with await anyio.connect_unix(address) as stream, Client(stream) as client:
                await client.unary(SERVICE, "Create", _create(shim, bundle))
                await client.unary(SERVICE, "Start", bytes(api.StartRequest(id=bundle.name)))
            clients.append((address, bundle.name))
        await anyio.sleep(1)
        total = await self._pss(clients)
        for address, id in clients:
            async with await anyio.connect_unix(address) as stream, Client(stream) as client:
                await client.unary(SERVICE, "Kill", bytes(api.KillRequest(id=id, signal=9)))
                await client.unary(SERVICE, "Wait", bytes(api.WaitRequest(id=id)))
                await client.unary(SERVICE, "Delete", bytes(api.DeleteRequest(id=id)))
                if not shim.shared:
                    with anyio.move_on_after(2):
                        await client.unary(SERVICE, "Shutdown", bytes(api.ShutdownRequest(id=id, now=True)), timeout=2)
        return total / apps

    async def _pss(self, clients: list[tuple[str, str]]) -> float:
        pids = set(processes(self.directory))
        for address, id in clients:
            async with await anyio.connect_unix(address) as stream, Client(stream) as client:
                answer = await client.unary(SERVICE, "Pids", bytes(api.PidsRequest(id=id)))
                pids |= {process.pid for process in api.PidsResponse.parse(answer).processes}
        return sum(pss(pid) for pid in pids)


def pss(pid: int) -> float:
    """MiB; proc_pid_smaps_rollup."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _create(shim: Shim, bundle: Path) -> bytes:
    return bytes(api.CreateTaskRequest(id=bundle.name, bundle=str(bundle), options=shim.options()))


async def life(client: Client, shim: Shim, bundle: Path) -> None:
    id = bundle.name
    await client.unary(SERVICE, "Create", _create(shim, bundle))
    await client.unary(SERVICE, "Start", bytes(api.StartRequest(id=id)))
    answer = api.WaitResponse.parse(await client.unary(SERVICE, "Wait", bytes(api.WaitRequest(id=id))))
    await client.unary(SERVICE, "Delete", bytes(api.DeleteRequest(id=id)))
    if answer.exit_status:
        raise RuntimeError(f"{id} exited with {answer.exit_status}")


@asynccontextmanager
async def sink(directory: Path) -> AsyncIterator[None]:
    """Takes every event, as containerd would."""

    async def forward(_call: Call, _event: bytes) -> bytes:
        return b""

    services = {"containerd.services.events.ttrpc.v1.Events": {"Forward": Method.unary(forward, bytes, bytes)}}
    async with await anyio.create_unix_listener(directory / EVENTS) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(Server(services).serve, listener)
        yield
        tasks.cancel_scope.cancel()
