"""A container from the inside, without containerd: namespaces, settings, programs."""

import encodings.idna  # noqa: F401 — for socket, inside, where the host's files are gone
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shimd.errors import InvalidArgument, NotFound
from shimd.isolation import landlock, sysctls
from shimd.isolation.namespaces import enter
from shimd.isolation.seccomp import seccomp_flags, worker_filter
from shimd.jailer.jail import Jail, _open_cwd, find_jail, make_jail
from shimd.linux import libc, namespaces
from shimd.linux.machine import SYSCALLS
from shimd.oci import Namespace, Process, Spec, User
from shimd.oci.fields import SELINUX
from shimd.oci.programs import open_file
from shimd.protocol.constants import JAIL_FD, SpecialCall
from shimd.protocol.plans import JoinJail, NewJail
from shimd.protocol.system_calls import SystemCalls
from tests.unit.inside import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OWN: list[Namespace] = [{"type": kind} for kind in ("network", "ipc", "uts", "mount")]


def step_into(jail: Jail) -> None:
    """As a worker does, with the jail's descriptors where it has them."""
    for number, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in jail.fds]):
        os.dup2(fd, JAIL_FD + number)
    jail.calls.take()


def new(root: Path, spec: Spec, process: Process, seccomp: str = "") -> NewJail:
    whole: Spec = {"root": {"path": str(root)}, **spec, "process": process}
    return NewJail(
        bundle=str(root.parent), spec=whole, rootfs=[], directories=[], unified=None, terminal=False, seccomp=seccomp
    )


def entered(
    root: Path,
    then: Callable[[], object],
    spec: Spec | None = None,
    cwd: str = "/",
    seccomp: str = "",
    process: Process | None = None,
) -> str:
    """What ``then`` says in a container made by the worker's own calls."""
    whole: Spec = {"linux": {"namespaces": OWN}, **(spec or {})}
    plan = new(root, whole, {"args": ["/app.wasm"], "cwd": cwd, **(process or {})}, seccomp)

    def act() -> object:
        step_into(make_jail(plan, None))
        return then()

    return inside(act)


def test_a_filter_need_not_allow_what_comes_before_the_guest(root: Path) -> None:
    """A profile from before Linux 5.9 knows no close_range."""
    denied = {"names": ["close_range", "close"], "action": "SCMP_ACT_ERRNO"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}
    seccomp = worker_filter({"linux": {"seccomp": profile}})
    assert entered(root, os.getcwd, seccomp=seccomp) == "/"


def test_flags_of_a_filter(root: Path) -> None:
    """Those of the specification; the kernel takes them."""
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]
    spec: Spec = {"linux": {"namespaces": OWN, "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}}}
    assert seccomp_flags(spec) == 6
    assert entered(root, os.getcwd, spec, seccomp=worker_filter(spec)) == "/"
    with pytest.raises(InvalidArgument, match=r"linux\.seccomp\.flags: FAST is not known"):
        seccomp_flags({"linux": {"seccomp": {"flags": ["FAST"]}}})


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]},
    ],
)
def test_a_filter_that_needs_a_listener(root: Path, profile: dict[str, Any]) -> None:
    """Refused for a module; a native program's runtime has one."""
    spec: Spec = {"linux": {"namespaces": OWN, "seccomp": profile}}
    assert entered(root, os.getcwd, spec, seccomp=worker_filter(spec)).startswith("Unimplemented: linux.seccomp")
    (root / "app.wasm").write_bytes(b"\x7fELF" + bytes(60))
    (root / "app.wasm").chmod(0o755)
    plan = new(root, spec, {"args": ["/app.wasm"], "cwd": "/"})
    assert inside(lambda: make_jail(plan, None).program.path) == "/app.wasm"


@pytest.mark.parametrize(
    ("name", "module"), [("apparmorProfile", "/sys/kernel/security/apparmor"), ("selinuxLabel", SELINUX)]
)
def test_labels_of_a_security_module_that_is_not_there(root: Path, name: str, module: str) -> None:
    if os.path.exists(module):
        pytest.skip("it is there")
    process: Any = {"args": ["/app.wasm"], "cwd": "/", name: "a"}
    plan = new(root, {"linux": {"namespaces": OWN}}, process)
    said = inside(lambda: make_jail(plan, None))
    assert said.startswith(f"InvalidArgument: process.{name}: this kernel has no ")


def with_sysctl(name: str, value: str = "1") -> Spec:
    return {"linux": {"namespaces": OWN, "sysctl": {name: value}}}


def test_the_hosts_name_stays_and_the_containers_is_its_own(root: Path) -> None:
    before = socket.gethostname()
    assert entered(root, socket.gethostname, {"hostname": "pod-1", "domainname": "example"}) == "pod-1"
    assert socket.gethostname() == before


def test_the_loopback_is_up(root: Path) -> None:
    def connect() -> object:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
        return "connected"

    assert entered(root, connect) == "connected"


def test_the_working_directory_is_made_within_the_root(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "out").symlink_to(outside)
    assert entered(root, os.getcwd, cwd="/new/deep") == "/new/deep"
    assert entered(root, os.getcwd, cwd="/out/below") == f"{outside}/below"  # inside the root
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
     ("net.ipv4.conf.lo.forwarding", "net/ipv4/conf/lo/forwarding"),
     ("net/ipv4/ip_unprivileged_port_start", "net/ipv4/ip_unprivileged_port_start")],
)  # fmt: skip
def test_sysctls_of_its_own_are_set(root: Path, name: str, file: str) -> None:
    before = Path("/proc/sys", file).read_text()
    (root / "proc").mkdir()
    proc: Spec = {"mounts": [{"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}]}
    assert entered(root, lambda: Path("/proc/sys", file).read_text().strip(), {**with_sysctl(name), **proc}) == "1"
    assert Path("/proc/sys", file).read_text() == before


def as_it_is(name: str) -> str:
    """A node's setting, as the value to be "set": should the refusal fail, the node stays as it was."""
    path = Path("/proc/sys", name.replace(".", "/"))
    return path.read_text().strip() if path.is_file() else ""


@pytest.mark.parametrize("name", ["vm.panic_on_oom", "kernel.core_pattern", "kernel.panic", "fs.file-max", "kernel"])
def test_sysctls_of_the_node_are_not_a_containers_to_set(root: Path, name: str) -> None:
    said = entered(root, lambda: None, with_sysctl(name, as_it_is(name)))
    assert said == f"InvalidArgument: sysctl {name}: it is the whole node's, not the container's own"


@pytest.mark.parametrize("name", ["net/../vm/panic_on_oom", "net/../../../nowhere/shimd-test"])
def test_sysctls_that_lead_elsewhere(root: Path, name: str) -> None:
    said = entered(root, lambda: None, with_sysctl(name, as_it_is("vm.panic_on_oom")))
    assert said.startswith(f"InvalidArgument: sysctl {name} is not the name")


def test_sysctls_of_a_network_that_is_the_hosts(root: Path) -> None:
    value = as_it_is("net.ipv4.ip_forward")
    spec: Spec = {"linux": {"namespaces": [{"type": "uts"}], "sysctl": {"net.ipv4.ip_forward": value}}}
    assert "it is the whole node's" in entered(root, lambda: None, spec)


@pytest.mark.parametrize(
    ("name", "found"), [("net.ipv4.conf.eth0/100.x", "net/ipv4/conf/eth0.100/x"), ("a/b.c", "a/b.c")]
)
def test_names_of_interfaces_may_have_dots(name: str, found: str) -> None:
    assert sysctls._sysctl_path(name) == found


def open_program(root: Path, path: str) -> bytes:
    directory = os.open(root, os.O_PATH)
    try:
        fd = open_file(directory, path)
        try:
            return os.read(fd, 100)
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def test_programs_are_files_within_the_root(root: Path) -> None:
    (root / "link").symlink_to("/app.wasm")
    (root / "up").symlink_to("../../../../../app.wasm")
    for name in ("/app.wasm", "app.wasm", "link", "up", "/../app.wasm"):
        assert open_program(root, name) == b"\0asm"


def test_what_is_no_program_is_not_even_opened(root: Path) -> None:
    """Opening a device may start it (a watchdog reboots the node); an image may hold any."""
    os.mkfifo(root / "fifo")
    os.mknod(root / "none", stat.S_IFCHR | 0o666, os.makedev(240, 77))  # no driver: opening says ENXIO
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "directory").mkdir()
    for name in ("fifo", "none", "passwd", "directory", "nowhere", "app.wasm/below", "."):
        with pytest.raises(NotFound):
            open_program(root, name)


@pytest.mark.parametrize(
    ("namespace", "words"),
    [
        ({"type": "network", "path": "/nowhere"}, "network namespace /nowhere cannot be joined: no such file"),
        ({"type": "network", "path": "/proc/self/ns/uts"}, "network namespace /proc/self/ns/uts cannot be joined"),
        ({"type": "network", "path": "/etc/passwd"}, "network namespace /etc/passwd cannot be joined"),
        ({"type": "joy"}, "namespace type joy is not known"),
    ],
)
def test_namespaces_that_are_none(namespace: Namespace, words: str) -> None:
    assert inside(lambda: enter([namespace])).startswith(f"InvalidArgument: {words}")


def test_what_is_not_asked_for_is_the_hosts_but_for_the_mounts() -> None:
    def act() -> object:
        before = {kind: os.readlink(f"/proc/self/ns/{name}") for kind, (_flag, name) in namespaces.KINDS.items()}
        made = enter([{"type": "ipc"}, {"type": "pid"}])
        after = {kind: os.readlink(f"/proc/self/ns/{name}") for kind, (_flag, name) in namespaces.KINDS.items()}
        return sorted(made), sorted(kind for kind in before if before[kind] != after[kind])

    assert inside(act) == "(['ipc', 'mount'], ['ipc', 'mount'])"


def test_an_exec_joins_those_of_its_container() -> None:
    ready, told = os.pipe()
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWUTS | libc.CLONE_NEWNET)
        os.write(told, b".")
        os.read(wait, 1)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"."

        def act() -> object:
            theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("uts", "net", "mnt")]
            kinds: list[Namespace] = [{"type": "uts"}, {"type": "network"}, {"type": "pid"}]
            process: Process = {"args": ["/app.wasm"], "cwd": "/", "env": [], "capabilities": {}}
            spec: Spec = {"linux": {"namespaces": kinds}}
            step_into(find_jail(JoinJail(spec, process, pid, [], None, terminal=False)))
            return theirs == [os.readlink(f"/proc/self/ns/{name}") for name in ("uts", "net", "mnt")]

        assert inside(act) == "True"
    finally:
        for fd in (go, wait, ready, told):
            os.close(fd)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("cwd", ["/proc/self/root", "/link"])
def test_no_link_of_proc_is_a_working_directory(tmp_path: Path, cwd: str) -> None:
    """It would lead out of the container, to where its user could not go (CVE-2024-21626)."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "link").symlink_to("/proc/self/cwd")

    def act() -> object:
        libc.mount("proc", str(tmp_path / "proc"), "proc", 0)
        jail = Jail(SystemCalls())
        jail.add(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY))
        return _open_cwd(jail, Process(args=["/app"], cwd=cwd))

    assert inside(act) == f"InvalidArgument: working directory {cwd}: too many levels of symbolic links"


def test_a_working_directory_that_only_root_may_enter(root: Path) -> None:
    (root / "home").mkdir(mode=0o700)
    process: Any = {"user": {"uid": 1000, "gid": 1000}}

    def where() -> object:
        return os.getcwd(), os.geteuid()

    assert entered(root, where, cwd="/home", process=process) == "('/home', 1000)"


def order(jail: Jail) -> list[str]:
    """The calls that matter, in their order."""
    names = {number: name for name, number in SYSCALLS.items()}
    own = {1 << 32 | call: call.name for call in SpecialCall}
    made = [{**names, **own}[call[0]] for call in jail.calls._calls if isinstance(call, tuple)]  # type: ignore[index]
    return [name for name in made if name in ("setresuid", "landlock_restrict_self", "LOAD", "seccomp", "fchdir")]


def made(root: Path, process: Process) -> list[str]:
    seccomp = worker_filter({})
    plan = new(root, {"linux": {"namespaces": OWN}}, {"args": ["/app.wasm"], "cwd": "/own", **process}, seccomp)
    return inside(lambda: " ".join(order(make_jail(plan, None)))).split()


def test_programs_are_loaded_without_privileges(root: Path) -> None:
    wall = ["landlock_restrict_self"] * bool(landlock.version())
    assert made(root, {"args": ["/app.wasm"], "cwd": "/own"}) == ["fchdir", "setresuid", *wall, "LOAD", "seccomp"]


@pytest.mark.parametrize(
    ("user", "late"), [({}, False), ({"uid": 0}, False), ({"uid": 77}, True), ({"gid": 88}, True), ({"gid": 89}, False)]
)
def test_they_are_loaded_before_where_nobody_could_come_back(root: Path, user: User, late: bool) -> None:
    """To load a program, its process leaves its working directory, which may be root's own, or its user's."""
    (root / "own").mkdir()
    os.chown(root / "own", 77, 88)
    (root / "own").chmod(0o710)
    user = {"uid": 1000, **user}
    said = made(root, {"args": ["/app.wasm"], "cwd": "/own", "user": user})
    assert (said.index("LOAD") > said.index("setresuid")) == late


def test_a_program_of_the_images_is_not_confined_by_landlock(root: Path) -> None:
    """Neither a native one, nor a hook: it executes programs."""
    (root / "app.wasm").write_bytes(b"\x7fELF" + bytes(60))
    assert "landlock_restrict_self" not in made(root, {"args": ["/app.wasm"], "cwd": "/own"})


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("devices", [False, True])
def test_what_landlock_allows(root: Path, tmp_path: Path, devices: bool) -> None:
    (outside := tmp_path / "outside").mkdir()
    fd = os.open(outside, os.O_PATH)
    more: Any = {"devices": [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}]} if devices else {}

    def attempts() -> object:
        (Path("/tmp/a")).mkdir()
        Path("/tmp/file").write_text("text")
        os.rename("/tmp/file", "/tmp/a/file")
        os.truncate("/tmp/a/file", 2)
        said = [Path("/tmp/a/file").read_text()]
        for attempt in (
            lambda: os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd),
            lambda: os.listdir(fd),
            lambda: os.mknod("/tmp/zero", stat.S_IFCHR | 0o600, os.makedev(1, 5)),
            lambda: os.execv("/app.wasm", ["app"]),
            lambda: libc.mount("none", "/tmp", "tmpfs", 0),
            lambda: os.kill(os.getppid(), 0),
        ):
            try:
                attempt()
                said.append("done")
            except OSError as error:
                said.append(errno.errorcode[error.errno or 0])
        return " ".join(said)

    signals = "EPERM" if landlock.version() >= 6 else "done"
    (root / "app.wasm").chmod(0o755)
    (root / "tmp").mkdir()
    spec: Any = {"linux": {"namespaces": OWN, **more}}
    capabilities = ["CAP_SYS_ADMIN", "CAP_KILL", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]
    every = dict.fromkeys(("bounding", "effective", "permitted", "inheritable"), capabilities)
    process: Any = {"capabilities": every}
    said = entered(root, attempts, spec, process=process)
    assert said == f"te EACCES EBADF EACCES EACCES EPERM {signals}"
