"""``SystemdCgroup``: containers in scopes that systemd made, with Debian's containerd, on both kinds of cgroups."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import guests, images
from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.units import PROJECT, install

CONFIG = """\
version = 2
root = "/run/test/root"
state = "/run/test/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "/run/test/containerd.sock"
[ttrpc]
  address = "/run/test/containerd.sock.ttrpc"
"""
MEMORY = 64 << 20
PROGRAMS = pytest.mark.parametrize(
    ("image", "program"), [(guests.WASM, "/app.wasm"), (guests.NATIVE, "/app")], ids=["wasm", "native"]
)


@dataclass
class Node:
    machine: Machine

    def ctr(self, *arguments: object, check: bool = True) -> str:
        return self.machine.run("ctr", "-a", "/run/test/containerd.sock", *map(str, arguments), check=check)

    def run(self, id: str, image: str, *app: object, option: bool = True, check: bool = True) -> str:
        """In the slice ``test-apps.slice``, with a limit of memory."""
        options = ["--runtime-config-path", "/run/test/systemd.toml"] if option else []
        flags = ["--snapshotter", "native", "--cgroup", f"test-apps.slice:ctr:{id}", "--memory-limit", MEMORY]
        return self.ctr(
            "run", "-d", "--runtime", "io.containerd.wasmtime.v1", *options, *flags, image, id, *app, check=check
        )

    def remove(self, id: str) -> None:
        self.ctr("tasks", "delete", "--force", id)
        self.ctr("containers", "delete", id)

    def pid(self, id: str) -> int:
        (line,) = [line for line in self.ctr("tasks", "ls").splitlines() if line.split()[0] == id]
        return int(line.split()[1])

    def cgroups(self, pid: int) -> list[str]:
        """Of each hierarchy."""
        return [line.split(":", 2)[2] for line in self.machine.run("cat", f"/proc/{pid}/cgroup").splitlines()]

    def file(self, scope: str, pattern: str) -> str:
        """One of the kernel's, in whichever hierarchy it is; empty if this machine has no such controller."""
        command = f"cat $(find /sys/fs/cgroup -path '*/{scope}/{pattern}') </dev/null"
        return self.machine.run("sh", "-c", command).strip()

    def left(self, scope: str) -> str:
        return self.machine.run("find", "/sys/fs/cgroup", "-name", scope)


@pytest.fixture(scope="module")
def node(machine: Machine, programs: tuple[bytes, bytes]) -> Iterator[Node]:
    if "cpu" not in machine.run("sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers; ls /sys/fs/cgroup").split():
        pytest.skip("the kernel's cgroup controllers are not of version 2")
    install(machine, "from shimd.cli.main import main\nmain()\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "shimd.socket")
    directory = machine.root / "run/test"
    directory.mkdir()
    (directory / "config.toml").write_text(CONFIG)
    (directory / "systemd.toml").write_text("SystemdCgroup = true\n")
    images.save(directory / "images.tar", guests.standard(*programs)[:4])
    machine.run("systemd-run", "--unit=test-containerd", "-p", "Delegate=yes", "-p", "KillMode=process", *CONTAINERD)
    node = Node(machine)
    machine.wait_for("containerd", lambda: "Server" in node.ctr("version", check=False))
    node.ctr("images", "import", "--snapshotter", "native", "/run/test/images.tar")
    yield node
    machine.run("systemctl", "stop", "test-containerd", "shimd.socket", "shimd.service")
    machine.run("systemctl", "reset-failed")


CONTAINERD = ("env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "containerd", "-c", "/run/test/config.toml")


@PROGRAMS
def test_a_container_is_in_its_scope(node: Node, image: str, program: str) -> None:
    node.run("one", image, program, "sleep", 600)
    show, scope = node.machine.show, "ctr-one.scope"
    assert (show(scope, "ActiveState"), show(scope, "Slice")) == ("active", "test-apps.slice")
    assert (show(scope, "Delegate"), show(scope, "Transient")) == ("yes", "yes")
    assert str(MEMORY) in (show(scope, "MemoryMax"), show(scope, "MemoryLimit"))
    pid = node.pid("one")
    assert any(path.endswith(f"/test.slice/test-apps.slice/{scope}") for path in node.cgroups(pid))
    assert set(node.file(scope, "cgroup.procs").split()) == {str(pid)}, "and it alone"
    node.remove("one")
    node.machine.wait_for("its end", lambda: show(scope, "LoadState") == "not-found")
    assert not node.left(scope)


#: As Task.Update does, which Debian's ctr cannot ask for.
UPDATE = """\
import sys
sys.path.insert(0, sys.argv[1])
from shimd.cgroup import layout
from shimd.cgroup.systemd import Scope
Scope(sys.argv[2], 2 if layout.current().is_v2 else 1).update({"memory": {"limit": int(sys.argv[3])}})
"""


@PROGRAMS
def test_limits_survive_a_reload_of_systemd(node: Node, image: str, program: str) -> None:
    """And those that were changed meanwhile."""
    node.run("two", image, program, "sleep", 600)
    scope, memory = "ctr-two.scope", "memory.limit_in_bytes"
    before = node.file(scope, memory)
    assert before in (str(MEMORY), ""), "this machine has no memory controller of version 2"
    node.machine.run("systemctl", "daemon-reload")
    assert node.file(scope, memory) == before
    node.machine.run(sys.executable, "-c", UPDATE, str(PROJECT), scope, str(2 * MEMORY))
    assert str(2 * MEMORY) in (node.machine.show(scope, "MemoryMax"), node.machine.show(scope, "MemoryLimit"))
    node.machine.run("systemctl", "daemon-reload")
    assert node.file(scope, memory) == (str(2 * MEMORY) if before else "")
    node.remove("two")


@PROGRAMS
def test_one_that_has_ended_leaves_nothing(node: Node, image: str, program: str) -> None:
    node.run("three", image, program, "exit", 7)
    node.machine.wait_for("its end", lambda: "STOPPED" in node.ctr("tasks", "ls"))
    said = node.ctr("tasks", "delete", "three", check=False)
    assert "non-zero exit code 7" in said
    node.ctr("containers", "delete", "three")
    assert node.machine.show("ctr-three.scope", "LoadState") == "not-found"
    assert not node.left("ctr-three.scope")


def test_a_unit_that_is_there_already(node: Node) -> None:
    node.machine.run("systemd-run", "--scope", "--unit=ctr-four.scope", "sh", "-c", "sleep 600 >/dev/null 2>&1 &")
    said = node.run("four", guests.WASM, check=False)
    assert "systemd has a unit ctr-four.scope already" in said
    assert node.machine.show("ctr-four.scope", "ActiveState") == "active", "it is somebody else's"
    node.machine.run("systemctl", "stop", "ctr-four.scope")
    node.ctr("containers", "delete", "four", check=False)


def test_without_the_option_systemd_is_not_asked(node: Node) -> None:
    node.run("five", guests.WASM, "/app.wasm", "sleep", 600, option=False)
    assert node.machine.show("ctr-five.scope", "LoadState") == "not-found"
    assert any(path.endswith("/test-apps.slice/ctr-five.scope") for path in node.cgroups(node.pid("five")))
    node.remove("five")


def test_the_daemon_killed_over_a_container(node: Node) -> None:
    """Its scope goes with its processes."""
    node.run("six", guests.WASM, "/app.wasm", "sleep", 600)
    node.machine.run("systemctl", "kill", "--kill-who=all", "--signal=KILL", "shimd.service")
    node.machine.wait_for("its end", lambda: node.machine.show("ctr-six.scope", "LoadState") == "not-found")
    node.machine.wait_for("its deletion", lambda: not re.search(r"six.*RUNNING", node.ctr("tasks", "ls", check=False)))
    node.ctr("tasks", "delete", "--force", "six", check=False)
    node.ctr("containers", "delete", "six", check=False)
    node.machine.run("systemctl", "reset-failed")


def test_a_clean_up_that_is_faster_than_systemd(node: Node) -> None:
    """By the launcher, the daemon being dead: systemd finds neither processes nor cgroup when it gets there."""
    node.run("eight", guests.WASM, "/app.wasm", "sleep", 600)
    pids = node.file("shimd.service", "cgroup.procs").split()
    os.kill(node.machine.pid, signal.SIGSTOP)
    try:
        node.machine.run("kill", "-KILL", *{*pids})
        node.machine.wait_for("its end", lambda: not node.left("ctr-eight.scope"))
    finally:
        os.kill(node.machine.pid, signal.SIGCONT)
    node.machine.wait_for("its unit's", lambda: node.machine.show("ctr-eight.scope", "LoadState") == "not-found")
    node.ctr("tasks", "delete", "--force", "eight", check=False)
    node.ctr("containers", "delete", "eight", check=False)
    node.machine.run("systemctl", "reset-failed")


#: A scope with no limits, of which there may be no controllers; a process is born in it, and ends.
ALONE = """\
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from shimd.cgroup import Cgroup, join
def show():
    return subprocess.run(["systemctl", "show", "--value", "-p", "ActiveState", "x-seven.scope"],
                          capture_output=True, text=True, check=True).stdout.strip()
cgroup = Cgroup.create("test-apps.slice:x:seven", {}, systemd=True)
seen = [show()]
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, preexec_fn=lambda: join(cgroup.directories))
cgroup.has_processes()
seen += [show(), cgroup.pids() == [child.pid]]
child.communicate()
cgroup.remove()
print(json.dumps([*seen, show()]))
"""


def test_a_scope_by_itself(machine: Machine) -> None:
    said = machine.run(sys.executable, "-c", ALONE, str(PROJECT))
    assert json.loads(said) == ["active", "active", True, "inactive"]
    assert not Node(machine).left("x-seven.scope")


def test_no_systemd(machine: Machine) -> None:
    """One sentence that says what is missing."""
    hidden = 'mount -t tmpfs none /run/systemd; mount -t tmpfs none /run/dbus || :; exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", ALONE, str(PROJECT)]
    said = machine.run(*inside, check=False)
    assert "FailedPrecondition: SystemdCgroup is set, and systemd does not answer at" in said
