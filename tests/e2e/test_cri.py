"""Pods, as the kubelet makes them: containerd's CRI plugin, with runc as the reference."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import guests, images, leftovers
from tests.e2e.box import OURS, Runtime, until
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version, running
from tests.e2e.cri import PAUSE, CriContainerd, Pod, run_pod

_serial = itertools.count()
MakePod = Callable[..., Pod]
ours = pytest.mark.parametrize("runtime", OURS, ids=lambda runtime: runtime.name, indirect=True)


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
        "cgroups": leftovers.cgroups("k8s.io"),
        "namespaces": list((state / "io.containerd.grpc.v1.cri/netns").glob("*")),
        "processes": leftovers.processes_in("k8s.io"),
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
