"""What only the container's own process can mount: /proc, with all that is upon it and over it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shimd.isolation.late_mounts import LateMounts
from shimd.jailer.main import Home
from shimd.oci import Mount, Spec
from shimd.protocol.system_calls import SystemCalls
from tests.unit.inside import reported
from tests.unit.jailer.test_jail import OWN, entered

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PROC: Mount = {"destination": "/proc", "type": "proc", "source": "proc"}
TMPFS: Mount = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}


def spec(*mounts: Mount, masked: tuple[str, ...] = ()) -> Spec:
    return {"mounts": list(mounts), "linux": {"namespaces": OWN, "maskedPaths": list(masked)}}


def bind(source: Path | str, destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["bind", *options]}


def is_null(path: str) -> Callable[[], object]:
    def look() -> object:
        found = os.stat(path)
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)

    return look


@pytest.mark.parametrize(
    ("destination", "mask", "path"),
    [
        ("/proc", "/proc/version", "/proc/version"),
        ("proc", "/proc/version", "/proc/version"),
        ("/proc", "//proc/version", "/proc/version"),
        ("//proc/", "/proc/version", "/proc/version"),
        ("/host/proc", "/host/proc/version", "/host/proc/version"),
    ],
)
def test_masks_hold_however_paths_are_written(root: Path, destination: str, mask: str, path: str) -> None:
    mount: Mount = {**PROC, "destination": destination}
    assert entered(root, is_null(path), spec(mount, masked=(mask,))) == "True"


def test_proc_is_read_only(root: Path) -> None:
    def act() -> object:
        with open("/proc/sys/kernel/hostname", "w") as file:
            file.write("x")
        return "written"

    assert "Read-only file system" in entered(root, act, spec(PROC))


def test_the_nodes_root_has_no_place_in_it(root: Path) -> None:
    said = entered(root, lambda: None, spec(PROC, bind("/", "/proc/fs", "rbind")))
    assert said.startswith("InvalidArgument: mount /proc/fs: the node's root"), said


def test_files_mounted_upon_it(root: Path, tmp_path: Path) -> None:
    """As lxcfs does; a device of the node's stays one, a volume's is none."""
    file = tmp_path / "uptime"
    file.write_text("42")

    def act() -> object:
        return Path("/proc/uptime").read_text(), Path("/proc/version").read_bytes()

    mounts = (bind(file, "/proc/uptime"), bind("/dev/null", "/proc/version"))
    assert entered(root, act, spec(PROC, *mounts)) == "('42', b'')"


def test_a_later_mount_over_it_hides_it(root: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").touch()
    mount: Mount = {**PROC, "destination": "/host/proc"}
    assert entered(root, lambda: os.listdir("/host"), spec(mount, bind(volume, "/host"))) == "['file']"


def test_a_mask_of_files_is_the_null_device(root: Path, tmp_path: Path) -> None:
    devices = tmp_path / "devices"
    devices.mkdir()
    (devices / "null").symlink_to("/app.wasm")
    said = entered(root, lambda: None, spec(PROC, bind(devices, "/dev"), masked=("/proc/version",)))
    assert said.startswith("InvalidArgument: masked path /proc/version: the container's /dev/null is not"), said


def test_what_is_mounted_below_dev_stays(root: Path) -> None:
    """/dev gets a mount of ours only if the spec has none."""
    shm: Mount = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}
    assert entered(root, lambda: os.path.ismount("/dev/shm"), spec(TMPFS, shm)) == "True"


def test_cgroup2_is_mounted_in_the_containers_cgroup_namespace() -> None:
    late = LateMounts(SystemCalls(), 4)
    assert late.takes("cgroup2", "/sys/fs/cgroup")
    assert not late.takes("cgroup", "/sys/fs/cgroup")


def test_too_many(root: Path) -> None:
    said = entered(root, lambda: None, spec(PROC, *[bind("/dev/null", "/proc/version")] * 250))
    assert said.startswith("InvalidArgument: 25") and said.endswith("are too many"), said


def test_a_sandboxer_that_cannot_get_home_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next jail would be made from within the last one."""

    def act() -> object:
        home = Home()
        os.close(home._fds[0][0])
        home.go()
        return "went on"

    with pytest.raises(AssertionError):  # it has ended with 1, and said nothing
        reported(act)
