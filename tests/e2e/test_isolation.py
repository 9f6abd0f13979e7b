"""What the kernel says of an app's process. Where runc's answer is the reference, it is asked in the same test."""

import os
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.box import RUNTIMES, Box, Runtime, content, until, wasm_only

NAMESPACES = ("mnt", "uts", "ipc", "net", "pid")


def started(box: Box, id: str = "app", *flags: object, image: str | None = None) -> int:
    """The pid of an app that has written its first line."""
    output = box.detach(id, "sleep", 600, flags=flags, image=image)
    until(lambda: content(output), "the app's first line")
    return box.pid(id)


def status(pid: int, *names: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: fields[name].strip() for name in names}


def beside_runc(box: Box, *flags: object) -> tuple[int, int]:
    """Pids of the same container under the box's runtime and under runc."""
    pid = started(box, "app", *flags)
    reference = Box(box.containerd, box.namespace, RUNTIMES[0])
    return pid, started(reference, "reference", *flags)


def namespaces(pid: int | str) -> dict[str, str]:
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in NAMESPACES}


def test_namespaces_of_its_own(box: Box) -> None:
    ours, own = namespaces("self"), namespaces(started(box))
    assert {kind for kind in NAMESPACES if ours[kind] == own[kind]} == set()


def test_host_network(box: Box) -> None:
    pid = started(box, "app", "--net-host")
    assert namespaces(pid)["net"] == namespaces("self")["net"]


def test_given_network_namespace(box: Box) -> None:
    """As in a pod: the second container joins the first's."""
    first = started(box, "first")
    second = started(box, "second", "--with-ns", f"network:/proc/{first}/ns/net")
    assert namespaces(second)["net"] == namespaces(first)["net"]


def test_shared_pid_namespace(box: Box) -> None:
    first = started(box, "first")
    second = started(box, "second", "--with-ns", f"pid:/proc/{first}/ns/pid")
    assert namespaces(second)["pid"] == namespaces(first)["pid"]
    box.kill("second")
    box.wait_status("second", "STOPPED")
    assert box.status("first") == "RUNNING"


@wasm_only
def test_privileges_are_runcs(box: Box) -> None:
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid", "Gid", "Groups")
    pid, reference = beside_runc(box)
    assert status(pid, *names) == status(reference, *names)


@wasm_only
def test_dropped_capabilities(box: Box) -> None:
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    pid, reference = beside_runc(box, "--cap-drop", "CAP_CHOWN", "--cap-drop", "CAP_NET_RAW")
    assert status(pid, *names) == status(reference, *names)


@wasm_only
def test_limits_are_runcs(box: Box) -> None:
    pid, reference = beside_runc(box)
    limits = [Path(f"/proc/{each}/limits").read_text() for each in (pid, reference)]
    assert limits[0] == limits[1]


@wasm_only
def test_oom_score_is_not_the_daemons(box: Box) -> None:
    """Neutral where the spec asks for nothing. (runc's is its shim's, one more than containerd's.)"""
    assert Path(f"/proc/{started(box)}/oom_score_adj").read_text() == "0\n"


@wasm_only
def test_a_seccomp_filter_always(box: Box) -> None:
    assert status(started(box), "Seccomp") == {"Seccomp": "2"}


def test_seccomp_profile(box: Box) -> None:
    assert status(started(box, "app", "--seccomp"), "Seccomp") == {"Seccomp": "2"}


def test_user_of_the_image(box: Box) -> None:
    pid = started(box, image=box.runtime.image.replace(":", "-user:"))
    assert status(pid, "Uid", "Gid", "CapEff") == {
        "Uid": "1234\t1234\t1234\t1234",
        "Gid": "5678\t5678\t5678\t5678",
        "CapEff": "0000000000000000",
    }


def test_user_of_an_exec(box: Box) -> None:
    started(box)
    box.ctr("tasks", "exec", "-d", "--user", "1234:5678", "--exec-id", "e", "app", box.runtime.program, "sleep", 600)
    pids = [int(line.split()[0]) for line in box.ctr("tasks", "ps", "app").out.splitlines()[1:]]
    (second,) = set(pids) - {box.pid("app")}
    assert status(second, "Uid")["Uid"].split() == ["1234"] * 4


def test_nothing_of_the_host_is_open(box: Box) -> None:
    """Descriptors 0 to 2, and none above that names a host's file or socket: but for the compiled module, which cannot
    be written through it, and socket pairs with which the engine wakes its own threads."""
    pid = started(box)
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) > 2]
    if not box.runtime.native:
        links = [link for link in links if not link.endswith(("/artifact/module", "/artifact/native"))]
    if box.runtime.name == "wasmer":
        links = [link for link in links if not link.startswith("socket:")]
    allowed = ("/", "/proc", "/dev", "/data", "/tmp", "/mnt", "anon_inode:", "/memfd:", "/sys", "/etc", "/run", "/app")
    assert [link for link in links if not link.startswith(allowed) or str(box.containerd.directory) in link] == []


@wasm_only
def test_environment_of_the_daemon_is_not_the_guests(box: Box) -> None:
    assert "CONTAINERD" not in box.run("app", "env").out


def test_in_every_hierarchys_cgroup(box: Box) -> None:
    """Where containerd's spec says, in each hierarchy that this machine has."""
    pid = started(box)
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = {line.split(":", 2)[1] or "unified": line.split(":", 2)[2] for line in lines}
    for controller in ("memory", "pids", "freezer", "cpu", "devices"):
        assert paths.get(controller, paths.get("unified")) == f"/{box.namespace}/app"


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name, indirect=True)
def test_cpu_and_memory_limits_are_set(box: Box, runtime: Runtime) -> None:
    flags = ("--cpu-period", 100000, "--cpu-quota", 25000, "--memory-limit", 128 << 20)
    started(box, "app", *flags)
    values = {
        path.name: path.read_text().strip()
        for directory in leftovers.cgroups(box.namespace)
        for path in directory.iterdir()
        if path.name in ("cpu.cfs_quota_us", "memory.limit_in_bytes", "cpu.max", "memory.max")
    }
    assert values.get("cpu.cfs_quota_us", values.get("cpu.max", "").split(" ")[0]) == "25000"
    assert values.get("memory.limit_in_bytes", values.get("memory.max")) == str(128 << 20)


def test_too_much_memory_ends_an_exec(box: Box) -> None:
    box.detach("app", "sleep", 600, flags=("--memory-limit", 64 << 20))
    assert box.exec("app", "big", "allocate", 256).code == 137
    assert box.wait_event("app", "/tasks/oom").payload == {"container_id": "app"}
    assert box.status("app") == "RUNNING"


def test_too_much_memory_ends_the_app(box: Box) -> None:
    box.detach("app", "allocate", 256, flags=("--memory-limit", 64 << 20))
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137
    assert box.wait_event("app", "/tasks/oom").payload == {"container_id": "app"}
