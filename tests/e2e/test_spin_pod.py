"""A Spin application as Kubernetes runs it: pulled from a registry as an OCI artifact, with ``command: ["/"]``."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images, leftovers
from tests.e2e.box import until
from tests.e2e.containerd import REPOSITORY, VERSIONS, running
from tests.e2e.cri import CriContainerd, run_pod
from tests.e2e.http_app import free_port
from tests.e2e.test_cri import left, pod_archive
from tests.e2e.test_http_pod import fetched
from tests.e2e.test_spin_artifact import NAME, push

__all__ = ["pod_archive"]


@pytest.fixture
def node(pod_archive: Path, tmp_path: Path) -> Iterator[CriContainerd]:
    """containerd 2.x, which pulls from a registry on the loopback."""
    port = free_port()
    images.save(tmp_path / "pushed.tar", [push()])
    with running(VERSIONS[-1], CriContainerd) as found:
        registries = found.directory / "registries/_default"
        registries.mkdir(parents=True)
        hosts = f'[host."http://127.0.0.1:{port}"]\ncapabilities = ["pull", "resolve"]\n'
        (registries / "hosts.toml").write_text(hosts)
        found.import_image(pod_archive, "k8s.io")
        command = found.inside(sys.executable, "-m", "tests.e2e.registry", tmp_path / "pushed.tar", port)
        registry = subprocess.Popen(command, cwd=REPOSITORY)
        try:
            yield found
        finally:
            registry.kill()
            registry.wait()


def test_in_a_pod(node: CriContainerd, tmp_path: Path) -> None:
    """At the pod's address, on port 80; its variable is the container's; its store outlives requests."""
    until(lambda: node.crictl("pull", NAME, check=False).code == 0, "the image to be pulled")
    pod = run_pod(node, tmp_path / "pod", "spin")
    id = pod.start("app", NAME, "/", envs=[{"key": "SPIN_VARIABLE_SECRET", "value": "s3cret"}])
    address = json.loads(node.crictl("inspectp", pod.id).out)["status"]["network"]["ip"]
    until(lambda: fetched(pod, f"{address}/counter") == "1", "the app to answer")
    assert fetched(pod, f"{address}/counter") == "2"
    assert json.loads(fetched(pod, f"{address}/variable/greeting")) == "hello, s3cret!"
    assert json.loads(fetched(pod, f"{address}/read/index.html")) == "<h1>hello</h1>"
    node.crictl("stop", "--timeout", "600", id)
    assert pod.status("app")["exitCode"] == 0
    pod.remove()
    assert not leftovers.settled(lambda: left(node))
