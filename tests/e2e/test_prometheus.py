"""The daemon in numbers: as Prometheus scrapes them, and as its checker wants them."""

import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shimd.engines.wasmtime import NATIVE
from tests import servers
from tests.certificates import Certificates, both
from tests.e2e import spin_app
from tests.e2e.box import BY_NAME, Box, Runtime, until
from tests.e2e.conftest import boxes
from tests.e2e.containerd import Containerd, Version, configured, running
from tests.e2e.http_app import free_port
from tests.e2e.spin_app import PORTABLE_SPIN, SPIN, image, on_the_newest

pytestmark = on_the_newest
WASMTIME = BY_NAME["wasmtime"]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def measured(version: Version, archive: Path, runtime: Runtime = WASMTIME, /, **settings: str) -> Iterator[Box]:
    """Of a containerd whose daemon has these variables."""
    with running(version, configured(Containerd, settings)) as containerd, boxes(archive) as make:
        yield make(containerd, runtime)


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def box(version: Version, address: str, archive: Path) -> Iterator[Box]:
    with measured(version, archive, SHIMD_METRICS_ADDR=address) as box:
        yield box


def scraped(address: str) -> str:
    answer = httpx.get(f"http://{address}/metrics", timeout=30, trust_env=False)
    assert answer.status_code == 200
    return answer.text


def samples(text: str) -> Samples:
    """By names and labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((name, frozenset(labels.items())))


def test_what_becomes_of_tasks(box: Box, address: str) -> None:
    box.detach("stays", "sleep", 600)
    for number, code in enumerate((0, 7, 7)):
        assert box.run(f"app{number}", "exit", code).code == code
    assert box.ctr("tasks", "exec", "--exec-id", "e", "stays", box.runtime.program, "echo", "hi").out == "hi\n"
    of = {"engine": "wasmtime"}
    until(lambda: value(scraped(address), "shimd_workers", **of) == 1, "the worker of the exec to be gone")
    text = scraped(address)
    assert value(text, "shimd_tasks", namespace=box.namespace, state="running", **of) == 1
    assert value(text, "shimd_task_starts_total", **of) == 4
    assert value(text, "shimd_task_exits_total", code="0", **of) == 1
    assert value(text, "shimd_task_exits_total", code="7", **of) == 2
    assert value(text, "shimd_task_call_duration_seconds_count", method="Create", **of) == 4
    assert value(text, "shimd_task_call_duration_seconds_count", method="Start", **of) == 5
    assert value(text, "shimd_task_call_duration_seconds_count", method="Delete", **of) == 4
    assert value(text, "shimd_task_call_duration_seconds_count", method="Wait", **of) is None
    assert value(text, "shimd_compile_duration_seconds_count", **of) == 1
    assert value(text, "shimd_compilations", state="running") == 0
    assert value(text, "shimd_module_cache_misses_total") == 1
    assert value(text, "shimd_module_cache_hits_total") == 4
    assert value(text, "shimd_module_cache_modules") == 1
    size, forks = value(text, "shimd_module_cache_size_bytes"), value(text, "shimd_fork_duration_seconds_count", **of)
    assert size is not None and size > 0 and forks is not None and forks >= 5
    (dropped,) = (it for (name, _labels), it in samples(text).items() if name == "shimd_events_dropped_total")
    assert dropped == 0


def test_calls_that_fail(box: Box, address: str) -> None:
    box.detach("stays", "sleep", 600)
    assert box.ctr("tasks", "exec", "--exec-id", "e", "stays", "/nothing.wasm", check=False).code != 0
    assert (
        value(scraped(address), "shimd_task_call_errors_total", engine="wasmtime", method="Start", code="NOT_FOUND")
        == 1
    )


def test_what_runs(box: Box, address: str) -> None:
    box.detach("stays", "sleep", 600)
    text = scraped(address)
    daemon = box.containerd.daemon_pid()
    (build,) = (dict(labels) for (name, labels) in samples(text) if name == "shimd_build_info")
    assert build["version"] and build["release"] and build["python"].startswith("3.")
    (server,) = (dict(labels) for (name, labels) in samples(text) if name == "shimd_fork_servers")
    assert (server["engine"], server["state"], server["release"]) == ("wasmtime", "current", build["release"])
    started = value(text, "shimd_fork_server_start_time_seconds", engine="wasmtime")
    own = value(text, "process_start_time_seconds")
    assert started is not None and own is not None and started >= own - 1
    descriptors = value(text, "process_open_fds")
    assert descriptors is not None and 0 < descriptors <= len(list(Path(f"/proc/{daemon}/fd").iterdir())) + 5
    until(lambda: (value(scraped(address), "shimd_event_loop_lag_seconds_count") or 0) > 0, "a look at the event loop")


def test_the_page_about_them(box: Box, address: str) -> None:
    """It has all, and no other."""
    box.detach("stays", "sleep", 600)
    assert box.run("app", "exit", 1).code == 1
    found = {family.name for family in text_string_to_metric_families(scraped(address))}
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    told = {name.removesuffix("_total") for name in re.findall(r"`((?:shimd|process)_[a-z_]+)`", page)}
    rare = {"shimd_task_oom_kills", "shimd_task_call_errors"}
    assert {name for name in found if name.startswith("shimd_")} | rare == {
        it for it in told if it.startswith("shimd_")
    }
    assert told <= found | rare


ROUTES = """
spin_manifest_version = 2
application = { name = "counted" }
[[trigger.http]]
route = "/it/..."
component = "it"
[component.it]
source = "app.wasm"
"""


@pytest.mark.parametrize("runtime", [SPIN, PORTABLE_SPIN] if NATIVE else [SPIN], ids=lambda it: it.name)
def test_requests_of_an_app(version: Version, archive: Path, address: str, tmp_path: Path, runtime: Runtime) -> None:
    """It counts them itself, whichever host serves."""
    with measured(version, archive, runtime, SHIMD_METRICS_ADDR=address) as box:
        box.ctr("images", "import", str(image(tmp_path / "counted.tar", SPIN.image, ROUTES)))
        idle = (WASMTIME.image, "idle", WASMTIME.program, "sleep", 600)
        box.ctr("run", "-d", "--null-io", "--runtime", WASMTIME.type, *idle)
        with spin_app.running(box) as app:
            assert [app.get("/it/about").status_code for _ in range(3)] == [200] * 3
            assert [app.get(path).status_code for path in ("/nowhere", "/it/missing")] == [404, 500]
            text = scraped(address)
        of = {"namespace": box.namespace, "container": "app", "pod": "", "pod_namespace": "", "engine": runtime.name}
        answers = {kind: value(text, "shimd_http_requests_total", status=kind, **of) for kind in ("2xx", "4xx", "5xx")}
        assert answers["4xx"] == 1 and answers["5xx"] == 1 and (answers["2xx"] or 0) >= 3
        counted = sum(count or 0 for count in answers.values())
        assert value(text, "shimd_http_request_duration_seconds_count", **of) == counted
        assert value(text, "shimd_http_request_duration_seconds_bucket", le="+Inf", **of) == counted
        slowest = value(text, "shimd_http_request_duration_seconds_sum", **of)
        assert slowest is not None and slowest > 0
        containers = {dict(labels).get("container") for name, labels in samples(text) if name.startswith("shimd_http")}
        assert containers == {"app"}


def test_a_real_prometheus(box: Box, address: str) -> None:
    box.detach("stays", "sleep", 600)
    checked = subprocess.run(["promtool", "check", "metrics"], input=scraped(address), capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    with servers.prometheus(address) as prometheus:

        def asked(query: str) -> list[str]:
            url = f"{prometheus}/api/v1/query"
            found = httpx.get(url, params={"query": query}, timeout=30, trust_env=False).json()
            return [it["value"][1] for it in found["data"]["result"]]

        until(lambda: asked('shimd_tasks{state="running"}') == ["1"], "the task to be scraped")
        assert asked("up") == ["1"]
        assert asked("sum(shimd_task_call_duration_seconds_count{method='Create'})") == ["1"]


def test_a_daemon_that_dies(box: Box, address: str) -> None:
    """The next one goes on with what is there; its counts begin anew."""
    box.detach("stays", "sleep", 600)
    box.containerd.stop_daemon()
    until(lambda: _answers(address) == 0, "the next daemon to be asked")
    assert value(scraped(address), "shimd_tasks", namespace=box.namespace, state="running", engine="wasmtime") == 1


def _answers(address: str) -> float | None:
    """The starts that a daemon has counted; ``None``: none is there."""
    try:
        text = scraped(address)
    except httpx.TransportError:
        return None
    return sum(it for (name, _labels), it in samples(text).items() if name == "shimd_task_starts_total")


def test_clients_that_say_nothing(box: Box, address: str) -> None:
    """They are few at a time, and the daemon has its descriptors for apps."""
    box.detach("stays", "sleep", 600)
    pid = box.containerd.daemon_pid()
    host, _, port = address.rpartition(":")
    before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection((host, int(port))))
        until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) <= before + 20, "those too many to be closed")
        assert box.run("app", "exit", 3).code == 3
    until(lambda: _answers(address) == 2, "an answer")


def test_what_is_no_socket_is_not_removed(version: Version, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    with measured(version, archive, SHIMD_METRICS_ADDR=f"unix:{path}") as box:
        assert box.run("app", "exit", 3).code == 3
        until(lambda: "metrics cannot be asked for" in box.containerd.daemon_log(), "a sentence")
    assert path.read_text() == "precious"


def test_a_unix_socket(version: Version, tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "metrics.sock"
    with measured(version, archive, SHIMD_METRICS_ADDR=f"unix:{path}") as box:
        box.detach("stays", "sleep", 600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=30) as client:
            text = client.get("http://shimd/metrics").text
        assert value(text, "shimd_task_starts_total", engine="wasmtime") == 1


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Certificates, Certificates]:
    return both(tmp_path)


def test_tls(version: Version, address: str, archive: Path, pairs: tuple[Certificates, Certificates]) -> None:
    """Who has no certificate is told nothing, and keeps nobody else waiting."""
    server, client = pairs
    settings = {
        "SHIMD_METRICS_ADDR": address,
        "SHIMD_METRICS_CERT": str(server.certificate),
        "SHIMD_METRICS_KEY": str(server.key),
        "SHIMD_METRICS_CLIENT_CA": str(client.authority),
    }
    with measured(version, archive, **settings) as box:
        box.detach("stays", "sleep", 600)
        flags = ["--silent", "--show-error", "--cacert", str(server.authority), "--max-time", "30"]
        known = ["--cert", str(client.certificate), "--key", str(client.key)]
        url = f"https://{address}/metrics"
        assert subprocess.run(["curl", *flags, url], capture_output=True).returncode != 0
        with subprocess.Popen(["openssl", "s_client", "-connect", address], stdin=-1, stdout=-3, stderr=-3) as slow:
            done = subprocess.run(["curl", *flags, *known, url], capture_output=True, text=True)
            slow.kill()
        assert value(done.stdout, "shimd_task_starts_total", engine="wasmtime") == 1


@pytest.mark.parametrize("wrong", ["nonsense", "0.0.0.0:9464"])
def test_a_wrong_address_costs_the_metrics(version: Version, archive: Path, wrong: str) -> None:
    with measured(version, archive, SHIMD_METRICS_ADDR=wrong) as box:
        assert box.run("app", "exit", 3).code == 3
        assert f"metrics are not served: SHIMD_METRICS_ADDR={wrong}" in box.containerd.daemon_log()


def test_a_port_that_is_taken(version: Version, archive: Path, address: str) -> None:
    """Tasks run meanwhile; it is had as soon as it is free."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_server((host, int(port))) as other,
        measured(version, archive, SHIMD_METRICS_ADDR=address) as box,
    ):
        box.detach("stays", "sleep", 600)
        until(lambda: "metrics cannot be asked for" in box.containerd.daemon_log(), "a sentence")
        other.close()
        until(lambda: _answers(address) == 1, "metrics")
