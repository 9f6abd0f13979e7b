"""A container's hooks: the programs that its configuration names for moments of its life (config.md, "POSIX-platform
Hooks"), with what runc adds to the specification.

A hook is a worker that becomes another program (:mod:`shimd.worker.hook`): on the node, in the container's namespaces
while they still show the node's files, or inside. It reads the container's state, and what it says is told if it fails.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import anyio

from shimd import oci
from shimd.cgroup import Cgroup
from shimd.errors import Internal, ShimdError, from_code
from shimd.isolation.namespaces import known
from shimd.isolation.seccomp import worker_filter
from shimd.linux.memory_file import memory_file
from shimd.log import logger
from shimd.protocol.plans import HookCommand, JoinJail
from shimd.protocol.system_calls import SystemCalls
from shimd.supervisor.task import bundle as bundle_files
from shimd.supervisor.task import plans
from shimd.supervisor.task.context import Context
from shimd.supervisor.workers.fork_client import ANYWHERE, Birthplace
from shimd.supervisor.workers.jailers import nothing

_log = logger(__name__)
Kind = Literal["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
#: Seconds that a poststop hook may take whatever its own limit: Delete has to end. The kubelet does not wait longer.
LONGEST = 120
#: Of what a hook says, in an error.
_TAIL = 2000
#: Where a hook has the namespaces that it joins.
_FIRST_FD = 310


@dataclass
class _Where:
    """The node, or a place in a container."""

    directory: str = ""
    """The working directory, if the calls do not lead to one."""
    executor: str = ""
    """The program that executes the hook's, in a container."""
    birthplace: Birthplace = ANYWHERE
    jail: Sequence[int] = ()
    """The calls to it, and its descriptors."""


class Hooks:
    """The hooks of one container. Those that it does not have cost nothing."""

    def __init__(self, context: Context, id: str, bundle: Path, spec: oci.Spec) -> None:
        self._context, self._id, self._bundle, self._spec = context, id, bundle, spec
        self._hooks = spec.get("hooks", {})
        self._node = _Where(str(bundle))

    @property
    def are_last(self) -> bool:
        """Whether some are to be run when all else is gone."""
        return bool(self._hooks.get("poststop"))

    def begin(self) -> None:
        """None of them has been run yet."""
        bundle_files.forget_claims(self._bundle, len(self._hooks.get("poststop", [])))

    def claim_last(self) -> bool:
        """Whether all that are to be run last are ours to run, or another's who is asked to by us."""
        numbers = range(len(self._hooks.get("poststop", [])))
        return all(bundle_files.claim_last_hook(self._bundle, number) for number in numbers)

    @property
    def run_before_start(self) -> bool:
        """Whether some are to be run when a process that is ready is about to be started."""
        return bool(self._hooks.get("startContainer"))

    @property
    def run_inside(self) -> bool:
        """Whether some run in the container's cgroup, and may leave processes there."""
        return bool(self._hooks.get("createContainer") or self._hooks.get("startContainer"))

    async def creating(self, pid: int, cgroup: Cgroup) -> None:
        """prestart, createRuntime and createContainer.

        :param pid: a process in the container's namespaces, which waits there
        :raises ShimdError: one failed; the container must not be
        """
        await self._run("prestart", "creating", pid, self._node)
        await self._run("createRuntime", "creating", pid, self._node)
        if self._hooks.get("createContainer"):
            calls = memory_file("shimd-calls", _into(pid, self._spec, cgroup).packed())
            try:
                where = self._beside(pid, cgroup, calls)
                await self._run("createContainer", "creating", _inner_pid(pid), where)
            finally:
                os.close(calls)

    async def starting(self, pid: int, cgroup: Cgroup) -> None:
        """startContainer, in the container as its process would be.

        :raises ShimdError: one failed; the container must not run
        """
        for number, hook in enumerate(self._hooks.get("startContainer", [])):
            process = oci.Process(**{**self._spec["process"], "args": [hook["path"]], "terminal": False})
            seccomp = worker_filter(self._spec) if self._spec.get("linux", {}).get("seccomp") else ""
            plan = plans.exec(self._id, self._spec, process, cgroup, pid, terminal=False, seccomp=seccomp)
            assert isinstance(plan.place, JoinJail)
            with await self._context.jail(replace(plan.place, is_hook=True), None, nothing) as jail:
                # As with runc, a hook without an environment has the process's.
                env = hook.get("env")
                inside = oci.Hook(**{**hook, "env": process.get("env", []) if env is None else env})
                where = _Where("", plans.pause_program(), plan.birthplace, [jail.calls, *jail.fds])
                await self._run_one("startContainer", number, inside, self._state("created", _inner_pid(pid)), where)

    async def started(self, pid: int) -> None:
        """poststart.

        :raises ShimdError: one failed; the container must be stopped
        """
        await self._run("poststart", "running", pid, self._node)

    async def stopped(self) -> None:
        """poststop: what fails is a warning, and the others follow. Each is run once, by us or by the launcher."""
        for number, hook in enumerate(self._hooks.get("poststop", [])):
            if not bundle_files.claim_last_hook(self._bundle, number):
                continue
            limited = oci.Hook(**{**hook, "timeout": min(hook.get("timeout", LONGEST), LONGEST)})
            try:
                await self._run_one("poststop", number, limited, self._state("stopped", None), self._node)
            except (ShimdError, OSError) as error:
                _log.warning("container %s: %s", self._id, error)

    async def _run(self, kind: Kind, status: str, pid: int, where: _Where) -> None:
        for number, hook in enumerate(self._hooks.get(kind, [])):
            await self._run_one(kind, number, hook, self._state(status, pid), where)

    async def _run_one(self, kind: Kind, number: int, hook: oci.Hook, state: bytes, where: _Where) -> None:
        name = f"hooks.{kind}[{number}] ({hook['path']})"
        given = memory_file("shimd-state", state)
        said = memory_file("shimd-hook", b"")
        try:
            with anyio.fail_after(hook.get("timeout")):
                status = await self._become(kind, hook, (given, said, said), where)
        except TimeoutError:
            raise Internal(f"{name} took longer than its timeout of {hook['timeout']} s") from None
        except ShimdError as error:
            raise from_code(error.code, f"{name}: {error}") from None
        else:
            if status != 0:
                raise Internal(f"{name} {_ended(status)}{_last_words(said)}")
        finally:
            os.close(given)
            os.close(said)

    async def _become(self, kind: Kind, hook: oci.Hook, stdio: tuple[int, int, int], where: _Where) -> int:
        """Returns the wait status."""
        program = oci.Hook(**{**hook, "env": _environment(hook)})
        plan = HookCommand(program, where.directory, where.executor)
        forks = await self._context.forks()
        worker = await forks.spawn(self._key(kind), plan, stdio, where.birthplace, where.jail)
        try:
            await worker.becomes_another()
            await worker.exited.wait()
            assert worker.status is not None
            return worker.status
        finally:
            await forks.end(worker)

    def _key(self, kind: Kind) -> str:
        return f"{self._context.namespace}/{self._id}/{kind}@{time.time_ns()}"

    def _state(self, status: str, pid: int | None) -> bytes:
        """runtime.md, "State"."""
        state: dict[str, Any] = {"ociVersion": oci.VERSION, "id": self._id, "status": status}
        if pid is not None:
            state["pid"] = pid
        state["bundle"] = str(self._bundle)
        return json.dumps(state | {"annotations": self._spec.get("annotations", {})}).encode()

    def _beside(self, pid: int, cgroup: Cgroup, calls: int) -> _Where:
        """The place of the container's first process before its root is made."""
        pidns = f"/proc/{pid}/ns/pid" if plans.pid_namespace(self._spec) else None
        root = str(self._bundle / self._spec["root"]["path"])
        return _Where(root, "", Birthplace(pidns, cgroup.unified), [calls])


def _into(pid: int, spec: oci.Spec, cgroup: Cgroup) -> SystemCalls:
    """Into the namespaces of a process, all that are not entered by being forked there."""
    calls = SystemCalls()
    calls.join_cgroup(cgroup.directories, cgroup.unified)
    kinds = [one["type"] for one in spec.get("linux", {}).get("namespaces", []) if one["type"] not in ("pid", "mount")]
    joined = list(enumerate([*kinds, "mount"], _FIRST_FD))  # the mount namespace last: it may hide /proc
    for fd, kind in joined:
        calls.open(f"/proc/{pid}/ns/{known(kind)[1]}", os.O_RDONLY, fd, f"{kind} namespace")
    for fd, kind in joined:
        calls.add("setns", fd, known(kind)[0], says=f"{kind} namespace")
    return calls


def _inner_pid(pid: int) -> int:
    """A pid as the container sees it: the last one of its numbers (proc_pid_status(5), NSpid)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:")), pid)


def _environment(hook: oci.Hook) -> list[str]:
    """The variables that are given, exactly. With none, the one thing of the daemon's own that is no secret."""
    given = hook.get("env")
    return [f"PATH={os.environ.get('PATH', os.defpath)}"] if given is None else given


def _ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"failed with exit status {code}" if code >= 0 else f"was ended by signal {-code}"


def _last_words(said: int) -> str:
    size = os.fstat(said).st_size
    text = os.pread(said, _TAIL, max(0, size - _TAIL)).decode(errors="replace").strip()
    return f": {text}" if text else ""
