"""HTTP apps in pods, beside what is native."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.box import until
from tests.e2e.containerd import Version, running
from tests.e2e.cri import CriContainerd, Pod, run_pod
from tests.e2e.http_app import IMAGE, archive
from tests.e2e.test_cri import left, pod_archive, version

__all__ = ["pod_archive", "version"]
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"


@pytest.fixture
def node(version: Version, pod_archive: Path, tmp_path: Path) -> Iterator[CriContainerd]:
    with running(version, CriContainerd) as node:
        node.import_image(pod_archive, "k8s.io")
        node.import_image(archive(tmp_path / "http.tar"), "k8s.io")
        yield node


def fetched(pod: Pod, address: str) -> str:
    command = pod.node.inside(sys.executable, "-c", FETCH, f"http://{address}")
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def test_in_a_pod(node: CriContainerd, tmp_path: Path) -> None:
    """At the pod's address, with a native sidecar; ended by TERM, with 0, since it finishes what it has begun."""
    pod = run_pod(node, tmp_path / "pod", "wasmtime")
    id = pod.start("server", IMAGE)
    address = json.loads(node.crictl("inspectp", pod.id).out)["status"]["network"]["ip"]
    until(lambda: fetched(pod, f"{address}:8080/").startswith("hello"), "the app to answer")
    about = json.loads(fetched(pod, f"{address}:8080/about"))
    assert about["environ"]["FROM_IMAGE"] == "yes"
    assert fetched(pod, f"{address}:8080/read?path=/data/note") == "a note\n"
    pod.start("sidecar", IMAGE, "/busybox", "sleep", 600)
    said = pod.exec("sidecar", "/busybox", "wget", "-q", "-O", "-", "http://localhost:8080/")
    assert said.out.strip() == "hello from a component"
    node.crictl("stop", "--timeout", "600", id)
    assert pod.status("server")["exitCode"] == 0
    pod.remove()
    assert not leftovers.settled(lambda: left(node))
