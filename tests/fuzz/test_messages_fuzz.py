"""What others have written: it is what it says, or refused in a sentence; nothing else comes of it."""

import json
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.shims import specification
from shimd import oci, strict
from shimd.api.containerd.task import v3 as api
from shimd.api.google.protobuf import Any as Packed
from shimd.errors import ShimdError, plain
from shimd.protocol import fork_server, jailer, journal, keeper, plans, worker
from shimd.protocol.codec import Decoder, NotAMessage, encode
from shimd.supervisor.image.content import choose, descriptors
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.task import plans as task_plans
from shimd.supervisor.task.service import TaskService
from tests.fuzz.values import JSON, changed, torn
from tests.unit.supervisor.in_memory import MemoryCgroup, Points, running
from tests.unit.supervisor.test_journal import ENDPOINT, TASK

BOUNDED = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
SPEC = specification(Path("rootfs"), ["/app"], "/space/app")
EXEC = json.dumps(SPEC["process"]).encode()
LAYER = {"mediaType": "application/wasm", "digest": "sha256:00", "size": 3, "annotations": {"title": "app.wasm"}}
MANIFEST = {"schemaVersion": 2, "layers": [LAYER, LAYER], "manifests": [{"digest": "sha256:01", "size": 9}]}

DECODERS: list[Decoder[Any]] = [
    *(fork_server.decode_request, fork_server.decode_event, jailer.decode_request, jailer.decode_reply),
    *(worker.decode_event, worker.decode_answer, worker.decode_order, worker.decode_layers, worker.decode_files),
    *(plans.decode_jail_plan, plans.decode_worker_plan, journal.decode_record),
]
MESSAGES: list[Any] = [
    *(fork_server.Hello(3), fork_server.Spawn("key", "new", "/cgroup"), fork_server.Follow("key", 7)),
    *(fork_server.Spawned("key", 7, 9), fork_server.Exited("key", 7, 9, 1)),
    *(worker.Ready([15]), worker.Error(3, "no"), plans.NativeCommand("/bundle", ["runc"]), TASK, ENDPOINT),
]
REQUESTS: list[Any] = [
    *(api.StartRequest(id="app"), api.StateRequest(id="app"), api.PidsRequest(id="app"), api.WaitRequest(id="none")),
    api.ExecProcessRequest(id="app", exec_id="sh", spec=Packed(value=EXEC)),
    *(api.StartRequest(id="app", exec_id="sh"), api.DeleteRequest(id="app", exec_id="sh")),
    *(api.ResizePtyRequest(id="app"), api.CloseIoRequest(id="app", stdin=True), api.PauseRequest(id="app")),
    api.UpdateTaskRequest(id="app", resources=Packed(value=b'{"memory": {"limit": 1}}')),
    *(api.KillRequest(id="app", signal=9, all=True), api.DeleteRequest(id="app")),
]
#: What kind it is, and its bytes, perhaps torn.
ASKED = st.sampled_from(REQUESTS).flatmap(lambda it: st.tuples(st.just(type(it)), st.just(bytes(it)) | torn(bytes(it))))


@BOUNDED
@given(st.sampled_from(DECODERS), st.sampled_from(MESSAGES).map(encode).flatmap(torn))
def test_torn_messages(decode: Decoder[Any], data: bytes) -> None:
    with suppress(NotAMessage):
        decode(data)


@BOUNDED
@given(st.sampled_from(DECODERS), st.sampled_from(MESSAGES).map(encode).map(json.loads).flatmap(changed))
def test_changed_messages(decode: Decoder[Any], value: Any) -> None:
    with suppress(NotAMessage):
        decode(json.dumps(value).encode())


@BOUNDED
@given(st.sampled_from([TASK, ENDPOINT]).map(encode).map(json.loads).flatmap(changed), st.binary(max_size=9))
def test_records_that_another_version_has_written(value: Any, more: bytes) -> None:
    """Whole by their checksums, of which one is of this version."""
    with tempfile.TemporaryDirectory() as directory:
        Journal(Path(directory)).write(ENDPOINT)
        data = json.dumps(value).encode()
        head = struct.pack("<6sHQII", b"shimd\0", 1, 1, len(data), zlib.crc32(data))
        (Path(directory) / "task-1").write_bytes(head + data + more)
        assert ENDPOINT in list(Journal(Path(directory)).read())


@BOUNDED
@given(st.binary(max_size=400) | torn(keeper.encode(keeper.Packet(keeper.Kind.KEPT, 1, (2, 3), "name"))))
def test_packets_of_a_keeper(data: bytes) -> None:
    with suppress(keeper.NotAPacket):
        keeper.decode(data)


@BOUNDED
@given(changed(MANIFEST))
def test_image_manifests(value: Any) -> None:
    with suppress(ShimdError):
        if isinstance(value, dict) and (layers := descriptors(value, "layers")):
            assert choose(layers, "app.wasm") in layers


@BOUNDED
@given(changed(SPEC) | JSON)
def test_configurations(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bundle = Path(directory)
        (bundle / "config.json").write_text(json.dumps(value))
        cgroup: Any = MemoryCgroup(Points(), systemd=False)
        with suppress(ShimdError):
            spec = oci.load_spec(bundle)
            task_plans.shows_cgroup(spec)
            encode(task_plans.init("app", bundle, spec, [], cgroup, terminal=False).place)


START = (api.StartRequest, bytes(api.StartRequest(id="app")))
KILL = (api.KillRequest, bytes(api.KillRequest(id="app", signal=9, all=True)))


@BOUNDED
@given(st.lists(ASKED, max_size=5))
@example([START, START, KILL, START])
def test_requests(requests: list[tuple[Any, bytes]]) -> None:
    """Errors are shimd's own; and whatever was asked for, the container can be ended."""
    anyio.run(_ask, requests)


async def _ask(requests: list[tuple[Any, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory, anyio.fail_after(30):
        (Path(directory) / "config.json").write_text(json.dumps(SPEC))
        async with running(Path(directory)) as daemon:
            service = TaskService(daemon)
            await service.create(api.CreateTaskRequest(id="app", bundle=directory))
            methods = {type: method for method, type in _methods(service)}
            for kind, data in requests:
                try:
                    with anyio.move_on_after(1):  # of a Wait
                        await methods[kind](strict.parse(kind, data))
                except Exception as error:
                    assert isinstance(error, ValueError) or plain(error) is not None, repr(error)
            if "app" in service.containers:
                with suppress(ShimdError):  # it is dying already
                    await service.kill(api.KillRequest(id="app", signal=9))
                with suppress(ShimdError):
                    await service.wait(api.WaitRequest(id="app"))
                await service.delete(api.DeleteRequest(id="app"))
            assert daemon.fork_server.living == []


def _methods(service: TaskService) -> list[tuple[Any, type]]:
    kinds = {type(request) for request in REQUESTS}
    return [(getattr(service, _name(kind)), kind) for kind in kinds]


def _name(kind: type) -> str:
    names = {"ExecProcessRequest": "exec", "UpdateTaskRequest": "update", "ResizePtyRequest": "resize_pty"}
    return names.get(kind.__name__) or {"CloseIoRequest": "close_io"}.get(kind.__name__) or kind.__name__[:-7].lower()
