"""containerd's calls as spans, in containerd's own traces: with containerd's tracing on, and a real collector."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import servers
from tests.e2e import images
from tests.e2e.box import BY_NAME, Box, until
from tests.e2e.conftest import boxes
from tests.e2e.containerd import LAUNCHERS, Containerd, Version, configured, running
from tests.e2e.cri import CGROUPS, CONTAINER, NODE, PAUSE, CriContainerd
from tests.e2e.otlp_sink import Json, Sink, sink
from tests.e2e.spin_app import on_the_newest

pytestmark = on_the_newest
WASMTIME = BY_NAME["wasmtime"]
TASK = "containerd.task.v3.Task"
SERVER = 2


class Traced(Containerd):
    """With the plugins that the others leave out."""

    def _configuration(self) -> str:
        plugins = '"io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",'
        text = super()._configuration()
        assert plugins in text
        return text.replace(plugins, "")


class TracedNode(Traced, CriContainerd):
    """In this machine's network, where the collector is."""

    def _hold(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["sleep", "infinity"])

    def _enter(self) -> list[str]:
        return []

    def _wait_for_network(self) -> None:
        """It is there."""


@contextmanager
def traced(version: Version, archive: Path, **variables: str) -> Iterator[Box]:
    """Of a containerd that has these variables, as its daemon does."""
    with running(version, configured(Traced, variables)) as containerd, boxes(archive) as make:
        yield make(containerd, WASMTIME)


def told(endpoint: str, protocol: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def named(it: Sink, name: str, container: str) -> list[Json]:
    """Spans of calls of a container."""
    return [span for span in it.spans() if span["name"] == name and span["told"].get("shimd.container") == container]


def below(it: Sink, parent: Json) -> list[str]:
    found = [span for span in it.spans() if span.get("parentSpanId") == parent["spanId"]]
    assert all(span["traceId"] == parent["traceId"] for span in found)
    return [span["name"] for span in sorted(found, key=lambda span: int(span["startTimeUnixNano"]))]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_calls_of_containerd(version: Version, archive: Path, protocol: str) -> None:
    """Each in the trace of what containerd does, with the steps to the guest's first instruction."""
    with (
        sink() as it,
        servers.collector(f"http://{it.address}") as endpoints,
        traced(version, archive, **told(endpoints[protocol], protocol)) as box,
    ):
        assert box.run("first", "exit", 7).code == 7
        assert box.run("second", "exit", 0).code == 0
        until(lambda: named(it, f"{TASK}/Delete", "second"), "the last call's span")
        (create,), (start,) = (named(it, f"{TASK}/{name}", "first") for name in ("Create", "Start"))
        assert (create["kind"], create["of"]["service.name"]) == (SERVER, "shimd")
        assert create["told"]["shimd.engine"] == "wasmtime" and create["told"]["shimd.namespace"] == box.namespace
        until(lambda: "exit" in below(it, create), "the span of the exit")
        assert sorted(below(it, create)) == ["compile", "exit", "fork", "world"]
        assert below(it, start) == ["run"]
        (compiling,) = [span for span in it.spans() if span["name"] == "compile"]
        assert below(it, compiling) == ["fork"] and compiling["told"]["program"] == WASMTIME.program
        (again,) = named(it, f"{TASK}/Create", "second")
        until(lambda: "exit" in below(it, again), "the span of the exit")
        assert sorted(below(it, again)) == ["exit", "fork", "world"]  # it was compiled already
        (exit,) = [span for span in it.spans() if span["name"] == "exit" and span["parentSpanId"] == create["spanId"]]
        assert exit["told"]["exit_status"] == "7"
        for call in (create, start):
            (caller,) = [span for span in it.spans() if span["spanId"] == call["parentSpanId"]]
            assert (caller["of"]["service.name"], caller["traceId"]) == ("containerd", call["traceId"])


def test_one_trace_from_the_client_to_the_guest(version: Version, archive: Path, tmp_path: Path) -> None:
    """Of crictl, which begins one; a kubelet's is like that."""
    pause = images.layer({"/pause": (LAUNCHERS / "shimd-pause").read_bytes()})
    images.save(tmp_path / "pause.tar", [images.image(PAUSE, [pause], {"Entrypoint": ["/pause"]})])
    of_node = {"security_context": {"namespace_options": {"network": NODE, "pid": CONTAINER}}}
    metadata = {"name": "pod", "namespace": "default", "uid": "pod", "attempt": 0}
    pod = {"metadata": metadata, "log_directory": str(tmp_path), "linux": {**of_node, "cgroup_parent": f"/{CGROUPS}"}}
    command = [WASMTIME.program, "sleep", "600"]
    app = {"metadata": {"name": "app"}, "image": {"image": WASMTIME.image}, "command": command, "linux": of_node}
    for name, config in (("pod", pod), ("app", app)):
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    with (
        sink() as it,
        servers.collector(f"http://{it.address}") as endpoints,
        running(version, configured(TracedNode, told(endpoints["grpc"], "grpc"))) as node,
    ):
        for image in (archive, tmp_path / "pause.tar"):
            node.import_image(image, "k8s.io")
        place = endpoints["grpc"].removeprefix("http://")
        tracing = ("--enable-tracing", "--tracing-endpoint", place)
        files = (tmp_path / "app.json", tmp_path / "pod.json")
        id = node.crictl(*tracing, "run", "--no-pull", "--runtime", "wasmtime", *files).out.strip()
        until(lambda: named(it, f"{TASK}/Start", id), "the span of the start")
        (start,) = named(it, f"{TASK}/Start", id)
        until(lambda: "run" in below(it, start), "the span of the guest's first instruction")
        start_container = "runtime.v1.RuntimeService/StartContainer"
        until(lambda: names_above(it, start)[-1] == f"cri-tools: {start_container}", "the client's span")
        assert names_above(it, start)[-2] == f"containerd: {start_container}"
        (create,) = named(it, f"{TASK}/Create", id)
        assert create["traceId"] == start["traceId"]
        assert sorted(below(it, create)) == ["compile", "fork", "world"]
        node.crictl("rmp", "-f", "-a")


def names_above(it: Sink, span: Json) -> list[str]:
    """Of the spans that one is below, the nearest first, with the services that they are of."""
    by_id, found = {one["spanId"]: one for one in it.spans()}, []
    while (above := by_id.get(span.get("parentSpanId", ""))) is not None:
        found.append(f"{above['of']['service.name']}: {above['name']}")
        span = above
    return found or ["nothing"]


def test_a_call_that_fails(version: Version, archive: Path) -> None:
    with (
        sink() as it,
        servers.collector(f"http://{it.address}") as endpoints,
        traced(version, archive, **told(endpoints["grpc"], "grpc")) as box,
    ):
        box.detach("stays", "sleep", 600)
        assert box.ctr("tasks", "exec", "--exec-id", "e", "stays", "/nothing.wasm", check=False).code != 0
        until(lambda: len(named(it, f"{TASK}/Start", "stays")) == 2, "the span of the exec")
        (failed,) = [span for span in named(it, f"{TASK}/Start", "stays") if span["told"].get("shimd.exec") == "e"]
        assert failed["told"]["error.type"] == "NOT_FOUND" and failed["status"]["code"] == 2
        assert "/nothing.wasm" in failed["status"]["message"]


def test_a_collector_that_is_away(version: Version, archive: Path) -> None:
    """Apps run; the log has a sentence of it."""
    with traced(version, archive, **told("http://127.0.0.1:1", "http/protobuf")) as box:
        assert box.run("app", "exit", 3).code == 3
        until(lambda: "spans for http://127.0.0.1:1 are lost" in box.containerd.daemon_log(), "a sentence")
        assert box.run("other", "exit", 4).code == 4


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no address"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_BSP_MAX_QUEUE_SIZE": "10",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "20",
            },
            "by the OTEL_ variables",
        ),
    ],
)
def test_wrong_variables_cost_the_spans(version: Version, archive: Path, variables: dict[str, str], words: str) -> None:
    with traced(version, archive, OTEL_SDK_DISABLED="false", **variables) as box:
        assert box.run("app", "exit", 3).code == 3
        assert "spans are not sent" in box.containerd.daemon_log() and words in box.containerd.daemon_log()
