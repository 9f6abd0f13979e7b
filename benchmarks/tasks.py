"""Through the Task API, without containerd: tasks a second, and memory of idle apps."""

import itertools
import queue
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.caller import Caller, Sink, encoded
from benchmarks.shims import Shim, make_bundle, make_rootfs, processes, programs, start
from shimd.api.containerd.task import v3 as api
from shimd.api.containerd.v1.types import Status
from shimd.ttrpc import StatusError

#: Of a life: create, start, exit and delete; all shims tell of these.
_EVENTS = 4
#: Seconds for the last of them to come.
_PATIENCE = 60.0


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._programs = make_rootfs(directory / "rootfs", programs(directory))
        self._serial = itertools.count()

    def bundle(self, shim: Shim, args: list[str]) -> Path:
        return make_bundle(self.directory / "bundles" / f"{shim.name}{next(self._serial)}", self._rootfs(shim), args)

    def _rootfs(self, shim: Shim) -> Path:
        if shim.files is None:
            return self._programs
        own = self.directory / f"rootfs-{shim.name}"
        return own if own.exists() else make_rootfs(own, shim.files())

    def rate(self, shim: Shim, tasks: int, parallel: int, events: Sink) -> float:
        """Create + start + wait + delete of hello, to the last event: tasks a second; the shim runs already, one for
        all."""
        lives: queue.SimpleQueue[Life] = queue.SimpleQueue()
        for _ in range(tasks):
            lives.put(Life.of(shim, self.bundle(shim, shim.hello)))
        address = start(shim, self.bundle(shim, shim.hello), self.directory)
        told = events.taken
        self._warm(shim, address)
        events.wait(told + _EVENTS, _PATIENCE)
        began = time.perf_counter()
        with ThreadPoolExecutor(parallel) as pool:
            for done in [pool.submit(work, address, lives) for _ in range(parallel)]:
                done.result()
        events.wait(told + (tasks + 1) * _EVENTS, _PATIENCE)
        return tasks / (time.perf_counter() - began)

    def try_once(self, shim: Shim) -> None:
        """:raises StatusError: it does not run here"""
        self._warm(shim, start(shim, self.bundle(shim, shim.hello), self.directory))

    def _warm(self, shim: Shim, address: str) -> None:
        with Caller(address) as caller:
            Life.of(shim, self.bundle(shim, shim.hello)).lead(caller)

    def memory(self, shim: Shim, apps: int) -> float:
        """MiB of proportional set size per idle app, all processes counted."""
        running: list[tuple[str, str]] = []
        address = ""
        for _ in range(apps):
            bundle = self.bundle(shim, shim.idle)
            if not address or not shim.shared:
                address = start(shim, bundle, self.directory)
            with Caller(address) as caller:
                caller.call("Create", create_request(shim, bundle))
                caller.call("Start", bytes(api.StartRequest(id=bundle.name)))
            running.append((address, bundle.name))
        time.sleep(1)
        total = self._pss(running)
        for address, id in running:
            end(shim, address, id)
        return total / apps

    def _pss(self, running: Iterable[tuple[str, str]]) -> float:
        pids = set(processes(self.directory))
        for address, id in running:
            with Caller(address) as caller:
                state = api.StateResponse.parse(caller.call("State", bytes(api.StateRequest(id=id))))
                answer = caller.call("Pids", bytes(api.PidsRequest(id=id)))
            if state.status != Status.RUNNING:
                raise RuntimeError(f"{id} has ended, with {state.exit_status}")
            pids |= {process.pid for process in api.PidsResponse.parse(answer).processes}
        return sum(pss(pid) for pid in pids)


@dataclass(frozen=True)
class Life:
    """The requests of a task from Create to Delete, encoded beforehand: only the shim is at work when they are sent."""

    id: str
    create: bytes
    start: bytes
    wait: bytes
    delete: bytes

    @classmethod
    def of(cls, shim: Shim, bundle: Path) -> "Life":
        id = bundle.name
        return cls(
            id,
            encoded("Create", create_request(shim, bundle)),
            encoded("Start", bytes(api.StartRequest(id=id))),
            encoded("Wait", bytes(api.WaitRequest(id=id))),
            encoded("Delete", bytes(api.DeleteRequest(id=id))),
        )

    def lead(self, caller: Caller) -> None:
        caller.send(self.create)
        caller.send(self.start)
        answer = caller.send(self.wait)
        caller.send(self.delete)
        if status := api.WaitResponse.parse(answer).exit_status:
            raise RuntimeError(f"{self.id} exited with {status}")


def work(address: str, lives: "queue.SimpleQueue[Life]") -> None:
    with Caller(address) as caller, suppress(queue.Empty):
        while True:
            lives.get_nowait().lead(caller)


def end(shim: Shim, address: str, id: str) -> None:
    with Caller(address) as caller:
        caller.call("Kill", bytes(api.KillRequest(id=id, signal=9)))
        caller.call("Wait", bytes(api.WaitRequest(id=id)))
        caller.call("Delete", bytes(api.DeleteRequest(id=id)))
        if not shim.shared:
            with suppress(ConnectionError, StatusError):  # it may be gone before it has answered
                caller.call("Shutdown", bytes(api.ShutdownRequest(id=id, now=True)))


def pss(pid: int) -> float:
    """MiB; proc_pid_smaps_rollup."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def create_request(shim: Shim, bundle: Path) -> bytes:
    return bytes(api.CreateTaskRequest(id=bundle.name, bundle=str(bundle), options=shim.options()))
