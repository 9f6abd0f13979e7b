"""The first process of a pod: it holds the pod's namespaces, and its cgroup, for as long as the pod lasts.

containerd asks for it as a container with an image of its own ("pause"), whose program does nothing. Nothing of that
image is needed: this process has an empty root, and becomes a program of ours of a few pages (``worker/pause.c``), or
where none could be compiled waits itself. Seen from outside both are that image's: process 1 of a shared pid
namespace, which waits for orphans, and exits with 0 on TERM and INT.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from shimd.isolation import privileges, scheduling
from shimd.isolation.entry import first_calls, label
from shimd.isolation.namespaces import enter_namespaces
from shimd.isolation.sysctls import set_sysctls
from shimd.isolation.time_namespace import time_namespace
from shimd.linux import libc
from shimd.oci import has_create_hooks
from shimd.oci.fields import refuse
from shimd.protocol.plans import Pause
from shimd.protocol.system_calls import SystemCalls
from shimd.seal import seal

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_EMPTY = libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC


def prepare(plan: Pause, be_held: Callable[[], None]) -> Callable[[], int]:
    """Set the pod up; returns what waits until its end.

    :param be_held: returns when its hooks have been run
    :raises ShimdError: one sentence
    """
    spec, process = plan.spec, plan.spec["process"]
    refuse(spec)
    program = os.open(plan.program, os.O_RDONLY | os.O_CLOEXEC) if plan.program else None
    first_calls(first := SystemCalls(), process, plan.directories, plan.unified, terminal=plan.terminal)
    first.take()
    seal("its entry into the pod")
    enter_namespaces(spec.get("linux", {}).get("namespaces", []), spec)
    set_sysctls(spec)
    if (clocks := time_namespace(spec)) is not None:
        libc.setns(clocks, libc.CLONE_NEWTIME)
        os.close(clocks)
    if has_create_hooks(spec):
        be_held()
    last = _last_calls(plan)
    _empty_root(plan.bundle)
    last.take()
    return lambda: _become(program) if program is not None else _wait()


def _last_calls(plan: Pause) -> SystemCalls:
    """No filter: the one for guests forbids the program, which is ours; nor anything that it does not need."""
    calls, process = SystemCalls(), plan.spec["process"]
    label(calls, process)
    scheduling.treat(calls, plan.spec, process, further=False)
    privileges.drop(calls, {**process, "capabilities": {}, "noNewPrivileges": True})
    return calls


def _empty_root(bundle: str) -> None:
    """A root with nothing in it: whatever the node mounts or unmounts later is none of this process's business."""
    libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("tmpfs", bundle, "tmpfs", _EMPTY, "size=4k,mode=555")
    os.chdir(bundle)
    libc.pivot_root(".", ".")
    libc.umount(".")
    os.chdir("/")


def _become(program: int) -> int:
    os.execve(program, ["pause"], {})


def _wait() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    while signal.sigwait(_SIGNALS) == signal.SIGCHLD:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return 0
