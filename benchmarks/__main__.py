"""Run everything, interleaved, and write a table, the numbers and a plot."""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from benchmarks import report
from benchmarks.shims import EVENTS, Shim, cleaned, known, make_bundle, make_rootfs, processes, start
from shimd.api.containerd.task import v3 as api
from shimd.ttrpc import Call, Client, Method, Server

SERVICE = "containerd.task.v2.Task"


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self.rootfs.mkdir()
        make_rootfs(self.rootfs)
        self._serial = 0

    def bundle(self, shim: Shim, args: list[str]) -> Path:
        self._serial += 1
        return make_bundle(self.directory / "bundles" / f"{shim.name}{self._serial}", self.rootfs, args)

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
                workers.start_soon(self._work, address, receive.clone())
        receive.close()
        return tasks / (time.perf_counter() - began)

    async def _warm(self, shim: Shim, address: str) -> None:
        async with await anyio.connect_unix(address) as stream, Client(stream) as client:
            await life(client, self.bundle(shim, shim.hello))

    async def _work(self, address: str, queue: "anyio.abc.ObjectReceiveStream[Path]") -> None:
        async with queue, await anyio.connect_unix(address) as stream, Client(stream) as client:
            async for bundle in queue:
                await life(client, bundle)

    async def memory(self, shim: Shim, apps: int) -> float:
        """MiB of proportional set size per idle app, all processes counted."""
        clients: list[tuple[str, str]] = []
        address = ""
        for _ in range(apps):
            bundle = self.bundle(shim, shim.idle)
            if not address or not shim.shared:
                address = start(shim, bundle, self.directory)
            async with await anyio.connect_unix(address) as stream, Client(stream) as client:
                await client.unary(SERVICE, "Create", bytes(api.CreateTaskRequest(id=bundle.name, bundle=str(bundle))))
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


async def life(client: Client, bundle: Path) -> None:
    id = bundle.name
    await client.unary(SERVICE, "Create", bytes(api.CreateTaskRequest(id=id, bundle=str(bundle))))
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


async def measure(bench: Bench, shims: list[Shim], tasks: int, rounds: int, sizes: list[int]) -> dict[str, object]:
    rates: dict[str, dict[str, list[float]]] = {shim.name: {"1": [], "8": []} for shim in shims}
    async with sink(bench.directory):
        for _ in range(rounds):
            for parallel in (1, 8):
                for shim in shims:
                    rates[shim.name][str(parallel)].append(await bench.rate(shim, tasks // rounds, parallel))
    median = {name: {p: statistics.median(values) for p, values in each.items()} for name, each in rates.items()}
    memory: dict[str, dict[str, float]] = {shim.name: {} for shim in shims}
    for size in sizes:
        for shim in shims:
            # A daemon of its own for each engine: what the other keeps is not this one's.
            own = tempfile.mkdtemp(prefix="shimd-bench-", dir=bench.directory)
            fresh = Bench(Path(own))
            async with sink(fresh.directory):
                with cleaned(fresh.directory):
                    memory[shim.name][str(size)] = await fresh.memory(shim, size)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "processor": report.processor()}
    return {"machine": machine, "tasks_per_second": median, "all_rates": rates, "pss_mib_per_app": memory}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few tasks and apps")
    parser.add_argument(
        "--shim", action="append", default=[], metavar="NAME=PATH", help="another shim, for /hello.wasm"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    shims = known()
    for name, _, path in (item.partition("=") for item in options.shim):
        shims.append(Shim(name, path, ["/hello.wasm"], ["/idle.wasm"], shared=False))
    with tempfile.TemporaryDirectory(prefix="shimd-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with cleaned(directory):
            sizes, tasks, rounds = ([1, 3], 8, 2) if options.quick else ([1, 10, 50], 200, 4)
            found = anyio.run(measure, Bench(directory), shims, tasks, rounds, sizes)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.out / "README.md").write_text(report.table(found))
    (options.out / "results.svg").write_text(report.plot(found))
    print(report.table(found))


if __name__ == "__main__":
    main()
