"""Where a run happens: a containerd of its own, root file systems for every engine, and the calls to it, recorded."""

import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import anyio
from betterproto2 import Message
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from benchmarks.shims import specification
from shimd.api.containerd import events as task_events
from shimd.api.containerd.services.containers.v1 import (
    Container,
    ContainerRuntime,
    ContainersStub,
    CreateContainerRequest,
    DeleteContainerRequest,
)
from shimd.api.containerd.types import Envelope, Mount
from shimd.api.google.protobuf import Any
from shimd.api.shimd.status.v1 import State, StatusStub, TasksRequest
from shimd.engines.registry import lacking
from tests.chaos import wire
from tests.chaos.plan import ENGINES, SERVERS
from tests.chaos.record import HUNG, Call, Event, Record
from tests.components import rust
from tests.e2e import guests
from tests.e2e.containerd import Containerd
from tests.slight.build import guest as slight_program

_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/"
_WORDS = {State.RUNNING: "RUNNING", State.PAUSED: "PAUSED", State.STOPPED: "STOPPED"}
_RUNTIMES = {"native": "wasmtime.v1", "spin": "spin.v2"}
_SPIN = b"""
spin_manifest_version = 2
[application]
name = "chaos"
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
"""
_SLIGHT = b'specversion = "0.2"\n[[capability]]\nresource = "http"\nname = "my-rest-api"\n'

Answer = TypeVar("Answer", bound=Message)


def engines() -> set[str]:
    """Those of the plan's that this machine has."""
    return {name for name in ENGINES if name == "native" or not lacking(name)}


class Place:
    """One containerd namespace of a containerd that runs, with a root file system for each engine."""

    def __init__(self, containerd: Containerd, namespace: str, record: Record, patience: float) -> None:
        self.containerd, self.namespace, self.record, self.patience = containerd, namespace, record, patience
        self.directory = containerd.directory / "chaos"
        self.directory.mkdir()
        self.guest = self.directory / "guest"
        """Of the host's kind: also the log program."""
        self._overlay = containerd.env["CONTAINERD_SNAPSHOTTER"] == "overlayfs"
        self._make_roots()

    def _make_roots(self) -> None:
        native, wasm = guests.both(Path(__file__).parent / "guest.c")
        self._write(self.guest, native)
        for engine in engines():
            files = {"guest": native, "guest.wasm": wasm}
            if engine == "spin":
                files = {"spin.toml": _SPIN, "app.wasm": rust.component("spin").read_bytes()}
            elif engine == "slight":
                files = {"slightfile.toml": _SLIGHT, "app.wasm": slight_program("app").read_bytes()}
            for name in ("proc", "dev", "sys", "run", "tmp"):
                (self._root(engine) / name).mkdir(parents=True)
            for name, data in files.items():
                self._write(self._root(engine) / name, data)

    def _root(self, engine: str) -> Path:
        return self.directory / "roots" / engine

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(0o755)

    async def __aenter__(self) -> "Place":
        self._channel = Channel(path=str(self.containerd.address))
        metadata = {"containerd-namespace": self.namespace}
        self.tasks = wire.Tasks(self._channel, metadata=metadata)
        self._containers = ContainersStub(self._channel, metadata=metadata)
        self._events = wire.Events(self._channel, metadata=metadata)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._channel.close()

    def rootfs(self, engine: str, container: str) -> list[Mount]:
        """As a snapshotter would have it."""
        if not self._overlay:
            return [Mount(type="bind", source=str(self._root(engine)), options=["rbind", "ro"])]
        upper, work = (self.directory / "layers" / container / name for name in ("upper", "work"))
        for path in (upper, work):
            path.mkdir(parents=True, exist_ok=True)
        options = [f"lowerdir={self._root(engine)}", f"upperdir={upper}", f"workdir={work}"]
        return [Mount(type="overlay", source="overlay", options=options)]

    @staticmethod
    def command(engine: str, arguments: list[str]) -> list[str]:
        if engine in SERVERS:
            return ["/"]
        return ["/guest" if engine == "native" else "/guest.wasm", *arguments]

    async def make(self, id: str, engine: str, arguments: list[str], terminal: bool, port: int) -> None:
        """The container, which is containerd's alone: a specification, and no task yet."""
        spec = specification(Path("rootfs"), self.command(engine, arguments), f"/{self.namespace}/{id}")
        spec["process"]["terminal"] = terminal
        if engine in SERVERS:
            spec["process"]["env"] += [f"{name}_HTTP_LISTEN_ADDR=127.0.0.1:{port}" for name in ("SPIN", "SLIGHT")]
            kinds = spec["linux"]["namespaces"]
            spec["linux"]["namespaces"] = [kind for kind in kinds if kind["type"] != "network"]
        runtime = f"io.containerd.{_RUNTIMES.get(engine, engine + '.v1')}"
        container = Container(id=id, runtime=ContainerRuntime(name=runtime), spec=_packed("Spec", spec))
        await self._containers.create(CreateContainerRequest(container=container))

    async def forget(self, id: str) -> None:
        with suppress(GRPCError):
            await self._containers.delete(DeleteContainerRequest(id=id))

    def process(self, engine: str, arguments: list[str]) -> Any:
        spec = specification(Path("rootfs"), self.command(engine, arguments), "")
        return _packed("Process", spec["process"])

    @staticmethod
    def resources(mebibytes: int) -> Any:
        return _packed("LinuxResources", {"memory": {"limit": mebibytes << 20}})

    async def call(
        self,
        container: str,
        exec_id: str,
        method: str,
        step: str,
        made: Callable[[], Awaitable[Answer]],
        patience: float | None = None,
        **known: int,
    ) -> Answer | None:
        """Make a call and record it; None: it failed. (A message is false if it says nothing.)

        :param known: what the record's result is to have besides
        """
        begin, error, message, answer = now(), "", "", None
        try:
            with anyio.fail_after(patience or self.patience):
                answer = await made()
        except GRPCError as failed:
            error, message = failed.status.name, failed.message or ""
        except TimeoutError:
            error = HUNG
        except (StreamTerminatedError, OSError) as failed:
            error, message = "UNAVAILABLE", f"containerd's connection: {failed!r}"
        result = {**known, **_result(answer)}
        self.record.calls.append(Call(container, exec_id, method, step, begin, now(), error, message, result))
        return answer

    async def shimd(self) -> dict[str, str]:
        """Its tasks' states. Asked until there is an answer: a status socket's connections end with the daemon."""
        with anyio.move_on_after(self.patience):
            while True:
                with (
                    suppress(OSError, GRPCError, StreamTerminatedError),
                    closing(Channel(path=str(self.containerd.directory / "shimd/status.sock"))) as channel,
                ):
                    tasks = await StatusStub(channel).tasks(TasksRequest(namespace=self.namespace))
                    return {task.id: _WORDS.get(task.init.state, "") for task in tasks.tasks if task.init}
                await anyio.sleep(0.1)
        return {}

    async def listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Record the events of this namespace, for ever."""
        stream = self._events.subscribe()
        task_status.started()
        async for envelope in stream:
            if envelope.namespace == self.namespace and envelope.topic.startswith("/tasks/"):
                self.record.events.append(_event(envelope))


def now() -> int:
    return time.time_ns() // 1000


def _packed(kind: str, value: Mapping[str, object]) -> Any:
    return Any(type_url=_TYPE + kind, value=json.dumps(value).encode())


def _result(answer: Message | None) -> dict[str, int]:
    found: dict[str, int] = {}
    if isinstance(answer, wire.Created | wire.Started | wire.Deleted):
        found["pid"] = answer.pid
    if isinstance(answer, wire.Exited | wire.Deleted):
        found |= {"code": answer.exit_status, "at": wire.microseconds(answer.exited_at)}
    return found


def _event(envelope: Envelope) -> Event:
    assert envelope.event is not None
    kind = getattr(task_events, envelope.event.type_url.rpartition(".")[2])
    told = kind.parse(envelope.event.value)
    topic = envelope.topic.removeprefix("/tasks/")
    process = getattr(told, "id", "") if topic == "exit" else getattr(told, "exec_id", "")
    exit = {}
    if topic == "exit":
        seconds = told.exited_at.timestamp() if told.exited_at else 0.0
        exit = {"pid": told.pid, "code": told.exit_status, "at": round(seconds * 1_000_000)}
    return Event(topic, told.container_id, process, **exit)


def processors() -> int:
    return len(os.sched_getaffinity(0))
