"""A Slight application in a pod, beside a native container."""

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
from tests.e2e.test_slight import SLIGHT, SLIGHTFILE, image
from tests.slight.build import guest

__all__ = ["pod_archive", "version"]
#: As contrib/kubernetes/examples/slight.yaml has it.
RESTRICTED = {
    "run_as_user": {"value": 65532},
    "readonly_rootfs": True,
    "no_new_privs": True,
    "capabilities": {"drop_capabilities": ["ALL"]},
    "seccomp": {"profile_type": 0},
}
ASK = """
import sys, urllib.request as r
print(r.urlopen(r.Request(sys.argv[2], method=sys.argv[1], data=b"one"), timeout=10).read().decode(), end='')"""


@pytest.fixture
def node(version: Version, pod_archive: Path, tmp_path: Path) -> Iterator[CriContainerd]:
    with running(version, CriContainerd) as node:
        node.import_image(pod_archive, "k8s.io")
        node.import_image(archive(tmp_path / "http.tar"), "k8s.io")
        node.import_image(image(tmp_path / "slight.tar", SLIGHTFILE, guest("app")), "k8s.io")
        yield node


def asked(pod: Pod, method: str, url: str) -> str:
    command = pod.node.inside(sys.executable, "-c", ASK, method, url)
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def test_in_a_pod(node: CriContainerd, tmp_path: Path) -> None:
    """Manifests say ``command: ["/"]``, as for Slight's own shim. The guest names the port; there is no network but the
    pod's, and a native sidecar shares it."""
    pod = run_pod(node, tmp_path / "pod", "slight")
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    volume = [{"host_path": str(tmp_path / "state"), "container_path": "/tmp"}]
    id = pod.start("app", SLIGHT.image, "/", linux={"security_context": RESTRICTED}, mounts=volume)
    address = f"http://{pod.sandbox()['status']['network']['ip']}:3000"
    until(lambda: asked(pod, "GET", f"{address}/hello") == "hello 1", "the app to answer")
    asked(pod, "PUT", f"{address}/kv/files/a")
    assert asked(pod, "GET", f"{address}/kv/files/a") == "one"
    pod.start("sidecar", IMAGE, "/busybox", "sleep", 600)
    said = pod.exec("sidecar", "/busybox", "wget", "-q", "-O", "-", "http://localhost:3000/kv/files/a")
    assert said.out.strip() == "one"
    assert pod.log("app") == "starting the server\n"
    node.crictl("stop", "--timeout", "600", id)
    assert pod.status("app")["exitCode"] == 0
    pod.remove()
    assert not leftovers.settled(lambda: left(node))
