"""Hooks, of all six kinds: when they run, where, what they are told, and what comes of it if they fail."""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import leftovers
from tests.e2e.box import RUNTIMES, WASMER_SDK, Box, content, ours_only, until, wasm_only
from tests.e2e.bundle import Bundle
from tests.e2e.containerd import LAUNCHERS, PATIENCE, Result, Version
from tests.e2e.http_app import on_wasmtime

#: Notes its kind, the state that it is told, and where it is; then ends as it is told to.
SCRIPT = """\
#!/bin/busybox sh
state=$(busybox cat)
ns() { for kind in net uts mnt pid; do busybox readlink /proc/$1/ns/$kind; done | busybox tr '\\n' ' '; }
pid=$(echo "$state" | busybox sed -n 's/.*"pid":[ ]*\\([0-9]*\\).*/\\1/p')
[ "$1" = startContainer ] || [ "$1" = createContainer ] || theirs=$(ns $pid 2>/dev/null)
echo "{\\"kind\\": \\"$1\\", \\"state\\": $state, \\"own\\": \\"$(ns self)\\", \\"theirs\\": \\"$theirs\\"," \\
    "\\"env\\": \\"$HOOK\\", \\"cwd\\": \\"$(busybox pwd)\\", \\"name\\": \\"$(busybox hostname)\\"}" >>LOG
eval "$3"
exit ${2:-0}
"""
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
BEFORE = list(KINDS[:3])


class Hooked(Bundle):
    """One with hooks."""

    def __init__(self, box: Box, directory: Path, program: bytes) -> None:
        super().__init__(box, directory, program)
        self.script = directory / "hook"
        self._write(self.script, str(directory / "log"))
        self._write(self.root / "hook", "/log")

    @staticmethod
    def _write(path: Path, log: str) -> None:
        path.write_text(SCRIPT.replace("LOG", log))
        path.chmod(0o755)

    def hook(self, kind: str, code: int = 0, command: str = "", **more: Any) -> dict[str, Any]:
        path = "/hook" if kind == "startContainer" else str(self.script)
        arguments = ["a name", kind, str(code), command]
        return {"path": path, "args": arguments, "env": [f"HOOK={kind}", "PATH=/bin:/usr/bin"], **more}

    def run_hooks(self, hooks: dict[str, Any], *app: str, flags: tuple[str, ...] = ("--rm",)) -> Result:
        more = {"hooks": hooks, "annotations": {"a": "b"}, "hostname": "hooked"}
        return self.run(self.spec(*app) | more, flags)

    def told(self) -> list[dict[str, Any]]:
        logs = [content(self.directory / "log"), content(self.root / "log")]
        return [json.loads(line) for log in logs for line in log.splitlines()]

    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.told()]


@pytest.fixture
def bundle(box: Box, tmp_path: Path, programs: tuple[bytes, bytes]) -> Hooked:
    native, wasm = programs
    return Hooked(box, tmp_path, native if box.runtime.native else wasm)


def namespaces(of: str | int = "self") -> list[str]:
    return [os.readlink(f"/proc/{of}/ns/{kind}") for kind in ("net", "uts", "mnt", "pid")]


def test_all_kinds_in_their_order_with_the_state(bundle: Hooked) -> None:
    done = bundle.run_hooks({kind: [bundle.hook(kind)] for kind in KINDS}, "echo", "hello")
    assert (done.code, done.out) == (0, "hello\n")
    told = {one["kind"]: one for one in bundle.told()}
    assert [kind for kind in bundle.kinds() if kind != "startContainer"] == [k for k in KINDS if k != "startContainer"]
    assert set(told) == set(KINDS)
    states = {kind: told[kind]["state"] for kind in KINDS}
    statuses = [states[kind]["status"] for kind in KINDS]
    if bundle.box.runtime.native:  # Debian's runc looks too early
        statuses[4] = "running"
    assert statuses == ["creating"] * 3 + ["created", "running", "stopped"]
    assert {state["id"] for state in states.values()} == {"app"}
    assert {state["annotations"]["a"] for state in states.values()} == {"b"}
    assert len({state["bundle"] for state in states.values()}) == 1
    assert len({states[kind]["pid"] for kind in ("prestart", "createRuntime", "poststart")}) == 1
    # Seen from inside it is process 1 of its namespace.
    assert states["createContainer"]["pid"] == states["startContainer"]["pid"] == 1
    assert "pid" not in states["poststop"] or states["poststop"]["pid"] == 0
    assert {kind: one["env"] for kind, one in told.items()} == {kind: kind for kind in KINDS}


#: And with a worker in Python.
@pytest.mark.parametrize("runtime", [*RUNTIMES, WASMER_SDK], ids=lambda runtime: runtime.name, indirect=True)
def test_where_they_run(bundle: Hooked) -> None:
    bundle.run_hooks({kind: [bundle.hook(kind)] for kind in KINDS}, "sleep", "600", flags=("-d",))
    bundle.box.remove("app")
    told = {one["kind"]: one for one in bundle.told()}
    node = namespaces()
    for kind in ("prestart", "createRuntime", "poststart", "poststop"):
        assert told[kind]["own"].split() == node
    inside = told["startContainer"]["own"].split()
    assert not set(inside) & set(node)
    assert told["createContainer"]["own"].split() == inside
    # The process of the state lives there already.
    for kind in ("prestart", "createRuntime", "poststart"):
        assert told[kind]["theirs"].split() == inside
    assert told["createContainer"]["cwd"] == str(bundle.root)
    assert told["startContainer"]["cwd"] == "/"
    assert told["startContainer"]["name"] == "hooked"


def test_a_mount_of_createContainer_is_the_containers(bundle: Hooked) -> None:
    """Made by a program of the node's, from its files, and not on the node."""
    (bundle.directory / "given").write_text("from the node\n")
    (bundle.root / "given").write_text("from the image\n")
    mount = f"busybox mount --bind {bundle.directory}/given {bundle.root}/given"
    done = bundle.run_hooks({"createContainer": [bundle.hook("createContainer", command=mount)]}, "read", "/given")
    assert (done.code, done.out.strip()) == (0, "from the node"), done.err
    assert (bundle.root / "given").read_text() == "from the image\n"


def test_what_createRuntime_does_to_the_network_is_the_containers(bundle: Hooked) -> None:
    """By the pid that it is told, as CNI's and Docker's hooks do."""
    add = "busybox nsenter -t $pid -n busybox ifconfig lo:1 127.9.9.9 up"
    done = bundle.run_hooks(
        {"createRuntime": [bundle.hook("createRuntime", command=add)]}, "read", "/proc/net/fib_trie"
    )
    assert "127.9.9.9" in done.out, done.err


@pytest.mark.parametrize("kind", BEFORE)
def test_one_that_fails_before_create_fails_create(bundle: Hooked, kind: str) -> None:
    hooks: dict[str, Any] = {name: [bundle.hook(name)] for name in KINDS}
    hooks[kind] = [bundle.hook(kind, 3, "echo the reason is known"), bundle.hook(kind)]
    done = bundle.run_hooks(hooks, "echo", "hello", flags=())
    assert done.code != 0
    assert done.out == ""
    assert "the reason is known" in done.err
    if not bundle.box.runtime.native:
        assert f"hooks.{kind}[0] ({bundle.script}) failed with exit status 3" in done.err
    assert bundle.kinds() == [*KINDS[: KINDS.index(kind) + 1], "poststop"]
    bundle.box.remove("app")
    assert not bundle.box.leftovers()


def test_a_startContainer_hook_that_fails_fails_start(bundle: Hooked) -> None:
    done = bundle.run_hooks(
        {"startContainer": [bundle.hook("startContainer", 4)], "poststop": [bundle.hook("poststop")]}
    )
    assert done.code != 0
    assert done.out == ""
    bundle.box.remove("app")
    until(lambda: "poststop" in bundle.kinds(), "poststop")
    assert not bundle.box.leftovers()


@wasm_only
def test_a_poststart_hook_that_fails_stops_the_container(bundle: Hooked) -> None:
    """As the specification says. (Debian's runc leaves it running.)"""
    done = bundle.run_hooks({"poststart": [bundle.hook("poststart", 5)]}, "sleep", "600", flags=("-d",))
    assert "hooks.poststart[0]" in done.err and "failed with exit status 5" in done.err
    bundle.box.remove("app")
    assert not bundle.box.leftovers()


def test_a_poststop_hook_that_fails_is_a_warning(bundle: Hooked) -> None:
    done = bundle.run_hooks({"poststop": [bundle.hook("poststop", 6), bundle.hook("poststop")]}, "echo", "hello")
    assert done.out == "hello\n"
    if not bundle.box.runtime.native:  # runc leaves the others out
        assert bundle.kinds() == ["poststop"] * 2
    assert bundle.box.status("app") is None


@ours_only
def test_one_that_takes_longer_than_its_timeout_is_killed(bundle: Hooked) -> None:
    hook = bundle.hook("createRuntime", command="exec busybox sleep 600", timeout=1)
    done = bundle.run_hooks({"createRuntime": [hook], "poststop": [bundle.hook("poststop")]}, flags=())
    assert done.code != 0
    assert "timeout of 1" in done.err
    assert bundle.kinds() == ["createRuntime", "poststop"]
    bundle.box.remove("app")


@wasm_only
def test_one_that_is_not_there_is_named(bundle: Hooked) -> None:
    for kind in ("createRuntime", "createContainer", "startContainer"):
        done = bundle.run_hooks({kind: [{"path": "/no/such/hook"}]}, flags=())
        assert f"hooks.{kind}[0] (/no/such/hook): /no/such/hook: no such file or directory" in done.err
        bundle.box.remove("app")
    assert not bundle.box.leftovers()


def test_an_exec_has_no_hooks(bundle: Hooked) -> None:
    bundle.run_hooks({kind: [bundle.hook(kind)] for kind in KINDS}, "sleep", "600", flags=("-d",))
    until(lambda: "poststart" in bundle.kinds(), "the last of the hooks")
    before = bundle.kinds()
    assert bundle.box.exec("app", "more", "echo", "hello").out == "hello\n"
    assert bundle.kinds() == before


def script(bundle: Hooked, text: str) -> dict[str, Any]:
    """A startContainer hook of the image's."""
    (bundle.root / "own").write_text(f"#!/bin/busybox sh\n{text}\n")
    (bundle.root / "own").chmod(0o755)
    return {"startContainer": [{"path": "/own", "env": ["PATH=/bin"]}]}


@wasm_only
def test_what_a_hook_of_the_image_leaves_running_ends_with_the_container(bundle: Hooked) -> None:
    """In the node's pid namespace, too, where the end of its first process is not its own."""
    spec = bundle.spec("echo", "hello") | {"hooks": script(bundle, "busybox sleep 600 </dev/null >/dev/null 2>&1 &")}
    spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "pid"]
    assert bundle.run(spec, ("--rm",)).out == "hello\n"
    assert not leftovers.settled(bundle.box.leftovers)


@wasm_only
def test_a_hook_of_the_image_sees_nothing_of_the_node_in_the_worker(bundle: Hooked) -> None:
    """Which holds the compiled module open, and what it executes: both would be files to write to."""
    look = "busybox ls -l /proc/1/exe /proc/1/fd >&2; busybox cat /proc/1/exe >/dev/null && exit 3; exit 4"
    done = bundle.run(bundle.spec("echo", "hello") | {"hooks": script(bundle, look)}, ("--rm",))
    assert "failed with exit status 4" in done.err
    assert "Permission denied" in done.err and "artifact" not in done.err
    bundle.box.remove("app")


@wasm_only
@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_whoever_ends_a_container_need_not_wait_for_its_hooks(bundle: Hooked, kind: str) -> None:
    hook = bundle.hook(kind, command="exec busybox sleep 600")
    spec = bundle.spec("sleep", "600") | {"hooks": {kind: [hook]}}
    starting = bundle.begin(spec)
    until(lambda: bundle.kinds() == [kind], "the hook")
    bundle.box.kill("app")
    # Where it was not started yet, ctr deletes it by itself.
    until(lambda: bundle.box.status("app") in (None, "STOPPED"), "the container's end")
    with suppress(subprocess.TimeoutExpired):  # containerd forgets a bundle over a caller that dies in its Delete
        starting.wait(PATIENCE / 4)
    starting.kill()
    bundle.box.remove("app")
    assert not leftovers.settled(bundle.box.leftovers)


@wasm_only
def test_a_daemon_that_is_told_to_end_does_not_wait_for_hooks(own_box: Box, tmp_path: Path, programs: Any) -> None:
    """The launcher runs them in its stead."""
    bundle = Hooked(own_box, tmp_path, programs[1])
    hook = bundle.hook("poststop", command="exec busybox sleep 600")
    starting = bundle.begin(bundle.spec("echo", "hello") | {"hooks": {"poststop": [hook]}}, "--rm")
    until(lambda: "poststop" in bundle.kinds(), "the hook")
    pid = own_box.containerd.daemon_pid()
    own_box.containerd.stop_daemon()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the daemon to end")
    starting.wait(120)
    assert not leftovers.settled(own_box.leftovers)


@wasm_only
def test_an_interpreter_of_the_image_gets_at_no_program_of_the_node(bundle: Hooked, tmp_path: Path) -> None:
    """As ``#!/proc/self/exe`` with a dynamic linker of its own did with runc (CVE-2019-5736)."""
    linker = bundle.root / "lib64/ld-linux-x86-64.so.2"
    linker.parent.mkdir()
    source = tmp_path / "linker.c"
    source.write_text('#include <unistd.h>\nint main(void) { write(2, "mine\\n", 5); _exit(9); }\n')
    subprocess.run(["gcc", "-static", "-o", linker, source], check=True)
    (bundle.root / "own").write_text("#!/proc/self/exe\n")
    (bundle.root / "own").chmod(0o755)
    hook = {"path": "/own", "env": ["PATH=/bin"], "timeout": 2}
    done = bundle.run(bundle.spec("echo", "hello") | {"hooks": {"startContainer": [hook]}}, ("--rm",))
    assert "mine" not in done.err and "exit status 9" not in done.err
    assert "timeout of 2" in done.err, "it was executed, and is what waits for a pod's end"
    bundle.box.remove("app")


@on_wasmtime
@pytest.mark.parametrize("kind", ["native", "wasm"])
def test_poststop_hooks_of_a_daemon_that_is_slow_are_run_once(
    own_box: Box, version: Version, tmp_path: Path, programs: tuple[bytes, bytes], kind: str
) -> None:
    """The launcher, which containerd has delete what nobody answers for, waits for two seconds."""
    if version.name == "debian":
        pytest.skip("nothing of it is containerd's affair")
    bundle = Hooked(own_box, tmp_path, programs[kind == "wasm"])
    hooks = [bundle.hook("poststop", command="busybox sleep 3"), bundle.hook("poststop")]
    bundle.run_hooks({"poststop": hooks}, "sleep", "600", flags=("-d",))
    containerd = own_box.containerd
    place = containerd.bundle(own_box.namespace, "app")
    flags = {"namespace": own_box.namespace, "address": containerd.address, "id": "app", "bundle": place}
    words = [str(word) for name, value in flags.items() for word in (f"-{name}", value)]
    shim = LAUNCHERS / "containerd-shim-wasmtime-v1"
    subprocess.run([shim, *words, "delete"], env=containerd.env, check=True, capture_output=True)
    until(lambda: len(bundle.kinds()) == 2, "both of the hooks")
    until(lambda: not (place / "shimd.task").exists(), "the daemon to be through")
    containerd.stop()  # it does not know what was done in its name
    shutil.rmtree(place)
    containerd.start()
    own_box.remove("app")
    assert not leftovers.settled(own_box.leftovers)
    assert bundle.kinds() == ["poststop"] * 2
