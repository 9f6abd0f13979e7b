"""The walls around a guest that has taken over its worker: native code in the worker's place tries each of them.

docs/security.md says what they are.
"""

import ctypes
import errno
import hashlib
import os
import signal
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shimd.engines.registry import lacking
from shimd.engines.wasmtime import NATIVE
from shimd.formats import tally
from shimd.isolation import landlock
from tests import native_code
from tests.components import rust
from tests.e2e import guests, http_app, images, leftovers, test_slight, test_wasmedge
from tests.e2e.box import BY_NAME, WASMER_SDK, Box, Runtime, content, until
from tests.e2e.conftest import boxes
from tests.e2e.containerd import Containerd, Version, configured, running
from tests.e2e.spin_app import SPIN, on_the_newest
from tests.e2e.test_spin_artifact import push, serving, start
from tests.native_code import AT_FDCWD, NativeCode, taken_over
from tests.slight.build import guest

pytestmark = [
    on_the_newest,
    pytest.mark.skipif(not native_code.POSSIBLE, reason="the machine's registers are not known here"),
]
#: Starts an app, for as long as the stack is open; returns its pid.
Begin = Callable[["Box", Path, ExitStack], int]


def plain(*flags: object) -> Begin:
    """A guest that sleeps."""

    def begin(box: Box, _directory: Path, _stack: ExitStack) -> int:
        output = box.detach("app", "sleep", 600, flags=flags)
        until(lambda: content(output), "the app's first line")
        return box.pid("app")

    return begin


def further(box: Box, directory: Path, stack: ExitStack) -> int:
    """A further process of a container."""
    first = plain()(box, directory, stack)
    box.exec("app", "further", "sleep", 600, flags=("--detach",))
    rows = box.ctr("tasks", "ps", "app").out.splitlines()[1:]
    return next(int(row.split()[0]) for row in rows if int(row.split()[0]) != first)


def spin(box: Box, directory: Path, stack: ExitStack) -> int:
    stack.enter_context(serving(box, directory, start(box, directory, push(wasm=rust.component("spin").read_bytes()))))
    return box.pid("app")


def slight(box: Box, directory: Path, stack: ExitStack) -> int:
    text = test_slight.SLIGHTFILE.replace("{secret}", test_slight.SECRET)
    archive = test_slight.image(directory / "slight.tar", text, guest("app"))
    stack.enter_context(test_slight.running(box, archive))
    return box.pid("app")


def serves_http(box: Box, directory: Path, _stack: ExitStack) -> int:
    box.ctr("images", "import", str(http_app.archive(directory / "http.tar", rust.component("server"))))
    address = f"127.0.0.1:{http_app.free_port()}"
    box.detach("app", flags=("--net-host", "--env", f"WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}"), image=http_app.IMAGE)
    until(lambda: http_app.answers(address), "the application to listen")
    return box.pid("app")


def accepts(box: Box, directory: Path, _stack: ExitStack) -> int:
    """A guest of WasmEdge's that waits in accept(2): its sleep is broken off by whoever traces it."""
    archive = directory / "edge.tar"
    layer = images.layer({"/edge.wasm": guests.edge()}, guests.DIRECTORIES)
    images.save(archive, [images.image(test_wasmedge.IMAGE, [layer], {"Entrypoint": ["/edge.wasm"]})])
    box.containerd.import_image(archive, box.namespace)
    test_wasmedge.serve(box, "app", "serve", test_wasmedge.free_port(), "/tmp/count")
    return box.pid("app")


@dataclass(frozen=True)
class Kind:
    """A kind of worker."""

    name: str
    runtime: Runtime
    begin: Begin
    in_python: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the daemon: environment variables."""
    sees_others: bool = False
    """Whether it is in the node's pid namespace."""

    @property
    def lets_signal_all(self) -> bool:
        return self.sees_others and "profile" in self.name


#: Another's pid namespace, and network; and the filter of the spec's instead of ours, which allows more: ptrace(2),
#: kill(2) and execve(2), say.
HOST_PID = ("--with-ns", f"pid:/proc/{os.getpid()}/ns/pid")
KINDS = [
    Kind("without-python", BY_NAME["wasmtime"], plain()),
    Kind("without-landlock", BY_NAME["wasmtime"], plain(), settings={"SHIMD_LANDLOCK": "no"}),
    Kind("without-zygote", BY_NAME["wasmtime"], plain(), in_python=True, settings={"SHIMD_ZYGOTE": "no"}),
    Kind("profile", BY_NAME["wasmtime"], plain("--seccomp", "--net-host")),
    Kind("host-pid", BY_NAME["wasmtime"], plain(*HOST_PID), sees_others=True),
    Kind("host-pid-profile", BY_NAME["wasmtime"], plain("--seccomp", *HOST_PID), sees_others=True),
    Kind("exec", BY_NAME["wasmtime"], further),
    Kind("wasmer", BY_NAME["wasmer"], plain()),
    Kind("wasmer-sdk", WASMER_SDK, plain(), in_python=True),
    Kind("http", BY_NAME["wasmtime"], serves_http, in_python=not NATIVE),
    Kind("spin", SPIN, spin, in_python=not NATIVE),
    Kind("spin-without-zygote", SPIN, spin, in_python=True, settings={"SHIMD_ZYGOTE": "no"}),
    Kind("slight", test_slight.SLIGHT, slight, in_python=True),
    *([] if lacking("wasmedge") else [Kind("wasmedge", BY_NAME["wasmedge"], accepts, in_python=True)]),
]


@dataclass
class Target:
    """An app that runs, whose worker is to be taken over."""

    box: Box
    kind: Kind
    pid: int

    @property
    def is_confined(self) -> bool:
        """Whether Landlock's wall is there."""
        return bool(landlock.version()) and "SHIMD_LANDLOCK" not in self.kind.settings

    @property
    def parts(self) -> dict[str, int]:
        """The pids of others that it might be after: ours, and this test's."""
        found = set(leftovers.processes_of(self.box.containerd.directory)) - {self.pid}
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in found}
        assert "shimd-keeper" in names.values() and self.box.containerd.daemon_pid() in names
        others = {f"{name} {pid}": pid for pid, name in names.items()} | {"test": os.getpid(), "init": 1}
        return {name: pid for name, pid in others.items() if pid > 1 or self.kind.sees_others}  # else it is its own

    @contextmanager
    def taken_over(self) -> Iterator[NativeCode]:
        with taken_over(self.pid) as code:
            yield code


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def target(
    request: pytest.FixtureRequest,
    kind: Kind,
    version: Version,
    archive: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Target]:
    """One app for all tests of a kind: what native code tries is to change nothing."""
    with ExitStack() as stack:
        if kind.settings:
            containerd = stack.enter_context(running(version, configured(Containerd, kind.settings)))
        else:
            containerd = request.getfixturevalue("containerd")
        box = stack.enter_context(boxes(archive))(containerd, kind.runtime)
        pid = kind.begin(box, tmp_path_factory.mktemp("walls"), stack)
        yield Target(box, kind, pid)


def refused(attempt: Callable[..., object]) -> int:
    """The error that an attempt ends with."""
    with pytest.raises(OSError) as caught:
        attempt()
    assert caught.value.errno is not None
    return caught.value.errno


def artefacts(box: Box) -> dict[Path, str]:
    cache = box.containerd.directory / "shimd-cache"
    files = [path for path in cache.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def mount_of(pid: int, fd: int) -> int:
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def mounts(pid: int) -> set[int]:
    """Those that the container sees; what was opened by a detached mount, or by the node's, is in none of them."""
    return {int(line.split()[0]) for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}


def test_the_kind_of_worker(target: Target) -> None:
    """What is taken over is what is meant."""
    name = Path(f"/proc/{target.pid}/exe").readlink().name
    assert ("python" in name) == target.kind.in_python


def test_the_cache(target: Target) -> None:
    """No descriptor leads to where a compiled module, or a file that others are given, could be written."""
    before = artefacts(target.box)
    assert before
    with target.taken_over() as code:
        for fd, link in code.descriptors().items():
            status = os.stat(f"/proc/{target.pid}/fd/{fd}")
            if fd <= 2 or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                continue
            if mount_of(target.pid, fd) in mounts(target.pid):
                continue  # the container's own files, which it may write
            if link == f"/memfd:{tally.NAME} (deleted)":
                continue  # its own counts of requests, which nobody else goes by
            if stat.S_ISDIR(status.st_mode):
                attempts: list[Callable[..., object]] = [lambda fd=fd: code.open("planted", os.O_RDWR | os.O_CREAT, fd)]
                attempts += [
                    lambda fd=fd, name=name: code.open(name, os.O_RDWR, fd)
                    for name in os.listdir(f"/proc/{target.pid}/fd/{fd}")
                ]
            else:
                attempts = [
                    lambda fd=fd, how=how: code.open(f"/proc/self/fd/{fd}", how)
                    for how in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC)
                ]
                attempts += [lambda fd=fd: code.call("fchmod", fd, 0o777), lambda fd=fd: code.call("ftruncate", fd, 0)]
                attempts += [lambda fd=fd: code.call("linkat", fd, b"\0", AT_FDCWD, b"/tmp/linked\0", 0x1000)]
                attempts += [lambda fd=fd: code.call("pwrite64", fd, b"\xcc" * 64, 64, 4096)]
            for attempt in attempts:
                assert refused(attempt) in (
                    errno.EROFS,
                    errno.EACCES,
                    errno.EBADF,
                    errno.EINVAL,
                    errno.EXDEV,
                    errno.EISDIR,
                    errno.EPERM,
                    errno.ENOENT,
                ), (fd, link)
    assert artefacts(target.box) == before


def test_files(target: Target) -> None:
    """What can be opened is the container's: by its root, its working directory, or what it has open."""
    directory = str(target.box.containerd.directory)
    ours = os.stat("/")
    with target.taken_over() as code:
        for path in (directory, f"{directory}/shimd", f"{directory}/shimd-cache", "/proc/1/root" + directory):
            assert refused(lambda path=path: code.open(path)) in (errno.ENOENT, errno.EACCES), path
        places = [AT_FDCWD, *(fd for fd in code.descriptors() if os.path.isdir(f"/proc/{target.pid}/fd/{fd}"))]
        for place in places:
            try:
                top = code.open("../" * 30, os.O_RDONLY | os.O_DIRECTORY, place)
            except PermissionError:
                assert place != AT_FDCWD
                continue
            found = os.stat(f"/proc/{target.pid}/fd/{top}")
            assert (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino), place
            assert refused(lambda top=top: code.open(directory.lstrip("/"), os.O_RDONLY, top)) == errno.ENOENT
        handle = struct.pack("=Ii", 8, 1) + struct.pack("=II", 2, 0)
        assert refused(lambda: code.call("open_by_handle_at", 0, handle, 0)) == errno.EPERM


def test_descriptors(target: Target) -> None:
    """Streams, and what the engine needs: no socket to shimd, no directory of the node's, nothing of other apps."""
    with target.taken_over() as code:
        found = code.descriptors()
    peers = {os.readlink(path) for path in daemons_descriptors(target.box) if os.readlink(path).startswith("socket:")}
    assert not peers & set(found.values())
    directory = str(target.box.containerd.directory)
    assert not [link for fd, link in found.items() if fd > 2 and directory in link]


def daemons_descriptors(box: Box) -> list[Path]:
    pid = box.containerd.daemon_pid()
    assert pid is not None
    return list(Path(f"/proc/{pid}/fd").iterdir())


class _Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_ulonglong), ("length", ctypes.c_ulonglong)]


def test_memory_of_others(target: Target) -> None:
    """Of our parts, or this test's process; and its own is written by no file."""
    with target.taken_over() as code:
        for pid in target.parts.values():
            part = bytes(_Part(0x400000, 8))
            assert refused(lambda pid=pid, part=part: code.call("process_vm_readv", pid, part, 1, part, 1, 0)) in (
                *(errno.EPERM, errno.ESRCH, errno.ENOSYS, errno.EFAULT),
            )
            assert refused(lambda pid=pid: code.call("ptrace", 16, pid, 0, 0)) in (errno.EPERM, errno.ESRCH)
            assert refused(lambda pid=pid: code.call("pidfd_getfd", 0, pid, 0)) in (errno.EPERM, errno.EBADF)
        for file in ("mem", "clear_refs", "oom_score_adj", "attr/current"):
            assert refused(lambda file=file: code.open(f"/proc/self/{file}", os.O_RDWR)) in (errno.EROFS, errno.EACCES)


def test_sockets(target: Target) -> None:
    """shimd's are nowhere in sight: those for tasks, for launchers, for status, of fork servers and the keeper."""
    runtime = target.box.containerd.directory / "shimd"
    sockets = [path for path in runtime.rglob("*") if path.is_socket()]
    assert {"keeper.sock", "launch.sock", "status.sock"} <= {path.name for path in sockets}
    assert any(path.parent.name == "s" for path in sockets) and any(path.name.startswith("fork-") for path in sockets)
    with target.taken_over() as code:
        fd = code.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        for path in (*sockets, target.box.containerd.address, Path("/run/systemd/private")):
            address = struct.pack("=H", socket.AF_UNIX) + str(path).encode() + b"\0"
            assert refused(lambda a=address: code.call("connect", fd, a, len(a))) in (errno.ENOENT, errno.ENOTDIR), path


def test_abstract_sockets(target: Target) -> None:
    """In the node's network namespace all of them are in sight: containerd's shims had one (CVE-2020-15257)."""
    name = f"\0shimd-walls-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener, target.taken_over() as code:
        listener.bind(name)
        listener.listen()
        fd = code.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        address = struct.pack("=H", socket.AF_UNIX) + name.encode()
        if os.readlink(f"/proc/{target.pid}/ns/net") != os.readlink("/proc/self/ns/net"):
            assert refused(lambda: code.call("connect", fd, address, len(address))) in (
                *(errno.ECONNREFUSED, errno.EPERM),  # the last: by Landlock
            )
        elif target.is_confined and landlock.version() >= 6:
            assert refused(lambda: code.call("connect", fd, address, len(address))) == errno.EPERM


def test_a_descriptor_that_has_leaked(target: Target) -> None:
    """One of the node's root, say, leads nowhere, as the links of /proc have done before (CVE-2024-21626)."""
    place = f"/proc/{target.pid}/root/leak"
    with socket.socket(socket.AF_UNIX) as listener, target.taken_over() as code:
        listener.bind(place)
        try:
            listener.listen()
            fd = code.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
            address = struct.pack("=H", socket.AF_UNIX) + b"/leak\0"
            code.call("connect", fd, address, len(address))
            with listener.accept()[0] as ours:
                leaked = os.open("/", os.O_PATH | os.O_DIRECTORY)
                socket.send_fds(ours, [b"."], [leaked])
                os.close(leaked)
            root = code.receive(fd)
            attempts: list[Callable[[], object]] = [
                lambda: code.open("etc/passwd", os.O_RDONLY, root),
                lambda: code.open("../etc", os.O_RDONLY | os.O_DIRECTORY, root),
                lambda: code.open(f"/proc/self/fd/{root}/etc/passwd"),
                lambda: code.open("tmp/planted", os.O_WRONLY | os.O_CREAT, root),
                lambda: code.call("linkat", root, b"etc/passwd\0", AT_FDCWD, b"/linked\0", 0),
            ]
            for attempt in attempts if target.is_confined else []:
                assert refused(attempt) in (errno.EACCES, errno.EXDEV, errno.EPERM)
            if not target.is_confined:
                code.open("etc/passwd", os.O_RDONLY, root)
            code.call("close", root)
            code.call("close", fd)
        finally:
            os.unlink(place)


def test_proc(target: Target) -> None:
    with target.taken_over() as code:
        for name in ("sys/kernel/core_pattern", "sys/vm/panic_on_oom", "sysrq-trigger", "self/comm"):
            assert refused(lambda name=name: code.open(f"/proc/{name}", os.O_WRONLY)) in (
                *(errno.EROFS, errno.EACCES, errno.ENOENT),  # the last: a kernel without it
            ), name
        assert not code.read(code.open("/proc/keys")) if Path("/proc/keys").exists() else True
        for pid in target.parts.values():
            for name in ("environ", "mem", "fd/0", "root/etc", "ns/mnt"):
                assert refused(lambda pid=pid, name=name: code.open(f"/proc/{pid}/{name}")) in (
                    *(errno.ENOENT, errno.EACCES, errno.EPERM),
                ), (pid, name)
        fd = code.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        code.call("getdents64", fd, bytes(32768), 32768)
        listed = code.read_back(0)
    assert target.kind.sees_others or str(target.box.containerd.daemon_pid()).encode() + b"\0" not in listed


def test_devices(target: Target) -> None:
    """None but the spec's, none made, and none by an image's device file (test_links.py)."""
    with target.taken_over() as code:
        disk = os.makedev(8, 0)
        for place in ("/tmp", "/dev", "/dev/shm", "/"):
            path = f"{place}/disk".encode() + b"\0"

            def use(path: bytes = path) -> None:
                code.call("mknod", path, stat.S_IFBLK | 0o600, disk)  # a profile of the spec's may allow it
                code.open(path[:-1].decode(), os.O_RDWR)

            assert refused(use) in (errno.EPERM, errno.EROFS, errno.EACCES, errno.ENOENT)
        for name in ("kmsg", "mem", "kvm", "fuse", "loop-control", "mapper/control", "net/tun", "vda", "sda"):
            assert refused(lambda name=name: code.open(f"/dev/{name}")) == errno.ENOENT, name


def test_signals(target: Target) -> None:
    """Nobody's but its own: not our parts', among them the keeper, which holds what the next daemon needs."""
    with target.taken_over() as code:
        for name, pid in target.parts.items():
            for attempt in (
                lambda pid=pid: code.call("kill", pid, 0),
                lambda pid=pid: code.call("tgkill", pid, pid, 0),
                lambda pid=pid: code.call("pidfd_send_signal", code.call("pidfd_open", pid, 0), 0, 0, 0),
            ):
                if target.kind.lets_signal_all and not (target.is_confined and landlock.version() >= 6):
                    continue  # in the node's pid namespace, with a filter that allows it, and CAP_KILL
                assert refused(attempt) in (errno.EPERM, errno.ESRCH), name
        with suppress(OSError):  # where it sees all of the node's, it only asks whether it might
            code.call("kill", -1, 0 if target.kind.sees_others else signal.SIGKILL)
    assert target.box.status("app") == "RUNNING"
    assert target.parts


NAMESPACES = (0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


def test_namespaces(target: Target) -> None:
    """No new ones, in which it would be root; no other's; no mount."""
    with target.taken_over() as code:
        for flag in NAMESPACES:
            assert refused(lambda flag=flag: code.call("unshare", flag)) == errno.EPERM
        own = code.open("/proc/self/ns/mnt")
        assert refused(lambda: code.call("setns", own, 0)) == errno.EPERM
        for name, *arguments in (
            ("mount", b"none\0", b"/tmp\0", b"tmpfs\0", 0, 0),
            ("mount", b"\0", b"/proc\0", b"\0", 0x1020, 0),
            ("umount2", b"/proc\0", 2),
            ("pivot_root", b"/\0", b"/\0"),
            ("open_tree", AT_FDCWD, b"/\0", 1),
            ("fsopen", b"proc\0", 0),
            ("mount_setattr", AT_FDCWD, b"/proc\0", 0, struct.pack("=4Q", 0, 1, 0, 0), 32),
        ):
            assert refused(lambda name=name, words=arguments: code.call(name, *words)) in (errno.EPERM, errno.ENOSYS), (
                name
            )


def test_the_kernel(target: Target) -> None:
    """What has been the way out of many a container before."""
    with target.taken_over() as code:
        for name, *arguments in (
            ("bpf", 0, bytes(128), 128),
            ("init_module", b"\x7fELF", 4, b"\0"),
            ("reboot", 0xFEE1DEAD, 672274793, 0x1234567, 0),
            ("perf_event_open", bytes(128), 0, -1, -1, 0),
            ("userfaultfd", 0),
            ("io_uring_setup", 8, bytes(120)),
            ("add_key", b"user\0", b"a\0", b"b", 1, -4),
        ):
            assert refused(lambda name=name, words=arguments: code.call(name, *words)) in (errno.EPERM, errno.ENOSYS), (
                name
            )


def test_no_program_is_executed(target: Target) -> None:
    with target.taken_over() as code:
        assert refused(lambda: code.call("execve", b"/app.wasm\0", 0, 0)) in (
            *(errno.EPERM, errno.EACCES, errno.ENOEXEC),  # the last: a profile allows it, and there is no program
        )
