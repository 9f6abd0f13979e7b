"""A container from the outside: its world, made by the sandboxer, for a process that will step into it.

For an init the world is made, for an exec it is there; either way what comes out is the same: a root file system, the
namespaces to join, and the steps that are left to the process itself. The order is the point: see the comments.
"""

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from shimd.errors import InvalidArgument, NotFound, reason
from shimd.linux import libc, namespaces
from shimd.oci import Namespace, Process, Spec, has_create_hooks
from shimd.oci_fields import SELINUX, refuse
from shimd.task.magic import is_native
from shimd.task.seccomp import refuse_listener, seccomp_flags
from shimd.worker import devices, mounts, privileges, rootfs, scheduling
from shimd.worker.inner import Inner
from shimd.worker.listen import listener
from shimd.worker.messages import WORLD_FD, Plan
from shimd.worker.options import refuse_options
from shimd.worker.programs import Program, find_program
from shimd.worker.steps import Policy, Steps
from shimd.worker.times import time_namespace
from shimd.worker.tree import Tree

# <linux/sockios.h>, <linux/if.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
#: Settings of an IPC namespace (ipc_namespaces(7)).
_IPC = frozenset("msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())
#: Where a worker has a file of its security module open, if there is one.
_LABEL_FD = 301
_SAYS_CWD = "working directory {}"
#: Descriptors of a world: what passes in one packet (``MAX_FDS``), less what comes with it.
_MOST = 240


@dataclass
class World:
    """Where a process will live. Its descriptors are the worker's from ``WORLD_FD`` on, the root file system first."""

    steps: Steps
    fds: list[int] = field(default_factory=list)
    program: Program = field(default_factory=lambda: Program("", None))
    cwd: int | None = None
    """The worker's descriptor of its working directory, if that could be opened."""
    listening: list[int] = field(default_factory=list)
    """The worker's descriptors of sockets that its app keeps, the last ones."""

    def add(self, fd: int) -> int:
        """Returns which descriptor it will be."""
        self.fds.append(fd)
        return WORLD_FD + len(self.fds) - 1

    def close(self) -> None:
        for fd in (*self.fds, *([] if self.program.file is None else [self.program.file])):
            os.close(fd)


def nothing_held(_world: World) -> None:
    pass


def make_world(plan: Plan, terminal: int | None, hold: Callable[[World], None] = nothing_held) -> World:
    """For an init: namespaces and all mounts. The caller's process is in them afterwards, and has to leave them.

    :param terminal: the slave end of its pty
    :param hold: called if there are hooks for this moment: all is mounted, and the node's files are still in sight.
        A native program's are its runtime's
    :raises ShimdError: one sentence
    """
    spec, process = plan["spec"], plan["process"]
    world = World(steps := Steps())
    try:
        first_steps(steps, plan)
        kinds = [one for one in spec.get("linux", {}).get("namespaces", []) if one["type"] != "cgroup"]
        enter_namespaces(kinds, spec)
        tree = rootfs.assemble(spec, plan["bundle"], plan["rootfs"])
        world.add(os.dup(tree.fd))
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _hand_over_namespaces(world, {one["type"] for one in kinds} & {"network", "ipc", "uts"}, proc)
        os.close(proc)
        _cgroup_namespace(world, spec)
        _time_namespace(world, spec)
        if has_create_hooks(spec):
            steps.call("prctl", libc.PR_SET_DUMPABLE, 0, says="to be out of reach while hooks run")
            steps.pause()
        inner = Inner(steps, WORLD_FD + len(world.fds))
        mounts.mount_all(tree, spec, plan.get("cgroup", []), inner)
        devices.make_devices(tree, spec)
        if terminal is not None:
            devices.make_console(tree, terminal)
        mounts.hide(tree, spec, inner)
        world.fds += inner.fds
        set_sysctls(spec)
        _make_cwd(tree, process)
        if not inner.holds(process["cwd"]):
            world.cwd = _open_cwd(world, process)
        world.program = find_program(tree.fd, process)
        file = world.program.file
        native = file is not None and is_native(file)
        if not native:  # a pod's annotations are its sidecars', too
            world.listening = [world.add(listener(*address)) for address in plan.get("listen", [])]
        if not native:
            refuse(spec)
            refuse_options(spec)
            refuse_listener(spec)
        last_steps(world, plan)
        if has_create_hooks(spec) and not native:
            hold(world)
        if spec["root"].get("readonly"):
            rootfs.make_readonly(tree)  # last: mount points had to be made
        rootfs.pivot(tree)  # the node's files are out of sight from here on, our own modules, too
    except BaseException:
        world.close()
        raise
    return world


def find_world(plan: Plan) -> World:
    """For an exec: that of the container's first process.

    :raises NotFound: it is gone
    """
    pid, process = plan["init_pid"], plan["process"]
    world = World(steps := Steps())
    try:
        first_steps(steps, plan)
        # By one descriptor: of this process, or of none if it ends meanwhile, whoever gets its number.
        proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
        world.add(root)
        wanted = {one["type"] for one in plan["spec"].get("linux", {}).get("namespaces", [])}
        _hand_over_namespaces(world, wanted - {"pid", "user", "mount"}, proc)
        os.close(proc)
        world.cwd = _open_cwd(world, process)
        world.program = find_program(root, process)
        last_steps(world, plan)
    except (FileNotFoundError, ProcessLookupError) as error:
        world.close()
        raise NotFound(f"the container's first process is gone: {reason(error)}") from None
    except BaseException:
        world.close()
        raise
    return world


def first_steps(steps: Steps, plan: Plan) -> None:
    """What comes before the engine loads: the cgroup, so that all that follows is accounted; the node's files."""
    steps.join_cgroup(plan.get("cgroup", []), plan.get("unified"))
    privileges.account(steps, plan["process"])
    for file, _value in _labels(plan["process"]):
        steps.open(file, os.O_WRONLY, _LABEL_FD, f"security label {file}")
    if plan.get("terminal"):
        steps.call("setsid", says="a session of its own")
        steps.call("ioctl", 0, termios.TIOCSCTTY, 0, says="the terminal")
    steps.pause()
    privileges.limit(steps, plan["process"])


def last_steps(world: World, plan: Plan) -> None:
    steps, spec, process = world.steps, plan["spec"], plan["process"]
    label(steps, process)
    if len(world.fds) > _MOST:
        raise InvalidArgument(f"{len(world.fds)} mounts in /proc and listening sockets are too many")
    if world.cwd is not None:
        steps.call("fchdir", world.cwd, says=_SAYS_CWD.format(process["cwd"]))
    # One by one, and before there is a filter: a profile need not allow it. Not all that is open: an engine may keep a
    # module's file, for its memory's sake.
    for number in range(len(world.fds) - len(world.listening)):
        steps.call("close", WORLD_FD + number, says="descriptors", policy=Policy.TRY)
    scheduling.treat(steps, spec, process, further=plan["kind"] == "exec")
    privileges.drop(steps, process, plan.get("seccomp"), seccomp_flags(spec), dumpable=not _meets_hooks(plan))
    if world.cwd is None:
        steps.call("chdir", os.fsencode(process["cwd"]), says=_SAYS_CWD.format(process["cwd"]))


def label(steps: Steps, process: Process) -> None:
    """For AppArmor or SELinux, by what :func:`first_steps` has opened."""
    for _file, value in _labels(process):
        steps.call("write", _LABEL_FD, value, len(value), says=f"security label {value.decode()}")
        steps.call("close", _LABEL_FD, says="security label", policy=Policy.TRY)


def _meets_hooks(plan: Plan) -> bool:
    """Whether programs of the image's run beside a worker that waits for its start, with its user's powers: what it has
    open, and what it executes, is the node's, and not for them."""
    return plan["kind"] == "init" and bool(plan["spec"].get("hooks", {}).get("startContainer"))


def _open_cwd(world: World, process: Process) -> int | None:
    """As runc has it, a process may start where its user could not go (images have ``WORKDIR /root``), and where only
    its user can, on a volume that does not trust root. By no link of /proc, which leads out (CVE-2024-21626).

    :returns: the worker's descriptor; ``None``: it goes there by itself, once it is nobody but its user
    :raises InvalidArgument: it is a link that leads nowhere, or out
    """
    try:
        return world.add(libc.open_in_root(world.fds[0], f"{process['cwd']}/.", os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidArgument(f"{_SAYS_CWD.format(process['cwd'])}: {reason(error)}") from None
        return None


def _hand_over_namespaces(world: World, kinds: set[str], proc: int) -> None:
    """To be joined by the process; the mount namespace last, since it hides the node's files.

    :param proc: the directory /proc/PID of who is in them
    """
    for kind in [*sorted(kinds), "mount"]:
        flag, name = namespaces.known(kind)
        fd = world.add(os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc))
        world.steps.call("setns", fd, flag, says=f"{kind} namespace")


def _cgroup_namespace(world: World, spec: Spec) -> None:
    """A new one begins where its maker is: so the process makes it."""
    for one in spec.get("linux", {}).get("namespaces", []):
        if one["type"] != "cgroup":
            continue
        if path := one.get("path"):
            fd = world.add(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            world.steps.call("setns", fd, libc.CLONE_NEWCGROUP, says=f"cgroup namespace {path}")
        else:
            world.steps.call("unshare", libc.CLONE_NEWCGROUP, says="cgroup namespace")


def _time_namespace(world: World, spec: Spec) -> None:
    if (made := time_namespace(spec)) is not None:
        fd = world.add(made)
        world.steps.call("setns", fd, libc.CLONE_NEWTIME, says="time namespace")


def enter_namespaces(kinds: list[Namespace], spec: Spec) -> None:
    """Join and make those, and set up what was made: the loopback device, the host's name."""
    made = namespaces.enter(kinds)
    if "network" in made:
        _loopback_up()
    if "uts" in made:
        _name_host(spec)


def _name_host(spec: Spec) -> None:
    if hostname := spec.get("hostname"):
        socket.sethostname(hostname)
    if domain := spec.get("domainname"):
        libc.setdomainname(domain)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        flags = struct.unpack_from("h", request, 16)[0]
        struct.pack_into("h", request, 16, flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


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
            raise InvalidArgument(f"sysctl {name} = {value}: {reason(error)}") from error


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


def _make_cwd(tree: Tree, process: Process) -> None:
    """As runc does, since images name working directories that nobody made; a read-only root may refuse."""
    with suppress(OSError):
        os.close(tree.make(process["cwd"], directory=True))


def _labels(process: Process) -> list[tuple[str, bytes]]:
    """AppArmor and SELinux: what is to be written where.

    :raises InvalidArgument: the node has not what is asked for
    """
    found = []
    if profile := process.get("apparmorProfile"):
        if not os.path.exists("/sys/kernel/security/apparmor"):
            raise InvalidArgument("process.apparmorProfile: this kernel has no AppArmor")
        found.append(("/proc/self/attr/apparmor/current", f"changeprofile {profile}".encode()))
    if label := process.get("selinuxLabel"):
        if not os.path.exists(SELINUX):
            raise InvalidArgument("process.selinuxLabel: this kernel has no SELinux")
        found.append(("/proc/self/attr/current", label.encode()))
    return found[:1]  # one file is one module's, and a node has one of the two
