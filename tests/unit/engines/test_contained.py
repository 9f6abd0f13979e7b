"""Links in a container lead where the kernel says: in our own WASI, and in wasmtime's by ``contained.c``."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import wasmtime

from shimd.engines import contained
from shimd.engines.core import WASI
from shimd.linux import libc
from shimd.wasi import filesystem
from tests.unit.inside import in_a_new_process, inside

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(contained.library() is None, reason="no C compiler was here"),
]
#: As wasmtime opens: what contained.c looks for.
Open = Callable[[int, str, int], int]
HOSTS, OWN = "the host's", "the container's own"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container's root, with links of every kind; the same paths outside hold something else."""
    directory = tmp_path / "rootfs"
    for name in ("run/secrets", "etc", "var", "usr/lib", "proc", "vol"):
        (directory / name).mkdir(parents=True)
    (directory / "run/secrets/token").write_text(OWN)
    (directory / "etc/shadow").write_text(OWN)
    (directory / "etc/dir").mkdir()
    (tmp_path / "shadow").write_text(HOSTS)
    (directory / "var/run").symlink_to("/run")
    (directory / "lib").symlink_to("/usr/lib")
    (directory / "usr/lib/back").symlink_to("/var/run/secrets")
    (directory / "etc/localtime").symlink_to("/usr/share/nowhere")
    (directory / "etc/up").symlink_to("../run")
    (directory / "etc/far").symlink_to("../../../../../../../run")
    (directory / "vol/planted").symlink_to("/etc/shadow")
    (directory / "vol/host").symlink_to(tmp_path / "shadow")
    (directory / "vol/circle").symlink_to("/vol/circle")
    (directory / "vol/magic").symlink_to("/proc/self/root")
    (directory / "vol/one").symlink_to("/proc/self/root/etc/shadow")
    return directory


def by_python(directory: int, path: str, flags: int) -> int:
    return filesystem.open_beneath(directory, path, flags, contained=True)


def by_trap(directory: int, path: str, flags: int) -> int:
    return libc.open_beneath(directory, path, flags, 0o666 if flags & os.O_CREAT else 0)


def in_container(root: Path, act: Callable[[], object]) -> str:
    """What ``act`` says where the root is the container's, with a /proc."""

    def entered() -> object:
        libc.mount(str(root), str(root), None, libc.MS_BIND)
        libc.mount("proc", str(root / "proc"), "proc", 0)
        os.chroot(root)
        os.chdir("/")
        return act()

    return inside(entered)


@contextmanager
def opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def outcome(open: Open, directory: str, path: str, flags: int = os.O_RDONLY) -> str:
    """What is read there, or the error's name."""
    try:
        with opened(directory) as fd:
            found = open(fd, path, flags)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        return "a directory" if os.path.isdir(f"/proc/self/fd/{found}") else os.read(found, 64).decode()
    finally:
        os.close(found)


def outcomes(root: Path, *arguments: object) -> set[str]:
    """Of both."""

    def trapped() -> str:
        contained.enter()
        return outcome(by_trap, *arguments)  # type: ignore[arg-type]

    return {in_container(root, trapped), in_container(root, lambda: outcome(by_python, *arguments))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("directory", "path", "expected"),
    [
        ("/", "var/run/secrets/token", OWN),
        ("/", "lib/back/token", OWN),
        ("/", "var/run", "a directory"),
        ("/var", "run/secrets/token", OWN),  # met from elsewhere, it is relative to the root all the same
        ("/usr/lib", "back/token", OWN),
        ("/etc", "up/secrets/token", OWN),
        ("/etc", "far/secrets/token", OWN),
        ("/", "vol/planted", OWN),
        ("/vol", "planted", OWN),
        ("/vol", "host", "ENOENT"),
        ("/", "etc/localtime", "ENOENT"),
        ("/", "vol/circle", "ELOOP"),
        ("/", "vol/magic", "ELOOP"),
        ("/", "vol/magic/etc/shadow", "ELOOP"),
        ("/vol", "one", "ELOOP"),
        ("/", "proc/self/root/etc/shadow", "ELOOP"),
        ("/", "proc/self/cwd", "ELOOP"),
        ("/", "/etc/shadow", "EXDEV"),
        ("/etc", "../run/secrets/token", "EXDEV"),
        ("/var", "run/../../etc/shadow", "EXDEV"),
        ("/", "var/run/../etc/shadow", OWN),
        ("/", "..", "EXDEV"),
        ("/", "var/run/secrets/absent", "ENOENT"),
    ],
)
def test_where_links_lead(root: Path, directory: str, path: str, expected: str) -> None:
    assert outcomes(root, directory, path) == {expected}


def test_how_it_is_opened_stays(root: Path) -> None:
    assert outcomes(root, "/", "vol/planted", os.O_RDONLY | os.O_NOFOLLOW) == {"ELOOP"}
    assert outcomes(root, "/", "var/run/secrets/token", os.O_RDONLY | os.O_DIRECTORY) == {"ENOTDIR"}
    assert outcomes(root, "/", "var/run/new", os.O_RDWR | os.O_CREAT | os.O_EXCL) == {"", "EEXIST"}
    assert (root / "run/new").stat().st_mode & 0o777 == 0o644
    assert outcomes(root, "/", "etc/up/new", os.O_RDWR | os.O_CREAT | os.O_EXCL) == {"EEXIST"}


def test_without_a_container_no_link_leads_out(root: Path) -> None:
    """As of ``shimd run``."""
    for directory, path in (("/", "var/run/secrets/token"), ("/etc", "up/secrets/token"), ("/vol", "planted")):
        where = f"{root}{directory}"
        assert outcome(filesystem.open_beneath, where, path) in ("EXDEV", OWN if directory == "/" else "EXDEV")
    assert outcome(filesystem.open_beneath, str(root), "vol/planted") == "EXDEV"


WORDS = [
    *("", ".", "a", "a/b", "a/..", "a/../b", "./a/./..", "..a", "a..", "...", "a//b", "a/", "a/../", ".a", "a/b/../.."),
    *("..", "../a", "a/../..", "a/../../b", "/", "/a", "./..", "a/b/../../..", "a//../..", "../"),
]


@pytest.mark.parametrize("path", WORDS)
def test_what_leads_out_by_its_own_words(path: str) -> None:
    expected = path in WORDS[15:]
    assert filesystem.leads_out(path) == expected
    found = contained.library()
    assert found is not None and bool(found.shimd_leads_out(path.encode())) == expected


def test_threads_have_it(root: Path) -> None:
    """wasmtime opens files of components on threads of its own."""

    def act() -> object:
        contained.enter()
        said: list[str] = []
        for _ in range(4):
            thread = threading.Thread(target=lambda: said.append(outcome(by_trap, "/", "var/run/secrets/token")))
            thread.start()
            thread.join()
        return set(said)

    assert in_container(root, act) == f"{ {OWN} }"


def test_any_other_trap_ends_the_process(root: Path) -> None:
    """As the signal does by default: one that a container's own profile sends, say."""
    contained.library()
    pid = os.fork()
    if pid == 0:
        contained.enter()
        ctypes.CDLL(None)["raise"](31)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + 31


def test_a_read_only_file_system(root: Path) -> None:
    """EACCES: wasmtime's WASI has no word for EROFS, and would have it be a disk that fails."""

    def act() -> object:
        libc.mount(None, "/", None, libc.MS_BIND | libc.MS_REMOUNT | libc.MS_RDONLY)
        contained.enter()
        outcomes = [outcome(by_trap, "/", "new", os.O_RDWR | os.O_CREAT)]
        with opened("/etc") as etc:
            calls: list[Callable[[], None]] = [
                lambda: os.mkdir("new", dir_fd=etc),
                lambda: os.unlink("shadow", dir_fd=etc),
                lambda: os.rmdir("dir", dir_fd=etc),
                lambda: os.rename("shadow", "new", src_dir_fd=etc, dst_dir_fd=etc),
                lambda: os.link("shadow", "new", src_dir_fd=etc, dst_dir_fd=etc),
                lambda: os.symlink("shadow", "new", dir_fd=etc),
                lambda: os.utime("shadow", dir_fd=etc),
            ]
            for call in calls:
                with pytest.raises(PermissionError):
                    call()
                outcomes.append("EACCES")
        return set(outcomes)

    assert in_container(root, act) == "{'EACCES'}"


#: Makes a directory; its error is what is returned.
MAKES = f"""(module (import "{WASI}" "path_create_directory" (func $make (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 80) "new")
  (func (export "make") (result i32) (call $make (i32.const 3) (i32.const 80) (i32.const 3))))"""
#: WASI's numbers.
EACCES, EIO = 2, 29


def compiled(path: str) -> None:
    Path(path).write_bytes(wasmtime.Module(wasmtime.Engine(), MAKES).serialize())


@pytest.mark.parametrize(("trapped", "expected"), [(False, EIO), (True, EACCES)])
def test_wasmtime_has_no_word_for_a_read_only_file_system(
    root: Path, tmp_path: Path, trapped: bool, expected: int
) -> None:
    """Should it have one some day, the guest can be told as it is."""
    path = tmp_path / "makes.cwasm"
    in_a_new_process(compiled, str(path))
    store = wasmtime.Store()
    linker, module = wasmtime.Linker(store.engine), wasmtime.Module.deserialize(store.engine, path.read_bytes())

    def act() -> object:
        libc.mount(None, "/", None, libc.MS_BIND | libc.MS_REMOUNT | libc.MS_RDONLY)
        if trapped:
            contained.enter()
        configuration = wasmtime.WasiConfig()
        configuration.preopen_dir("/etc", "/etc")
        store.set_wasi(configuration)
        linker.define_wasi()
        make = linker.instantiate(store, module).exports(store)["make"]
        assert isinstance(make, wasmtime.Func)
        return make(store)

    assert in_container(root, act) == str(expected)


@pytest.mark.parametrize(
    ("directory", "name", "expected"),
    [
        ("/var", "run", "../run"),
        ("/usr/lib", "back", "../../var/run/secrets"),
        ("/", "lib", "usr/lib"),
        ("/", "top", "."),
        ("/vol", "top", "../"),
        ("/etc", "up", "../run"),
    ],
)
def test_wasmedge_is_told_relative_links(root: Path, directory: str, name: str, expected: str) -> None:
    """It resolves paths itself, into buffers of that size; and a guest that asks where a link leads is told."""
    (root / "top").symlink_to("/")
    (root / "vol/top").symlink_to("/")

    def read(size: int) -> str:
        buffer = ctypes.create_string_buffer(size)
        with opened(directory) as fd:
            length = libc._libc.readlinkat(fd, name.encode(), buffer, ctypes.c_size_t(size))
        return buffer.raw[:length].decode()

    def act() -> object:
        contained.enter("_wasmedge")
        return read(16384), read(4096) == os.readlink(f"{directory}/{name}")

    assert in_container(root, act) == str((expected, True))


def test_a_profile_that_denies_it_is_heard(root: Path) -> None:
    """Its word is the last, on the calls that are made in a trapped one's stead."""
    pyseccomp = pytest.importorskip("pyseccomp")
    profile = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    profile.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "openat2")

    def act() -> object:
        contained.enter()
        profile.load()
        return outcome(by_trap, "/", "etc/shadow")

    assert in_container(root, act) == "ENOSYS"
