"""Servers in pods: the example of ``contrib/examples/http-server``, reached as clients in a cluster reach it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import wasmer
from tests.e2e import images, leftovers
from tests.e2e.box import until
from tests.e2e.containerd import LAUNCHERS, REPOSITORY, Version, running
from tests.e2e.cri import CriContainerd, Pod, run_pod
from tests.e2e.test_cri import left, pod_archive, version

__all__ = ["pod_archive", "version"]
IMAGE = "test.invalid/server:1"
SOURCE = REPOSITORY / "contrib/examples/http-server/server.c"
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"


@pytest.fixture
def node(version: Version, pod_archive: Path, tmp_path: Path) -> Iterator[CriContainerd]:
    program = tmp_path / "server.wasm"
    subprocess.run(["clang", "--target=wasm32-wasi", "-O2", "-o", program, SOURCE], check=True)
    contents = images.layer({"/server.wasm": program.read_bytes(), "/busybox": Path("/bin/busybox").read_bytes()})
    process = {"Entrypoint": ["/server.wasm"], "Env": ["PATH=/"]}
    images.save(tmp_path / "server.tar", [images.image(IMAGE, [contents], process)])
    with running(version, CriContainerd) as node:
        for archive in (pod_archive, tmp_path / "server.tar"):
            node.import_image(archive, "k8s.io")
        yield node


def fetched(pod: Pod, address: str) -> str:
    """What a client on the node gets."""
    command = pod.node.inside(sys.executable, "-c", FETCH, f"http://{address}:8080/")
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def test_a_server_in_a_pod(node: CriContainerd, tmp_path: Path) -> None:
    """From the node at the pod's address, from a native sidecar on localhost; and it ends on TERM."""
    pod = run_pod(node, tmp_path / "pod", "wasmer")
    id = pod.start("server", IMAGE)
    until(lambda: pod.log("server") == "listening on port 8080\n", "the server to listen")
    address = json.loads(node.crictl("inspectp", pod.id).out)["status"]["network"]["ip"]
    assert [fetched(pod, address) for _ in range(5)] == ["hello from WebAssembly!\n"] * 5
    assert fetched(pod, "127.0.0.1") == "", "it listens in its pod, not on the node"
    pod.start("sidecar", IMAGE, "/busybox", "sleep", 600)
    said = pod.exec("sidecar", "/busybox", "wget", "-q", "-O", "-", "http://localhost:8080/")
    assert said.out.strip() == "hello from WebAssembly!"
    node.crictl("stop", "--timeout", "600", id)
    assert pod.status("server")["exitCode"] == 143
    pod.remove()
    assert not leftovers.settled(lambda: left(node))


def test_two_pods_with_the_same_port(node: CriContainerd, tmp_path: Path) -> None:
    pods = [run_pod(node, tmp_path / name, "wasmer", name) for name in ("one", "two")]
    for pod in pods:
        pod.start("server", IMAGE)
    for pod in pods:
        until(lambda pod=pod: pod.log("server").startswith("listening"), "the server to listen")  # type: ignore[misc]
    addresses = [json.loads(node.crictl("inspectp", pod.id).out)["status"]["network"]["ip"] for pod in pods]
    assert addresses[0] != addresses[1]
    assert [fetched(pod, address) for pod, address in zip(pods, addresses, strict=True)] == [
        "hello from WebAssembly!\n"
    ] * 2
    for pod in pods:
        pod.remove()


@pytest.mark.parametrize("engine", wasmer.BINDINGS)
@pytest.mark.parametrize(("flags", "said"), [([], "cannot listen"), (["--network"], "listening on port 8080")])
def test_shimd_run_has_a_network_only_if_asked_for(tmp_path: Path, flags: list[str], said: str, engine: str) -> None:
    program = tmp_path / "server.wasm"
    subprocess.run(["clang", "--target=wasm32-wasi", "-O2", "-o", program, SOURCE], check=True)
    run = [str(LAUNCHERS / "shimd"), "run", "--engine", engine, *flags, str(program)]
    command = ["unshare", "--net", *run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(said)
        process.terminate()
