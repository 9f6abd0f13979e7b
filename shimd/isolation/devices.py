"""/dev as every container has it (runtime-spec config-linux.md, "Default Devices"), and the spec's own devices."""

import os
import stat
from contextlib import suppress

from shimd.errors import InvalidArgument
from shimd.isolation.mounts import is_bind
from shimd.isolation.tree import MountPoint, Tree
from shimd.linux import libc
from shimd.oci import Device, Spec
from shimd.oci.mount_options import normal

_DEFAULT: list[Device] = [
    {"type": "c", "path": f"/dev/{name}", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0}
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
]
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_TEMPORARY = ".shimd-device"
_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_devices(tree: Tree, spec: Spec) -> None:
    """Make device files and links where /dev is the container's own (a bind mount of the host's is left alone).

    Without a mount of its own, /dev gets one: the root file system's has no devices (:mod:`shimd.isolation.rootfs`).

    :raises InvalidArgument: one sentence that names the device
    """
    mounts = [mount for mount in spec.get("mounts", []) if normal(mount["destination"]) == "/dev"]
    if any(is_bind(mount) for mount in mounts):
        return
    if not mounts:
        with MountPoint(tree, "/dev", directory=True) as point:
            libc.mount("tmpfs", point.path, "tmpfs", libc.MS_NOSUID | libc.MS_STRICTATIME, "mode=755,size=65536k")
    before = os.umask(0)
    try:
        dev = tree.make("/dev", directory=True)
        for name, target in _LINKS.items():
            with suppress(FileExistsError):
                os.symlink(target, name, dir_fd=dev)
        nodev = _nodev(dev)
        for device in _DEFAULT:
            _make(tree, device, dev, nodev)
        os.close(dev)
        for device in spec.get("linux", {}).get("devices", []):
            _find_and_make(tree, device)
    finally:
        os.umask(before)


def _find_and_make(tree: Tree, device: Device) -> None:
    parent = tree.make(os.path.dirname(device["path"]) or "/", directory=True)
    try:
        _make(tree, device, parent, _nodev(parent))
    finally:
        os.close(parent)


def _nodev(directory: int) -> bool:
    return bool(os.fstatvfs(directory).f_flag & os.ST_NODEV)


def _make(tree: Tree, device: Device, parent: int, nodev: bool) -> None:
    path = device["path"]
    try:
        if nodev:
            _make_and_bind(tree, device)
        else:
            _mknod(device, os.path.basename(path), parent)
    except FileExistsError:
        pass
    except PermissionError:  # no CAP_MKNOD: the host's own file serves as well
        _bind(tree, path)
    except (KeyError, OSError) as error:
        raise InvalidArgument(f"device {path}: {error}") from error


def _mknod(device: Device, name: str, parent: int) -> None:
    mode = _TYPES[device["type"]] | device.get("fileMode", 0o666)
    os.mknod(name, mode, os.makedev(device.get("major", 0), device.get("minor", 0)), dir_fd=parent)
    if device.get("uid") or device.get("gid"):
        os.chown(name, device.get("uid", 0), device.get("gid", 0), dir_fd=parent, follow_symlinks=False)


def _make_and_bind(tree: Tree, device: Device) -> None:
    """Make a device where device files are of no effect: one in /dev is bound there, and loses its own name."""
    dev = tree.open("/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with MountPoint(tree, device["path"], directory=False) as target:
            _mknod(device, _TEMPORARY, dev)
            try:
                libc.mount(f"/proc/self/fd/{dev}/{_TEMPORARY}", target.path, None, libc.MS_BIND)
            finally:
                os.unlink(_TEMPORARY, dir_fd=dev)
    finally:
        os.close(dev)


def _bind(tree: Tree, path: str) -> None:
    with MountPoint(tree, path, directory=False) as target:
        libc.mount(path, target.path, None, libc.MS_BIND)


def make_console(tree: Tree, terminal: int) -> None:
    """Make /dev/console the terminal whose slave end the descriptor is (config-linux.md, "Default Devices")."""
    with MountPoint(tree, "/dev/console", directory=False) as target:
        libc.mount(os.readlink(f"/proc/self/fd/{terminal}"), target.path, None, libc.MS_BIND)
