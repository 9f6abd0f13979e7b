"""Mounts into a root file system that may be hostile: nothing of an image's leads out of its root."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shimd.errors import InvalidArgument, Unimplemented
from shimd.isolation import devices, mounts, rootfs
from shimd.isolation.mounts import labelled
from shimd.isolation.tree import Tree
from shimd.linux import libc
from shimd.oci import Mount, RootfsMount, Spec
from shimd.oci.mount_options import MountOptions, refuse_options
from tests.unit.inside import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with a directory, a file and links of every evil kind, beside a host's secret."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("the host's")
    directory = tmp_path / "rootfs"
    (directory / "data").mkdir(parents=True)
    (directory / "file").write_text("the image's")
    (directory / "out").symlink_to("../secret")
    (directory / "absolute").symlink_to(tmp_path / "secret")
    (directory / "up").symlink_to("../../../../../../../../..")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "late").symlink_to("/data")
    return directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "note").write_text("a note")
    return directory


def bind(source: Path | str, destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def mounted(root: Path, *wanted: Mount, then: Callable[[], object] = lambda: "done", spec: Spec | None = None) -> str:
    """What ``then`` says once all is mounted."""

    def act() -> object:
        tree = Tree(str(root))
        mounts.mount_all(tree, {**(spec or {}), "mounts": list(wanted)}, [])
        return then()

    return inside(act)


def test_directories_and_files_are_bound(root: Path, source: Path) -> None:
    assert mounted(root, bind(source, "/data"), then=(root / "data/note").read_text) == "a note"
    assert mounted(root, bind(source / "note", "/file"), then=(root / "file").read_text) == "a note"
    assert (root / "file").read_text() == "the image's"  # here nothing was mounted


def test_mount_points_are_made(root: Path, source: Path) -> None:
    assert mounted(root, bind(source, "/new/deep"), then=(root / "new/deep/note").read_text) == "a note"
    assert mounted(root, bind(source / "note", "/new/file"), then=(root / "new/file").read_text) == "a note"


def test_links_are_followed_within_the_root(root: Path, source: Path) -> None:
    assert mounted(root, bind(source, "/late"), then=(root / "data/note").read_text) == "a note"


@pytest.mark.parametrize("destination", ["/up/data", "/../../data", "/data/../../../data"])
def test_what_leads_up_stays_within_the_root(root: Path, source: Path, destination: str) -> None:
    assert mounted(root, bind(source, destination), then=(root / "data/note").read_text) == "a note"


@pytest.mark.parametrize("destination", ["/out", "/absolute", "/out/key", "/dangling", "/dangling/below"])
def test_nothing_is_mounted_or_made_on_the_host(root: Path, source: Path, destination: str) -> None:
    said = mounted(root, bind(source, destination), then=lambda: (root.parent / "secret/key").read_text())
    assert said == "the host's" or said.startswith("InvalidArgument: mount " + destination), said
    assert sorted(path.name for path in (root.parent / "secret").iterdir()) == ["key"]


def test_read_only_is_read_only_and_the_source_is_not(root: Path, source: Path) -> None:
    said = mounted(root, bind(source, "/data", "ro"), then=lambda: (root / "data/new").write_text("x"))
    assert said.startswith("OSError: [Errno 30]")
    (source / "new").write_text("x")


def test_recursive_read_only_reaches_what_is_mounted_below(root: Path, source: Path) -> None:
    (source / "below").mkdir()

    def write() -> object:
        return (root / "data/below/new").write_text("x")

    def act(option: str) -> str:
        def late() -> object:
            libc.mount("tmpfs", str(source / "below"), "tmpfs", 0)
            mounts.mount_all(Tree(str(root)), {"mounts": [bind(source, "/data", option)]}, [])
            return write()

        return inside(late)

    assert act("ro") == "1"
    assert act("rro").startswith("OSError: [Errno 30]")


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (bind("/nowhere/at/all", "/data"), "mount /data: source /nowhere/at/all: no such file"),
        ({"destination": "/data", "type": "nosuchfs", "source": "x", "options": []}, "mount /data: no such device"),
        (
            {"destination": "/data", "type": "tmpfs", "source": "x", "options": ["size=many"]},
            "mount /data: invalid arg",
        ),
    ],
)
def test_what_cannot_be_mounted_is_named(root: Path, mount: Mount, words: str) -> None:
    assert mounted(root, mount).startswith(f"InvalidArgument: {words}")


def test_proc_is_read_only_whatever_is_asked_for(root: Path) -> None:
    """A writable /proc/self/mem is a way out of the sandbox for a guest that may open "/"."""
    proc: Mount = {"destination": "/proc", "type": "proc", "source": "proc", "options": ["rw"]}
    said = mounted(root, proc, then=lambda: os.open(root / "proc/self/mem", os.O_RDWR))
    assert said.startswith("OSError: [Errno 30]")


def test_a_proc_that_is_bound_is_read_only_too(root: Path) -> None:
    for source, destination in (("/proc", "/data"), ("/proc/self", "/data"), ("/", "/data")):
        path = root / "data" / {"/proc": "self/mem", "/proc/self": "mem", "/": "proc/self/mem"}[source]
        said = mounted(root, bind(source, destination, "rw"), then=lambda path=path: os.open(path, os.O_RDWR))  # type: ignore[misc]
        assert said.startswith("OSError: [Errno 30]"), (source, said)


def test_what_a_mount_lacks_is_named(root: Path) -> None:
    assert mounted(root, {"destination": "/data", "type": "bind"}) == "InvalidArgument: mount /data: source is missing"
    assert mounted(root, {"type": "tmpfs"}) == "InvalidArgument: mount None: destination is missing"


def test_a_layers_target_stays_within_the_root(root: Path) -> None:
    def act() -> object:
        layers: list[RootfsMount] = [
            {"type": "bind", "source": str(root), "target": "", "options": ["rbind"]},
            {"type": "tmpfs", "source": "tmpfs", "target": "/absolute", "options": []},
        ]
        rootfs.assemble({"root": {"path": str(root)}}, "/", layers)
        within = root / str(root.parent / "secret").lstrip("/")
        return (root.parent / "secret/key").read_text(), within.is_mount()

    assert inside(act) == """("the host's", True)"""


def test_options() -> None:
    found = MountOptions(["nosuid", "ro", "rw", "ro", "rbind", "rslave", "size=5k", "mode=755", "nofail"])
    assert found.flags == libc.MS_NOSUID | libc.MS_RDONLY | libc.MS_BIND | libc.MS_REC
    assert found.propagation == [libc.MS_SLAVE | libc.MS_REC]
    assert found.data == "size=5k,mode=755"
    assert found.bind


#: What runc knows (its ``features`` say so), less what is refused.
RUNCS = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private rbind relatime remount rnoatime rnodev
rnodiratime rnoexec rnosuid rnosymfollow ro rprivate rrelatime rro rshared rslave rstrictatime runbindable rw shared
silent slave strictatime suid symfollow sync tmpcopyup unbindable
""".split()
REFUSED = "idmap ridmap rrw rsuid rdev rexec rdiratime rsymfollow ratime rnorelatime rnostrictatime".split()


def test_every_option_that_runc_knows_is_known() -> None:
    """So that none of them is a file system's to wonder about."""
    assert MountOptions(RUNCS + REFUSED).data == ""


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_are_refused_are_named(option: str) -> None:
    with pytest.raises(Unimplemented, match=rf"mounts\[\]\.options of /data: {option}: "):
        refuse_options({"mounts": [bind("/", "/data", option)]})


def test_a_bind_mount_takes_no_options_of_a_file_system() -> None:
    with pytest.raises(InvalidArgument, match=r"mounts\[\]\.options of /data: .*: size=1m"):
        refuse_options({"mounts": [bind("/", "/data", "size=1m")]})
    refuse_options({"mounts": [bind("/", "/data", "rprivate", "rw", "X-mount.mkdir", "nofail")]})


@pytest.mark.parametrize(
    ("option", "flag"),
    [("rnosuid", os.ST_NOSUID), ("rnoexec", os.ST_NOEXEC), ("rnodiratime", os.ST_NODIRATIME), ("rro", os.ST_RDONLY)],
)
def test_recursive_options_reach_what_is_mounted_below(root: Path, source: Path, option: str, flag: int) -> None:
    def look() -> object:
        (source / "below").mkdir()
        libc.mount("below", str(source / "below"), "tmpfs", 0, "size=64k")
        mounts.mount_all(Tree(str(root)), {"mounts": [bind(source, "/data", option)]}, [])
        return all(os.statvfs(root / path).f_flag & flag for path in ("data", "data/below"))

    assert inside(look) == "True"


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_tmpfs_that_begins_with_what_the_image_has(root: Path, mode: str) -> None:
    """All but what may be hostile: a link is copied, not followed, and a pipe is not waited for."""
    (root / "data/deep").mkdir(mode=0o750)
    (root / "data/deep/note").write_text("the image's")
    os.chown(root / "data/deep/note", 1000, 1001)
    (root / "data/deep/note").chmod(0o640)
    (root / "data/link").symlink_to("/../../secret/key")
    os.mkfifo(root / "data/pipe")
    wanted: Mount = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", mode]}

    def look() -> object:
        found = os.stat(root / "data/deep/note")
        return (
            sorted(os.listdir(root / "data")),
            (root / "data/deep/note").read_text(),
            os.readlink(root / "data/link"),
            (oct(found.st_mode), found.st_uid, found.st_gid),
            bool(os.statvfs(root / "data").f_flag & os.ST_RDONLY),
        )

    said = mounted(root, wanted, then=look)
    owner = ("0o100640", 1000, 1001)
    assert said == str((["deep", "link"], "the image's", "/../../secret/key", owner, mode == "ro"))


def test_the_label_of_mounts() -> None:
    """Without SELinux there is none to mount with."""
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    assert labelled("size=1m", "tmpfs", label) == f'size=1m,context="{label}"'
    assert labelled("", "tmpfs", label) == f'context="{label}"'
    assert labelled("size=1m", "tmpfs", "") == "size=1m"
    assert labelled("", "proc", label) == labelled("", "mqueue", label) == ""


def test_masked_paths_show_nothing(root: Path) -> None:
    def act() -> object:
        tree = Tree(str(root))
        mounts.hide(tree, {"linux": {"maskedPaths": ["/file", "/data", "/absent", "/out"]}})
        return (root / "file").read_text(), list((root / "data").iterdir()), (root.parent / "secret/key").read_text()

    (root / "data/thing").touch()
    assert inside(act) == "('', [], \"the host's\")"


def test_a_hostile_dev_gets_no_device_of_the_hosts(root: Path) -> None:
    (root / "dev").symlink_to(root.parent / "secret")
    said = inside(lambda: devices.make_devices(Tree(str(root)), {}))
    assert sorted(path.name for path in (root.parent / "secret").iterdir()) == ["key"], said


def test_default_devices(root: Path) -> None:
    def act() -> object:
        devices.make_devices(Tree(str(root)), {})
        return (root / "dev/zero").is_char_device(), os.readlink(root / "dev/stdin")

    assert inside(act) == "(True, '/proc/self/fd/0')"


def test_the_host_is_gone_after_the_pivot(root: Path) -> None:
    def act() -> object:
        tree = rootfs.assemble({"root": {"path": str(root)}}, "/", [])
        rootfs.pivot(tree)
        return sorted(os.listdir("/")), os.path.exists(str(root)), len(os.listdir("/up")) == len(os.listdir("/"))

    names, host, above = eval(inside(act))
    assert "file" in names and "etc" not in names
    assert (host, above) == (False, True)


def test_a_read_only_root(root: Path) -> None:
    def act() -> object:
        tree = rootfs.assemble({"root": {"path": str(root)}}, "/", [])
        rootfs.make_readonly(tree)
        rootfs.pivot(tree)
        return Path("/data/new").write_text("x")

    assert inside(act).startswith("OSError: [Errno 30]")


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    said = inside(lambda: rootfs.assemble({"root": {"path": "rootfs"}}, str(tmp_path), []))
    assert said == f"InvalidArgument: root file system {tmp_path}/rootfs does not exist"


def test_a_bundle_that_is_not_there_any_more(tmp_path: Path, source: Path) -> None:
    """It is not made again: containerd has deleted it, for good."""
    layers: list[RootfsMount] = [{"type": "bind", "source": str(source), "target": "", "options": ["rbind"]}]
    said = inside(lambda: rootfs.assemble({"root": {"path": "rootfs"}}, f"{tmp_path}/bundle", layers))
    assert said.startswith("FileNotFoundError")
    assert not (tmp_path / "bundle").exists()
