"""What a user of Kubernetes sees: pods by their RuntimeClass, runc's as the reference, beside one another."""

import json
import os
import random
import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e import guests
from tests.e2e.box import RUNTIMES, WASM, Runtime
from tests.e2e.leftovers import settled
from tests.kubernetes.cluster import Cluster, until

every = pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
wasm = pytest.mark.parametrize("runtime", WASM, ids=lambda runtime: runtime.name)
#: Those whose guests see the node's directories (wasmer-sdk's get copies).
with_directories = pytest.mark.parametrize("runtime", RUNTIMES[:3], ids=lambda runtime: runtime.name)
Json = dict[str, Any]


def container(runtime: Runtime, *app: object, name: str = "app", **more: Any) -> Json:
    command = {"command": [runtime.program, *map(str, app)]} if app else {}
    return {"name": name, "image": runtime.image, "imagePullPolicy": "Never", **command, **more}


def pod(name: str, runtime: Runtime, *containers: Json, **spec: Any) -> Json:
    handler = {} if runtime.reference else {"runtimeClassName": runtime.handler}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": containers, "restartPolicy": "Never", **handler, **spec},
    }


def exit_of(status: Mapping[str, Any], container: int = 0) -> tuple[int, str]:
    ended = status["containerStatuses"][container]["state"]["terminated"]
    return ended["exitCode"], ended["reason"]


@every
def test_to_completion(cluster: Cluster, runtime: Runtime) -> None:
    cluster.apply(pod("hello", runtime, container(runtime)))
    assert exit_of(cluster.wait_phase("hello", "Succeeded")) == (0, "Completed")
    assert cluster.kubectl("logs", "hello").out == "hello from app\n"


@every
def test_a_crash_loop_shows_its_exit_code(cluster: Cluster, runtime: Runtime) -> None:
    cluster.apply(pod("crash", runtime, container(runtime, "exit", 7), restartPolicy="Always"))
    until(lambda: restarts(cluster, "crash") >= 1, "a restart", cluster)
    last = cluster.pod("crash")["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (7, "Error")


def restarts(cluster: Cluster, name: str) -> int:
    found = cluster.pod(name).get("containerStatuses")
    return int(found[0]["restartCount"]) if found else 0


@wasm
def test_delete_ends_a_spinning_guest(cluster: Cluster, runtime: Runtime) -> None:
    """By TERM: the grace period is longer than the patience."""
    cluster.apply(pod("spin", runtime, container(runtime, "spin"), terminationGracePeriodSeconds=3600))
    cluster.wait_phase("spin", "Running")
    cluster.delete("spin")
    assert cluster.pod("spin") == {}


@every
def test_out_of_memory(cluster: Cluster, runtime: Runtime) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    cluster.apply(pod("greedy", runtime, container(runtime, "allocate", 512, resources=limits)))
    assert exit_of(cluster.wait_phase("greedy", "Failed")) == (137, "OOMKilled")


@wasm
def test_a_native_sidecar(cluster: Cluster, runtime: Runtime) -> None:
    """In one pod: a shared volume, one network, logs and exec of either."""
    native = RUNTIMES[1]
    shared = [{"name": "shared", "mountPath": "/mnt"}]
    sidecar = container(native, "sleep", 600, name="sidecar", volumeMounts=shared)
    mounts: Json = {} if runtime.name == "wasmer" else {"volumeMounts": shared}  # which has no host directories
    app = container(runtime, "sleep", 600, **mounts)
    cluster.apply(pod("mixed", runtime, app, sidecar, volumes=[{"name": "shared", "emptyDir": {}}]))
    cluster.wait_phase("mixed", "Running")
    cluster.kubectl("exec", "mixed", "-c", "sidecar", "--", "/app", "write", "/mnt/note", "from next door")
    if mounts:
        read = cluster.kubectl("exec", "mixed", "-c", "app", "--", runtime.program, "read", "/mnt/note")
        assert read.out == "from next door\n"
    statuses = cluster.pod("mixed")["containerStatuses"]
    pids = [pid_of(cluster, status["containerID"].partition("//")[2]) for status in statuses]
    assert len({os.readlink(f"/proc/{pid}/ns/net") for pid in pids}) == 1
    assert cluster.kubectl("logs", "mixed", "-c", "sidecar").out == "sleeping\n"


def pid_of(cluster: Cluster, id: str) -> int:
    return int(json.loads(cluster.node.crictl("inspect", id).out)["info"]["pid"])


@with_directories
def test_volumes(cluster: Cluster, runtime: Runtime) -> None:
    """ConfigMap, Secret, subPath, projected; and none can be written."""
    for kind in ("configmap", "secret"):
        cluster.kubectl("delete", kind, "settings", "--ignore-not-found")
    cluster.kubectl("create", "configmap", "settings", "--from-literal=note=from a map")
    cluster.kubectl("create", "secret", "generic", "settings", "--from-literal=key=from a secret")
    mounts = [
        {"name": "map", "mountPath": "/mnt"},
        {"name": "secret", "mountPath": "/data/secret", "readOnly": True},
        {"name": "map", "mountPath": "/tmp/one", "subPath": "note"},
    ]
    files = ("/mnt/note", "/data/secret/key", "/tmp/one", "/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    readers = [container(runtime, "read", file, name=f"r{n}", volumeMounts=mounts) for n, file in enumerate(files)]
    writer = container(runtime, "write", "/mnt/new", "text", name="writer", volumeMounts=mounts)
    volumes = [
        {"name": "map", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "settings"}},
    ]
    cluster.apply(pod("volumes", runtime, *readers, writer, volumes=volumes))
    status = cluster.wait_phase("volumes", "Failed")
    said = [cluster.kubectl("logs", "volumes", "-c", f"r{n}").out.strip() for n in range(len(files))]
    assert said == ["from a map", "from a secret", "from a map", "default"]
    codes = {one["name"]: one["state"]["terminated"]["exitCode"] for one in status["containerStatuses"]}
    assert codes == {"r0": 0, "r1": 0, "r2": 0, "r3": 0, "writer": 1}


@with_directories
def test_a_termination_message(cluster: Cluster, runtime: Runtime) -> None:
    app = container(runtime, "write", "/tmp/last", "it went well", terminationMessagePath="/tmp/last")
    cluster.apply(pod("message", runtime, app))
    status = cluster.wait_phase("message", "Succeeded")
    assert status["containerStatuses"][0]["state"]["terminated"]["message"] == "it went well\n"


@every
def test_exec_and_logs(cluster: Cluster, runtime: Runtime) -> None:
    cluster.apply(pod("tick", runtime, container(runtime, "tick")))
    cluster.wait_phase("tick", "Running")
    assert cluster.kubectl("exec", "tick", "--", runtime.program, "echo", "inside").out == "inside\n"
    assert cluster.kubectl("exec", "tick", "--", runtime.program, "exit", 3, check=False).code == 3
    followed = cluster.kubectl("logs", "-f", "--limit-bytes=100", "tick").out
    assert followed.startswith("tick 0\ntick 1\n")


@every
def test_an_exec_probe(cluster: Cluster, runtime: Runtime) -> None:
    probe = {"exec": {"command": [runtime.program, "exit", "0"]}, "periodSeconds": 1}
    cluster.apply(pod("probed", runtime, container(runtime, "sleep", 600, readinessProbe=probe)))
    until(lambda: ready(cluster, "probed"), "readiness", cluster)
    probe = {"exec": {"command": [runtime.program, "exit", "1"]}, "periodSeconds": 1, "failureThreshold": 1}
    sick = container(runtime, "sleep", 600, livenessProbe=probe)
    cluster.apply(pod("sick", runtime, sick, restartPolicy="Always", terminationGracePeriodSeconds=1))
    until(lambda: restarts(cluster, "sick") >= 1, "a restart", cluster)


def ready(cluster: Cluster, name: str) -> bool:
    found = cluster.pod(name).get("containerStatuses")
    return bool(found and found[0]["ready"])


@every
def test_the_security_context(cluster: Cluster, runtime: Runtime) -> None:
    context = {
        "runAsUser": 1234,
        "runAsGroup": 99,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "readOnlyRootFilesystem": True,
    }
    cluster.apply(pod("strict", runtime, container(runtime, "sleep", 600, securityContext=context)))
    status = cluster.wait_phase("strict", "Running")
    pid = pid_of(cluster, status["containerStatuses"][0]["containerID"].partition("//")[2])
    with open(f"/proc/{pid}/status") as file:
        found = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert (found["Uid"].split()[0], found["Gid"].split()[0]) == ("1234", "99")
    assert (found["NoNewPrivs"], found["Seccomp"], found["CapEff"]) == ("1", "2", "0" * 16)


@every
def test_init_containers_come_first(cluster: Cluster, runtime: Runtime) -> None:
    cluster.apply(
        pod("staged", runtime, container(runtime), initContainers=[container(runtime, "echo", "first", name="init")])
    )
    cluster.wait_phase("staged", "Succeeded")
    assert cluster.kubectl("logs", "staged", "-c", "init").out == "first\n"


@wasm
def test_thirty_replicas_up_and_down(cluster: Cluster, runtime: Runtime) -> None:
    whole = pod("many", runtime, container(runtime, "sleep", 3600), restartPolicy="Always")
    labels = {"app": "many"}
    template = {"metadata": {"labels": labels}, "spec": whole["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {"replicas": 30, "selector": {"matchLabels": labels}, "template": template},
    }
    cluster.apply(deployment)
    cluster.kubectl("rollout", "status", "deployment/many", "--timeout=110s")
    cluster.kubectl("scale", "deployment/many", "--replicas=0")
    until(lambda: not cluster.kubectl("get", "pods", "-o", "name").out, "all to be gone", cluster)
    assert not settled(cluster.left, 60)


@wasm
@pytest.mark.parametrize("victim", ["kubelet", "containerd", "daemon", "launcher-before", "launcher-after"])
def test_killed_while_pods_are_made(cluster: Cluster, runtime: Runtime, victim: str) -> None:
    """The pods come up in the end, and (``nothing_left``) nothing leaks."""
    for number in range(6):
        cluster.apply(pod(f"made{number}", runtime, container(runtime, "sleep", 3600), restartPolicy="Always"))
        time.sleep(0.05 * number)  # at another point each time
        kill(cluster, victim)
    for number in range(6):
        cluster.wait_phase(f"made{number}", "Running")


def kill(cluster: Cluster, victim: str) -> None:
    match victim:
        case "kubelet":
            cluster.stop("kubelet", signal.SIGKILL)
            cluster.start_kubelet()
        case "containerd":
            cluster.node.restart(signal.SIGKILL)
        case "daemon":
            end_daemon(cluster, signal.SIGKILL)
        case _:
            (cluster.directory / "launchers" / victim.removeprefix("launcher-")).touch()


def end_daemon(cluster: Cluster, number: signal.Signals) -> None:
    """And wait for the next one. There is none before the first pod."""
    earlier = cluster.node.daemon_pid()
    if earlier is not None:
        os.kill(earlier, number)
        until(lambda: cluster.node.daemon_pid() not in (None, earlier), "the next daemon", cluster)


def test_no_pod_notices_that_the_daemon_dies(cluster: Cluster) -> None:
    """Ten deaths of both kinds beside twenty pods, each with a native sidecar; and pods that are made meanwhile."""
    native, count = RUNTIMES[1], 10
    for number in range(count):
        for runtime in (WASM[0], WASM[-1]):
            apps = [container(runtime, "sleep", 3600), container(native, "sleep", 3600, name="side")]
            cluster.apply(pod(f"{runtime.name}{number}", runtime, *apps, restartPolicy="Always"))
    for number in range(count):
        for runtime in (WASM[0], WASM[-1]):
            cluster.wait_phase(f"{runtime.name}{number}", "Running")
    before = {one["metadata"]["name"]: one["status"]["containerStatuses"] for one in pods(cluster)}
    for number in range(count):
        cluster.apply(pod(f"short{number}", WASM[0], container(WASM[0], "exit", number, "word")))
        time.sleep(random.uniform(0, 1))
        end_daemon(cluster, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        time.sleep(2)  # else the pauses before a start grow, and containerd 2.x gives a State 2 s
    for number in range(count):
        status = cluster.wait_phase(f"short{number}", "Failed" if number else "Succeeded")
        assert exit_of(status)[0] == number, status
        assert cluster.kubectl("logs", f"short{number}").out == "word\n"
    after = {one["metadata"]["name"]: one["status"]["containerStatuses"] for one in pods(cluster)}
    assert {name: after[name] for name in before} == before
    name = f"{WASM[0].name}0"
    assert cluster.kubectl("exec", name, "-c", "app", "--", WASM[0].program, "echo", "here").out == "here\n"


def pods(cluster: Cluster) -> list[Json]:
    found: list[Json] = json.loads(cluster.kubectl("get", "pods", "-o", "json").out)["items"]
    return found


def test_side_by_side(cluster: Cluster) -> None:
    for runtime in RUNTIMES:
        cluster.apply(pod(runtime.name, runtime, container(runtime)))
    for runtime in RUNTIMES:
        cluster.wait_phase(runtime.name, "Succeeded")
        assert cluster.kubectl("logs", runtime.name).out == "hello from app\n"
    assert guests.WASM in cluster.kubectl("get", "pods", "-o", "wide", "-o", "json").out
