"""Device files: those of the spec, and none that an image or a volume brings along."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shimd.isolation import devices, mounts, rootfs
from shimd.isolation.tree import Tree
from shimd.linux import libc
from shimd.oci import Mount, RootfsMount, Spec
from tests.unit.inside import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ZERO = os.makedev(1, 5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system whose image holds a device file."""
    directory = tmp_path / "rootfs"
    directory.mkdir()
    os.mknod(directory / "zero", stat.S_IFCHR | 0o666, ZERO)
    return directory


def inside_of(root: Path, then: Callable[[], object], spec: Spec | None = None, *layers: RootfsMount) -> str:
    """What ``then`` says in a container as far as its file system goes."""
    whole: Spec = {**(spec or {}), "root": {"path": str(root)}}

    def act() -> object:
        tree = rootfs.assemble(whole, "/", list(layers))
        mounts.mount_all(tree, whole, [])
        devices.make_devices(tree, whole)
        rootfs.pivot(tree)
        return then()

    return inside(act)


def read(path: str) -> Callable[[], object]:
    def act() -> object:
        with open(path, "rb") as file:
            return file.read(2)

    return act


READ = str(b"\0\0")


@pytest.mark.parametrize("kind", ["plain", "bind", "overlay"])
def test_an_images_device_files_are_of_no_effect(root: Path, tmp_path: Path, kind: str) -> None:
    """On cgroup version 2 nothing else keeps a guest that is root from the node's disks."""
    for name in ("upper", "work", "target"):
        (tmp_path / name).mkdir()
    overlay = [f"lowerdir={root}", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]
    layers: dict[str, list[RootfsMount]] = {
        "plain": [],
        "bind": [{"type": "bind", "source": str(root), "target": "", "options": ["rbind", "rw"]}],
        "overlay": [{"type": "overlay", "source": "overlay", "target": "", "options": overlay}],
    }
    where = root if kind == "plain" else tmp_path / "target"
    assert inside_of(where, read("/zero"), {}, *layers[kind]).startswith("PermissionError")
    assert inside_of(where, read("/dev/zero"), {}, *layers[kind]) == READ


def test_a_read_only_root_keeps_them_out_too(root: Path) -> None:
    def act() -> object:
        tree = rootfs.assemble({"root": {"path": str(root)}}, "/", [])
        rootfs.make_readonly(tree)
        rootfs.pivot(tree)
        return read("/zero")()

    assert inside(act).startswith("PermissionError")


def bind(source: Path | str, destination: str, *, kind: str = "bind") -> Mount:
    return {"destination": destination, "type": kind, "source": str(source), "options": ["rbind", "rw"]}


def test_a_volumes_device_files_are_of_no_effect_those_of_dev_are(root: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    os.mknod(volume / "zero", stat.S_IFCHR | 0o666, ZERO)
    spec: Spec = {"mounts": [bind(volume, "/volume"), bind("/dev", "/hostdev"), bind("/dev/zero", "/mine")]}
    assert inside_of(root, read("/volume/zero"), spec).startswith("PermissionError")
    assert inside_of(root, read("/hostdev/zero"), spec) == READ
    assert inside_of(root, read("/mine"), spec) == READ


@pytest.mark.parametrize("destination", ["/dev", "/dev/", "//dev", "/dev/."])
@pytest.mark.parametrize("kind", ["bind", "none"])
def test_a_dev_of_the_hosts_is_left_alone(root: Path, tmp_path: Path, kind: str, destination: str) -> None:
    host = tmp_path / "host"
    host.mkdir()
    inside_of(root, lambda: None, {"mounts": [bind(host, destination, kind=kind)]})
    assert list(host.iterdir()) == []


def test_devices_of_the_spec_with_owner_and_mode(root: Path) -> None:
    wanted: Spec = {
        "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
        "linux": {
            "devices": [
                {"type": "c", "path": "/dev/own/null", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6},
                {"type": "c", "path": "/opt/zero", "major": 1, "minor": 5},
                {"type": "p", "path": "/dev/pipe", "fileMode": 0o600},
            ]
        },
    }

    def look() -> object:
        found = os.stat("/dev/own/null")
        assert (found.st_rdev, found.st_uid, found.st_gid) == (os.makedev(1, 3), 5, 6)
        assert found.st_mode == stat.S_IFCHR | 0o640
        assert stat.S_ISFIFO(os.stat("/dev/pipe").st_mode)
        assert [name for name in os.listdir("/dev") if name.startswith(".")] == []
        return read("/opt/zero")()  # outside of /dev, too

    assert inside_of(root, look, wanted) == READ


@pytest.mark.parametrize("device", [{"type": "x", "path": "/dev/x"}, {"type": "c", "path": "/dev/" + "n" * 300}])
def test_what_cannot_be_made_is_named(root: Path, device: dict[str, object]) -> None:
    said = inside_of(root, lambda: None, {"linux": {"devices": [device]}})  # type: ignore[arg-type]
    assert said.startswith(f"InvalidArgument: device {device['path']}: "), said


def test_paths_that_lead_out_stay_within(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    wanted: Spec = {"linux": {"devices": [{"type": "c", "path": "/out/../../../evil", "major": 1, "minor": 5}]}}
    inside_of(root, lambda: None, wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rootfs"]
    assert not Path("/evil").exists()


def test_without_the_capability_the_hosts_own_file_serves(root: Path) -> None:
    def act() -> object:
        tree = Tree(str(root))
        libc.capset(1 << 21, 1 << 21, 0)  # CAP_SYS_ADMIN alone
        devices.make_devices(tree, {"mounts": [{"destination": "/dev", "type": "tmpfs"}]})
        return os.stat(root / "dev/zero").st_rdev == ZERO

    assert inside(act) == "True"
