"""A container from the inside: the steps of :class:`shimd.worker.main.Place`, for an init and for an exec.

An init makes its world and an exec joins one; both then give up what the spec takes away. The order is the point: see
the comments.
"""

import fcntl
import os
import socket
import stat
import struct
import termios
from contextlib import suppress

from shimd.cgroup import join
from shimd.errors import InvalidArgument, NotFound
from shimd.linux import libc, namespaces
from shimd.oci import Process, Spec
from shimd.worker import devices, mounts, privileges, rootfs
from shimd.worker.messages import Plan

# <linux/sockios.h>, <linux/if.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
#: Settings of an IPC namespace (ipc_namespaces(7)).
_IPC = frozenset("msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())


def enter_init(plan: Plan) -> "Init":
    """Cgroup, namespaces and all mounts; the host's files are still in sight.

    :raises ShimdError: one sentence
    """
    return Init(plan)


def enter_exec(plan: Plan) -> "Exec":
    return Exec(plan)


class Init:
    def __init__(self, plan: Plan) -> None:
        self._plan, self._spec = plan, plan["spec"]
        join_cgroup(plan)  # first, so that everything after is accounted
        enter_namespaces(self._spec)
        self._tree = rootfs.assemble(self._spec, plan["bundle"], plan["rootfs"])
        mounts.mount_all(self._tree, self._spec, plan.get("cgroup", []))
        devices.make_devices(self._tree, self._spec)
        if plan.get("terminal"):
            _take_terminal()
            devices.make_console(self._tree)
        mounts.hide(self._tree, self._spec)

    def open(self, path: str) -> int:
        return _open_program(self._tree.fd, path)

    def enter(self) -> list[str]:
        process = self._plan["process"]
        warnings = privileges.limit(process)
        set_sysctls(self._spec)
        _make_cwd(self._tree, process)
        if self._spec["root"].get("readonly"):
            rootfs.make_readonly(self._tree)  # last: mount points had to be made
        labels = _Labels(process)
        rootfs.pivot(self._tree)
        labels.apply()
        privileges.drop(process, self._plan.get("seccomp"))
        _change_directory(process)
        return warnings


class Exec:
    """Joins the namespaces of the container's init only in :meth:`enter`: until then the host's files are in sight."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        join_cgroup(plan)
        try:
            self._root = os.open(f"/proc/{plan['init_pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"the container's first process is gone: {error.strerror}") from None
        if plan.get("terminal"):
            _take_terminal()

    def open(self, path: str) -> int:
        return _open_program(self._root, path)

    def enter(self) -> list[str]:
        process = self._plan["process"]
        warnings = privileges.limit(process)
        labels = _Labels(process)
        os.close(self._root)
        wanted = self._plan["spec"].get("linux", {}).get("namespaces", [])
        namespaces.enter_those_of(self._plan["init_pid"], wanted)
        labels.apply()
        privileges.drop(process, self._plan.get("seccomp"))
        _change_directory(process)
        return warnings


def join_cgroup(plan: Plan) -> None:
    join([directory for directory in plan.get("cgroup", []) if directory != plan.get("unified")])


def enter_namespaces(spec: Spec) -> None:
    """Join and make the spec's, and set up what was made: the loopback device, the host's name."""
    made = namespaces.enter(spec.get("linux", {}).get("namespaces", []))
    if "network" in made:
        _loopback_up()
    if "uts" in made:
        _name_host(spec)


def _name_host(spec: Spec) -> None:
    if hostname := spec.get("hostname"):
        socket.sethostname(hostname)
    if domain := spec.get("domainname"):
        libc.setdomainname(domain)


def _open_program(root: int, path: str) -> int:
    """:raises NotFound: no such file; nor is a directory a program, or a device (some start at being opened)"""
    try:
        fd = libc.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(path) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotFound(path)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        flags = struct.unpack_from("h", request, 16)[0]
        struct.pack_into("h", request, 16, flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def _take_terminal() -> None:
    """A session of its own, with the terminal at fd 0 in control."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def set_sysctls(spec: Spec) -> None:
    linux = spec.get("linux", {})
    own = {namespace["type"] for namespace in linux.get("namespaces", [])}
    for name, value in linux.get("sysctl", {}).items():
        path = _sysctl_path(name)
        if _sysctl_namespace(path) not in own:
            raise InvalidArgument(f"sysctl {name}: it is the whole node's, not the container's own")
        try:
            with open(f"/proc/sys/{path}", "w") as file:
                file.write(value)
        except OSError as error:
            raise InvalidArgument(f"sysctl {name} = {value}: {error.strerror}") from error


def _sysctl_path(name: str) -> str:
    """sysctl(8): if a slash comes before the first dot, slashes separate and dots are part of names."""
    dots, slashes = name.partition("/")[0].count("."), name.count("/")
    path = name if slashes and not dots else name.translate(str.maketrans("./", "/."))
    if ".." in path.split("/"):
        raise InvalidArgument(f"sysctl {name} is not the name of one")
    return path


def _sysctl_namespace(path: str) -> str:
    """The kind of namespace that a setting belongs to; empty: to the node."""
    top, _, rest = path.partition("/")
    if top == "net":
        return "network"
    if path.startswith("fs/mqueue/") or (top == "kernel" and rest in _IPC):
        return "ipc"
    return "uts" if path in ("kernel/domainname", "kernel/hostname") else ""


def _make_cwd(tree: mounts.Tree, process: Process) -> None:
    """As runc does, since images name working directories that nobody made; a read-only root may refuse."""
    with suppress(OSError):
        os.close(tree.make(process["cwd"], directory=True))


def _change_directory(process: Process) -> None:
    try:
        os.chdir(process["cwd"])
    except OSError as error:
        raise InvalidArgument(f"working directory {process['cwd']}: {error.strerror}") from error


class _Labels:
    """AppArmor and SELinux: the files are opened while the host's /proc is there, and written when all else is done."""

    def __init__(self, process: Process) -> None:
        self._writes: list[tuple[int, bytes]] = []
        if (profile := process.get("apparmorProfile")) and os.path.exists("/sys/kernel/security/apparmor"):
            self._prepare("/proc/self/attr/apparmor/current", f"changeprofile {profile}")
        if (label := process.get("selinuxLabel")) and os.path.exists("/sys/fs/selinux/enforce"):
            self._prepare("/proc/self/attr/current", label)

    def _prepare(self, path: str, value: str) -> None:
        self._writes.append((os.open(path, os.O_WRONLY | os.O_CLOEXEC), value.encode()))

    def apply(self) -> None:
        for fd, value in self._writes:
            try:
                os.write(fd, value)
            except OSError as error:
                raise InvalidArgument(f"security label {value.decode()}: {error.strerror}") from error
            finally:
                os.close(fd)
