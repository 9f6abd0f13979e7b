"""Where in a root file system something is mounted or made: never outside, wherever links lead."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shimd.errors import InvalidArgument
from shimd.isolation import devices, mounts
from shimd.isolation.tree import MountPoint, Tree
from shimd.linux import libc
from shimd.oci import Mount
from tests.unit.inside import inside
from tests.unit.isolation.test_mounts import bind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
TMPFS = {"type": "tmpfs", "source": "tmpfs", "options": list[str]()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "rootfs"
    for name in ("data", "proc", "sys/kernel", "etc"):
        (directory / name).mkdir(parents=True)
    (directory / "file").touch()
    return directory


def made(root: Path, path: str, *, directory: bool = False) -> str:
    """What of the root is open once ``path`` was made."""
    tree = Tree(str(root))
    fd = tree.make(path, directory)
    try:
        return tree.place(fd)
    finally:
        os.close(fd)
        os.close(tree.fd)


@pytest.mark.parametrize("directory", [True, False])
@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("nowhere", "/etc/nowhere"),
        ("../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
        ("/run/a/b", "/run/a/b"),
        ("../../../../../run/a", "/run/a"),
        ("absent/../other", "/etc/other"),
        ("./x//y", "/etc/x/y"),
        ("/chain", "/data/last"),
        ("/circle/below", None),
        ("/self", None),
        ("/file/below", None),
    ],
)
def test_a_link_to_nothing_has_its_target_made(root: Path, target: str, place: str | None, directory: bool) -> None:
    (root / "etc/link").symlink_to(target)
    (root / "chain").symlink_to("chain2")
    (root / "chain2").symlink_to("/data/last")
    (root / "circle").symlink_to("circle2")
    (root / "circle2").symlink_to("/circle")
    (root / "self").symlink_to("/self")
    if place is None:
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            made(root, "/etc/link", directory=directory)
        return
    assert made(root, "/etc/link", directory=directory) == place
    assert (root / place[1:]).is_dir() == directory
    assert made(root, "/etc/link", directory=directory) == place


def test_what_is_below_a_link_to_nothing(root: Path) -> None:
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    assert made(root, "/var/run/secrets/token") == "/run/secrets/token"
    assert (root / "run/secrets/token").is_file()


def test_a_chain_that_is_too_long(root: Path) -> None:
    for number in range(60):
        (root / f"{number}").symlink_to(f"{number + 1}")
    with pytest.raises(OSError, match="symbolic links"):
        made(root, "/0")


def test_no_link_of_proc_is_taken(root: Path) -> None:
    """/proc/self/root and /proc/self/fd/N name files themselves, wherever those are."""

    def act() -> object:
        libc.mount("proc", str(root / "proc"), "proc", 0)
        tree, said = Tree(str(root)), []
        for name in ("root", "cwd", "fd/0", "exe"):
            (root / "link").symlink_to(f"/proc/self/{name}")
            for path in ("/link", f"/proc/self/{name}/below"):
                with pytest.raises(OSError):
                    tree.make(path, directory=True)
                said.append(path)
            (root / "link").unlink()
        return len(said)

    assert inside(act) == "8"


def where(root: Path, destination: str) -> str:
    """The place at which something is mounted, or why nothing is."""
    tree = Tree(str(root))
    with MountPoint(tree, destination, directory=True) as point:
        return point.place


@pytest.mark.parametrize(
    ("link", "target", "destination"),
    [
        ("dev", "/proc", "/dev"),
        ("dev", "proc", "/dev/shm"),
        ("dev", "/sys", "/dev"),
        ("run", "/sys/kernel", "/run"),
        ("a", "/b", "/a"),  # and b, below
        ("data/link", "../proc/new", "/data/link"),
        ("dots", "/data", "/dots/../proc"),
        ("whole", "/", "/whole"),
        ("above", "/data/..", "/above"),
    ],
)
def test_no_link_leads_a_mount_into_what_is_guarded(root: Path, link: str, target: str, destination: str) -> None:
    (root / "b").symlink_to("sys")
    (root / link).symlink_to(target)
    if link == "dots":
        assert where(root, destination) == "/proc"
        return
    with pytest.raises(InvalidArgument, match=r"a link in the image leads it to /(proc|sys)|the root itself"):
        where(root, destination)


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_what_is_guarded_is_no_link_itself(root: Path, name: str) -> None:
    (root / "real").mkdir()
    (root / f"{name}x").symlink_to("real")
    os.rename(root / name, root / "moved")
    os.rename(root / f"{name}x", root / name)
    with pytest.raises(InvalidArgument, match="away from"):
        where(root, f"/{name}/below")
    fstype = {"proc": "proc", "sys": "sysfs"}[name]
    mount: Mount = {"destination": f"/{name}", "type": fstype, "source": fstype, "options": []}
    said = inside(lambda: mounts.mount_all(Tree(str(root)), {"mounts": [mount]}, []))
    assert (
        said
        == f"InvalidArgument: mount /{name}: it is no ordinary directory in the image, or a link is on the way to it"
    )


def test_what_is_meant_to_be_mounted_there_is(root: Path) -> None:
    assert where(root, "/sys/kernel/../kernel") == "/sys/kernel"
    assert where(root, "proc") == "/proc"


def test_an_image_whose_dev_is_proc_is_refused(root: Path) -> None:
    (root / "dev").symlink_to("/proc")
    mount: Mount = {"destination": "/dev", **TMPFS}  # type: ignore[typeddict-item]
    said = inside(lambda: mounts.mount_all(Tree(str(root)), {"mounts": [mount]}, []))
    assert said.startswith("InvalidArgument: mount /dev: a link in the image leads it to /proc: none may"), said
    said = inside(lambda: devices.make_devices(Tree(str(root)), {}))
    assert said.startswith("InvalidArgument: a link in the image leads it to /proc"), said


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Another process that does something over and over."""
    pid = os.fork()
    if pid == 0:
        while True:
            with suppress(OSError):
                act()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_is_swapped_for_a_link_meanwhile(root: Path, tmp_path: Path) -> None:
    """By who writes to a volume: a directory for a link to the host's, to magic ones, to another mount."""
    secret, other = tmp_path / "secret", root / "data"
    secret.mkdir()
    (secret / "key").write_text("the host's")
    volume, source = tmp_path / "volume", tmp_path / "source"
    (volume / "sub").mkdir(parents=True)
    source.mkdir()
    targets = [
        str(secret),
        "../../secret",
        "/proc/self/root",
        "/data",
        "../../../../../../../../../../..",
        "/proc/1/root",
    ]
    for number, target in enumerate(targets):
        (volume / f"link{number}").symlink_to(target)

    def swap() -> None:
        for number in range(len(targets)):
            libc_exchange(volume / "sub", volume / f"link{number}")
            libc_exchange(volume / "sub", volume / f"link{number}")

    def once() -> str:
        libc.mount(str(volume), str(root / "etc"), None, libc.MS_BIND)
        libc.mount(str(tmp_path), str(other), None, libc.MS_BIND)
        tree = Tree(str(root))
        try:
            mounts.mount_all(tree, {"mounts": [bind(source, "/etc/sub", "ro"), bind(source, "/etc/sub/deep")]}, [])
            return "mounted"
        except InvalidArgument as error:
            return str(error)
        finally:
            for line in Path("/proc/self/mountinfo").read_text().splitlines():
                point = line.split(" ")[4]
                assert not point.startswith(str(tmp_path)) or point.startswith(str(root)), point
            # What was made read-only is what was to be, wherever it is.
            assert os.path.samefile(other, source) or not os.statvfs(other).f_flag & os.ST_RDONLY

    with meanwhile(swap):
        said = {inside(once) for _ in range(60)}
    assert not {one for one in said if "Error" in one}, said
    assert "mounted" in said, said
    assert [path.name for path in secret.iterdir()] == ["key"]
    assert (secret / "key").read_text() == "the host's"


def libc_exchange(one: Path, other: Path) -> None:
    """renameat2(2), RENAME_EXCHANGE"""
    if libc._libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) < 0:
        raise OSError(0, "it is not there")
