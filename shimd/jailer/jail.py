"""A container from the outside: its jail, made by the jailer, for a process that will step into it.

For an init the jail is made, for an exec it is there; either way what comes out is the same: a root file system, the
namespaces to join, and the calls that are left to the process itself. The order is the point: see the comments.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from shimd.errors import InvalidArgument, NotFound, reason
from shimd.formats.magic import is_native
from shimd.isolation import devices, landlock, mounts, privileges, rootfs, scheduling
from shimd.isolation.entry import first_calls, is_labelled, label
from shimd.isolation.late_mounts import LateMounts
from shimd.isolation.listeners import listener
from shimd.isolation.namespaces import enter_namespaces, known
from shimd.isolation.seccomp import refuse_listener, seccomp_flags
from shimd.isolation.sysctls import set_sysctls
from shimd.isolation.time_namespace import time_namespace
from shimd.isolation.tree import Tree
from shimd.linux import libc
from shimd.oci import Process, Spec, has_create_hooks
from shimd.oci.fields import refuse
from shimd.oci.file_user import acting_on_files_as
from shimd.oci.mount_options import refuse_options
from shimd.oci.programs import Program, find_program
from shimd.protocol.constants import JAIL_FD, Policy
from shimd.protocol.plans import JailPlan, JoinJail, NewJail
from shimd.protocol.system_calls import SystemCalls

_SAYS_CWD = "working directory {}"
#: Descriptors of a jail: what passes in one packet (``MAX_FDS``), less what comes with it.
_MOST = 240


@dataclass
class Jail:
    """A place for a process to live in. Its descriptors are the worker's from ``JAIL_FD`` on, the root file system
    first."""

    calls: SystemCalls
    fds: list[int] = field(default_factory=list)
    program: Program = field(default_factory=lambda: Program("", None))
    cwd: int | None = None
    """The worker's descriptor of its working directory, if that could be opened."""
    listening: list[int] = field(default_factory=list)
    """The worker's descriptors of sockets that its app keeps."""

    def add(self, fd: int) -> int:
        """Returns which descriptor it will be."""
        self.fds.append(fd)
        return JAIL_FD + len(self.fds) - 1

    def close(self) -> None:
        for fd in (*self.fds, *([] if self.program.file is None else [self.program.file])):
            os.close(fd)


def nothing_held(_jail: Jail) -> None:
    pass


def make_jail(plan: NewJail, terminal: int | None, hold: Callable[[Jail], None] = nothing_held) -> Jail:
    """For an init: namespaces and all mounts. The caller's process is in them afterwards, and has to leave them.

    :param terminal: the slave end of its pty
    :param hold: called if there are hooks for this moment: all is mounted, and the node's files are still in sight.
        A native program's are its runtime's
    :raises ShimdError: one sentence
    """
    spec, process = plan.spec, plan.process
    jail = Jail(calls := SystemCalls())
    try:
        first_calls(calls, process, plan.directories, plan.unified, terminal=plan.terminal)
        kinds = [one for one in spec.get("linux", {}).get("namespaces", []) if one["type"] != "cgroup"]
        enter_namespaces(kinds, spec)
        tree = rootfs.assemble(spec, plan.bundle, plan.rootfs)
        jail.add(os.dup(tree.fd))
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _hand_over_namespaces(jail, {one["type"] for one in kinds} & {"network", "ipc", "uts"}, proc)
        os.close(proc)
        _cgroup_namespace(jail, spec)
        _time_namespace(jail, spec)
        if has_create_hooks(spec):
            calls.add("prctl", libc.PR_SET_DUMPABLE, 0, says="cannot be made unreadable for hooks (PR_SET_DUMPABLE)")
            calls.barrier()
        late = LateMounts(calls, JAIL_FD + len(jail.fds))
        mounts.mount_all(tree, spec, plan.directories, late)
        devices.make_devices(tree, spec)
        if terminal is not None:
            devices.make_console(tree, terminal)
        mounts.hide(tree, spec, late)
        jail.fds += late.fds
        set_sysctls(spec)
        _make_cwd(tree, process)
        if not late.holds(process["cwd"]):
            jail.cwd = _open_cwd(jail, process)
        jail.program = find_program(tree.fd, process)
        file = jail.program.file
        native = file is not None and is_native(file)
        if not native:  # a pod's annotations are its sidecars', too
            jail.listening = [jail.add(listener(*address)) for address in plan.listen]
        if not native:
            refuse(spec)
            refuse_options(spec)
            refuse_listener(spec)
        last_calls(jail, plan, native=native)
        if has_create_hooks(spec) and not native:
            hold(jail)
        if spec["root"].get("readonly"):
            rootfs.make_readonly(tree)  # last: mount points had to be made
        rootfs.pivot(tree)  # the node's files are out of sight from here on, our own modules, too
    except BaseException:
        jail.close()
        raise
    return jail


def find_jail(plan: JoinJail) -> Jail:
    """For an exec: that of the container's first process.

    :raises NotFound: it is gone
    """
    pid, process = plan.init_pid, plan.process
    jail = Jail(calls := SystemCalls())
    try:
        first_calls(calls, process, plan.directories, plan.unified, terminal=plan.terminal)
        # By one descriptor: of this process, or of none if it ends meanwhile, whoever gets its number.
        proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
        jail.add(root)
        wanted = {one["type"] for one in plan.spec.get("linux", {}).get("namespaces", [])}
        _hand_over_namespaces(jail, wanted - {"pid", "user", "mount"}, proc)
        os.close(proc)
        jail.cwd = _open_cwd(jail, process)
        jail.program = find_program(root, process)
        last_calls(jail, plan, native=plan.is_hook)
    except (FileNotFoundError, ProcessLookupError) as error:
        jail.close()
        raise NotFound(f"the container's first process is gone: {reason(error)}") from None
    except BaseException:
        jail.close()
        raise
    return jail


def last_calls(jail: Jail, plan: JailPlan, *, native: bool) -> None:
    """Add the calls by which the process gives up what it may not keep, and the moment at which its program is loaded:
    when that is done, but for the filter, since a profile need only allow what programs do.

    :param native: true if a native program is executed, which Landlock's ruleset would forbid
    """
    calls, spec, process = jail.calls, plan.spec, plan.process
    early = is_labelled(process) or not _can_go_on(jail, process)
    if early:
        calls.load()
    label(calls, process)
    ruleset = None if native else landlock.ruleset(jail.fds[0], spec)
    if ruleset is not None:
        ruleset = jail.add(ruleset)
    if len(jail.fds) > _MOST:
        raise InvalidArgument(f"{len(jail.fds)} mounts in /proc and listening sockets are too many")
    if jail.cwd is not None:
        calls.add("fchdir", jail.cwd, says=_SAYS_CWD.format(process["cwd"]))
    # One by one, and before there is a filter: a profile need not allow it. Not all that is open: an engine may keep a
    # module's file, for its memory's sake.
    for number in range(JAIL_FD, JAIL_FD + len(jail.fds)):
        if number not in jail.listening and number != ruleset:
            calls.add("close", number, says="descriptors", policy=Policy.TRY)
    scheduling.treat(calls, spec, process, further=isinstance(plan, JoinJail))
    privileges.drop(calls, process, dumpable=not _meets_hooks(plan))
    if ruleset is not None:
        landlock.confine(calls, ruleset)
    if not early:
        calls.load()
    privileges.filter(calls, plan.seccomp, seccomp_flags(spec))
    if jail.cwd is None:
        calls.add("chdir", os.fsencode(process["cwd"]), says=_SAYS_CWD.format(process["cwd"]))


def _can_go_on(jail: Jail, process: Process) -> bool:
    """Returns whether the process can come back to its working directory when it has only its user's powers: to load
    its program, it goes to where that is."""
    if jail.cwd is None:  # it goes there last
        return True
    user = process.get("user", {})
    with acting_on_files_as(user), suppress(OSError):
        again = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=jail.fds[jail.cwd - JAIL_FD])
        anybody = os.fstat(again).st_mode & 0o111 == 0o111
        os.close(again)
        return anybody or user.get("uid", 0) != 0  # root may be about to lose what lets it go anywhere
    return False


def _meets_hooks(plan: JailPlan) -> bool:
    """Returns whether programs of the image's run beside a worker that waits for its start, with its user's powers:
    what it has open, and what it executes, is the node's, and not for them."""
    return isinstance(plan, NewJail) and bool(plan.spec.get("hooks", {}).get("startContainer"))


def _open_cwd(jail: Jail, process: Process) -> int | None:
    """Open the working directory. As runc has it, a process may start where its user could not go (images have
    ``WORKDIR /root``), and where only its user can, on a volume that does not trust root. By no link of /proc, which
    leads out (CVE-2024-21626).

    :returns: the worker's descriptor; ``None``: it goes there by itself, once it is nobody but its user
    :raises InvalidArgument: it is a link that leads nowhere, or out
    """
    try:
        return jail.add(libc.open_in_root(jail.fds[0], f"{process['cwd']}/.", os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidArgument(f"{_SAYS_CWD.format(process['cwd'])}: {reason(error)}") from None
        return None


def _hand_over_namespaces(jail: Jail, kinds: set[str], proc: int) -> None:
    """To be joined by the process; the mount namespace last, since it hides the node's files.

    :param proc: the directory /proc/PID of who is in them
    """
    for kind in [*sorted(kinds), "mount"]:
        flag, name = known(kind)
        fd = jail.add(os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc))
        jail.calls.add("setns", fd, flag, says=f"cannot join the {kind} namespace")


def _cgroup_namespace(jail: Jail, spec: Spec) -> None:
    """A new one begins where its maker is: so the process makes it."""
    for one in spec.get("linux", {}).get("namespaces", []):
        if one["type"] != "cgroup":
            continue
        if path := one.get("path"):
            fd = jail.add(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            jail.calls.add("setns", fd, libc.CLONE_NEWCGROUP, says=f"cannot join the cgroup namespace {path}")
        else:
            jail.calls.add("unshare", libc.CLONE_NEWCGROUP, says="cannot make a cgroup namespace")


def _time_namespace(jail: Jail, spec: Spec) -> None:
    if (made := time_namespace(spec)) is not None:
        fd = jail.add(made)
        jail.calls.add("setns", fd, libc.CLONE_NEWTIME, says="cannot join the time namespace")


def _make_cwd(tree: Tree, process: Process) -> None:
    """Make it, as runc does, since images name working directories that nobody made; a read-only root may refuse."""
    with suppress(OSError):
        os.close(tree.make(process["cwd"], directory=True))
