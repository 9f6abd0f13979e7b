"""Pods, as the kubelet makes them: containerd's CRI plugin, with runc as the reference."""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import guests, images, leftovers
from tests.e2e.box import Runtime, ours_only, until, wasm_only, with_directories
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version, running
from tests.e2e.cri import CGROUPS, NODE, PAUSE, POD, CriContainerd, Pod, run_pod

_serial = itertools.count()
MakePod = Callable[..., Pod]


@pytest.fixture(scope="session")
def pod_archive(programs: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "pods.tar"
    pause = images.layer({"/pause": (LAUNCHERS / "shimd-pause").read_bytes()})
    images.save(path, [*guests.standard(*programs), images.image(PAUSE, [pause], {"Entrypoint": ["/pause"]})])
    return path


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    return found


@pytest.fixture(scope="module")
def node(version: Version, pod_archive: Path) -> Iterator[CriContainerd]:
    with running(version, CriContainerd) as node:
        node.import_image(pod_archive, "k8s.io")
        yield node


@pytest.fixture
def own_node(version: Version, pod_archive: Path) -> Iterator[CriContainerd]:
    """For tests that stop it."""
    with running(version, CriContainerd) as node:
        node.import_image(pod_archive, "k8s.io")
        yield node


@pytest.fixture
def pod(node: CriContainerd, runtime: Runtime, tmp_path: Path) -> Iterator[MakePod]:
    """Makes pods, and sees that nothing of them is left."""
    with ExitStack() as stack:

        def make(**more: Any) -> Pod:
            name = f"pod{next(_serial)}"
            pod = run_pod(node, tmp_path / name, runtime.handler, name, **more)
            stack.callback(pod.remove)
            return pod

        yield make
    assert not leftovers.settled(lambda: left(node))


def left(node: CriContainerd) -> dict[str, object]:
    state = node.directory / "state"
    seen = {
        "bundles": node.bundles("k8s.io"),
        "mounts": [point for point in leftovers.mounts(str(state)) if "/sandboxes/" in point or "rootfs" in point],
        "cgroups": leftovers.cgroups(CGROUPS),
        "namespaces": list((state / "io.containerd.grpc.v1.cri/netns").glob("*")),
        "processes": leftovers.processes_in(CGROUPS),
    }
    return {kind: things for kind, things in seen.items() if things}


def ended(pod: Pod, name: str) -> dict[str, Any]:
    until(lambda: pod.status(name)["state"] == "CONTAINER_EXITED", f"{name} to end")
    return pod.status(name)


def namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def test_to_completion(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    one.start("app", runtime.image)
    status = ended(one, "app")
    assert (status["exitCode"], status["reason"]) == (0, "Completed")
    assert one.log("app") == "hello from app\n"


def test_an_exit_code(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    one.start("app", runtime.image, runtime.program, "exit", 7)
    status = ended(one, "app")
    assert (status["exitCode"], status["reason"]) == (7, "Error")


def test_env_and_arguments(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    one.start("env", runtime.image, runtime.program, "env", envs=[{"key": "GREETING", "value": "hi"}])
    one.start("echo", runtime.image, args=["echo", "one", "two words"])
    assert ended(one, "env")["exitCode"] == ended(one, "echo")["exitCode"] == 0
    assert "GREETING=hi" in one.log("env").splitlines()
    assert one.log("echo") == "one two words\n"


@wasm_only
def test_term_ends_a_spinning_guest(pod: MakePod, runtime: Runtime) -> None:
    """Long before the grace period is over: KILL would be 137."""
    one = pod()
    id = one.start("app", runtime.image, runtime.program, "spin")
    until(lambda: one.log("app") == "spinning\n", "the app to spin")
    one.node.crictl("stop", "--timeout", "600", id)
    assert one.status("app")["exitCode"] == 128 + signal.SIGTERM


def test_kill_after_the_grace_period(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    id = one.start("app", runtime.image, runtime.program, "sleep", 600)
    one.node.crictl("stop", "--timeout", "0", id)
    assert one.status("app")["exitCode"] == 128 + signal.SIGKILL


def test_containers_share_the_pods_namespaces(pod: MakePod, runtime: Runtime) -> None:
    one = pod(hostname="a-pod")
    for name in ("first", "second"):
        one.start(name, runtime.image, runtime.program, "sleep", 600)
    pids = [one.sandbox()["info"]["pid"], one.pid("first"), one.pid("second"), one.node.pid]
    for kind in ("net", "ipc", "uts"):
        first, second, third, host = (namespace(pid, kind) for pid in pids)
        assert first == second == third != host, kind
    assert len({namespace(pid, "pid") for pid in pids}) == len({namespace(pid, "mnt") for pid in pids}) == 4


@ours_only
def test_a_wasm_app_and_a_native_sidecar(pod: MakePod, runtime: Runtime) -> None:
    """In one pod, whatever the kind of the other; detected by the program, with no annotation."""
    one = pod()
    one.start("wasm", guests.WASM, "/app.wasm", "sleep", 600)
    one.start("native", guests.NATIVE, "/app", "sleep", 600)
    assert namespace(one.pid("wasm"), "net") == namespace(one.pid("native"), "net")
    assert os.readlink(f"/proc/{one.pid('native')}/exe") == "/app"
    assert os.readlink(f"/proc/{one.pid('wasm')}/exe") != "/app"
    assert one.exec("native", "/app", "echo", "from the sidecar").out.strip() == "from the sidecar"


@ours_only
def test_no_pause_program_of_an_image_runs(pod: MakePod, runtime: Runtime) -> None:
    pid = pod().sandbox()["info"]["pid"]
    until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("/shimd-pause"), "the sandbox to wait")
    assert os.listdir(f"/proc/{pid}/root/") == []
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert (status["CapEff"], status["NoNewPrivs"]) == ("0" * 16, "1")
    assert os.listdir(f"/proc/{pid}/fd") == []


def exits(pod: Pod) -> list[dict[str, Any]]:
    """The exit events of a pod's sandbox."""
    lines = [line.split(" ", 6) for line in pod.node.events_log.read_text().splitlines()]
    found = [json.loads(line[6]) for line in lines if len(line) == 7 and line[5] == "/tasks/exit"]
    return [event for event in found if event["container_id"] == pod.id]


def test_the_sandbox_ends_with_zero_on_term(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    os.kill(one.sandbox()["info"]["pid"], signal.SIGTERM)
    until(lambda: one.sandbox()["status"]["state"] == "SANDBOX_NOTREADY", "the sandbox to end")
    if not runtime.reference:  # once Wait is answered its shim is told to end, and drops an event that it has not sent
        until(lambda: exits(one), "its exit to be told")
    assert all(exit.get("exit_status", 0) == 0 for exit in exits(one))


def test_a_shared_pid_namespace(pod: MakePod, runtime: Runtime) -> None:
    """Process 1 is the sandbox; an app's end is nobody else's."""
    namespaces = {"security_context": {"namespace_options": {"pid": POD}}}
    one = pod(linux=namespaces)
    for name in ("first", "second"):
        one.start(name, runtime.image, runtime.program, "sleep", 600, linux=namespaces)
    pids = [one.sandbox()["info"]["pid"], one.pid("first"), one.pid("second")]
    assert len({namespace(pid, "pid") for pid in pids}) == 1
    assert one.exec("first", runtime.program, "echo", "here").out.strip() == "here"
    one.node.crictl("stop", "--timeout", "600", one.containers["first"])  # not process 1: TERM has its default action
    assert one.status("first")["exitCode"] == 128 + signal.SIGTERM
    assert one.status("second")["state"] == "CONTAINER_RUNNING"


def test_the_hosts_network(pod: MakePod, runtime: Runtime) -> None:
    namespaces = {"security_context": {"namespace_options": {"network": NODE}}}
    one = pod(linux=namespaces)
    one.start("app", runtime.image, runtime.program, "sleep", 600, linux=namespaces)
    assert namespace(one.pid("app"), "net") == namespace(one.node.pid, "net")


def test_exec(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    id = one.start("app", runtime.image, runtime.program, "sleep", 600)
    assert one.exec("app", runtime.program, "echo", "inside").out.strip() == "inside"
    assert "exited with 3" in one.exec("app", runtime.program, "exit", 3).err
    assert one.node.crictl("exec", id, runtime.program, "echo", "streamed").out == "streamed\n"


def test_metrics(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    id = one.start("app", runtime.image, runtime.program, "spin")
    (stats,) = json.loads(one.node.crictl("stats", "-o", "json", "--id", id).out)["stats"]
    assert int(stats["memory"]["workingSetBytes"]["value"]) > 0
    assert int(stats["cpu"]["usageCoreNanoSeconds"]["value"]) > 0


def test_out_of_memory(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    limits = {"resources": {"memory_limit_in_bytes": 64 << 20}}
    one.start("app", runtime.image, runtime.program, "allocate", 512, linux=limits)
    status = ended(one, "app")
    assert (status["exitCode"], status["reason"]) == (137, "OOMKilled")


@with_directories
def test_volumes(pod: MakePod, runtime: Runtime, tmp_path: Path) -> None:
    one = pod()
    tmp_path.chmod(0o755)
    (tmp_path / "note").write_text("from the node\n")
    mount = {"container_path": "/mnt", "host_path": str(tmp_path)}
    one.start("read", runtime.image, runtime.program, "read", "/mnt/note", mounts=[{**mount, "readonly": True}])
    one.start("denied", runtime.image, runtime.program, "write", "/mnt/x", "text", mounts=[{**mount, "readonly": True}])
    one.start("write", runtime.image, runtime.program, "write", "/mnt/new", "text", mounts=[mount])
    assert [ended(one, name)["exitCode"] for name in ("read", "denied", "write")] == [0, 1, 0]
    assert one.log("read") == "from the node\n"
    assert (tmp_path / "new").read_text() == "text\n"
    assert not (tmp_path / "x").exists()


@with_directories
def test_a_shared_volume(pod: MakePod, runtime: Runtime, tmp_path: Path) -> None:
    """What one container writes, native or not, another reads: an emptyDir."""
    one = pod()
    mount = [{"container_path": "/mnt", "host_path": str(tmp_path)}]
    one.start("writer", guests.NATIVE, "/app", "write", "/mnt/x", "from next door", mounts=mount)
    assert ended(one, "writer")["exitCode"] == 0
    one.start("reader", runtime.image, runtime.program, "read", "/mnt/x", mounts=mount)
    ended(one, "reader")
    assert one.log("reader").startswith("from next door")


@with_directories
def test_a_read_only_root(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    sealed = {"security_context": {"readonly_rootfs": True}}
    one.start("app", runtime.image, runtime.program, "write", "/tmp/x", "text", linux=sealed)
    assert ended(one, "app")["exitCode"] == 1


def test_the_user(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    user = {"security_context": {"run_as_user": {"value": 1234}, "run_as_group": {"value": 99}}}
    one.start("app", runtime.image, runtime.program, "sleep", 600, linux=user)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{one.pid('app')}/status").read_text().splitlines())
    assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("1234", "99")


@with_directories
def test_sysctls_are_the_pods(pod: MakePod, runtime: Runtime) -> None:
    name = "net.ipv4.ip_unprivileged_port_start"
    one = pod(linux={"sysctls": {name: "1023"}})
    one.start("app", runtime.image, runtime.program, "read", f"/proc/sys/{name.replace('.', '/')}")
    ended(one, "app")
    assert one.log("app") == "1023\n"


def test_a_working_directory(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    one.start("app", runtime.image, runtime.program, "env", working_dir="/data")
    assert ended(one, "app")["exitCode"] == 0


def test_pods_outlive_containerd(own_node: CriContainerd, runtime: Runtime, tmp_path: Path) -> None:
    node = own_node
    one = run_pod(node, tmp_path / "pod", runtime.handler)
    one.start("app", runtime.image, runtime.program, "tick")
    sandbox, pid = one.sandbox()["info"]["pid"], one.pid("app")
    node.restart(signal.SIGKILL)
    until(lambda: node.crictl("pods", check=False).code == 0, "CRI to answer")
    assert one.sandbox()["status"]["state"] == "SANDBOX_READY"
    assert (one.sandbox()["info"]["pid"], one.pid("app")) == (sandbox, pid)
    assert one.status("app")["state"] == "CONTAINER_RUNNING"
    written = one.log("app")
    until(lambda: len(one.log("app")) > len(written), "the log to go on")
    one.node.crictl("stop", "--timeout", "0", one.containers["app"])
    assert one.status("app")["exitCode"] == 137
    one.remove()
    assert not leftovers.settled(lambda: left(node))


def test_many_pods_at_once(node: CriContainerd, runtime: Runtime, tmp_path: Path) -> None:
    names = [f"many{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        pods = list(pool.map(lambda name: run_pod(node, tmp_path / name, runtime.handler, name), names))
        list(pool.map(lambda one: one.start("app", runtime.image), pods))
        assert [ended(one, "app")["exitCode"] for one in pods] == [0] * len(pods)
        list(pool.map(Pod.remove, pods))
    assert not leftovers.settled(lambda: left(node))


@wasm_only
def test_what_ps_says(pod: MakePod, runtime: Runtime) -> None:
    one = pod()
    one.start("wasm", guests.WASM, "/app.wasm", "sleep", 600)
    one.start("native", guests.NATIVE, "/app", "sleep", 600)
    done = subprocess.run([LAUNCHERS / "shimd", "ps", "--json"], env=one.node.env, capture_output=True, check=True)
    tasks = {
        task["pod"]["container"]: task for task in json.loads(done.stdout) if task["pod"]["name"].startswith("pod")
    }
    engines = {name: task["engine"] for name, task in tasks.items()}
    assert engines == {"": "sandbox", "wasm": runtime.name, "native": "native"}


@wasm_only
def test_an_image_for_wasi_wasm(pod: MakePod, runtime: Runtime) -> None:
    """Of a platform that is not the node's."""
    one = pod()
    one.start("app", guests.WASI)
    assert ended(one, "app")["exitCode"] == 0
    assert one.log("app") == "hello from app\n"
