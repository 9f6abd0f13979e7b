"""Compiled modules: a program's file in, its compiled form on disk out, compiled at most once."""

import os
import signal
import time
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from shimd.cgroup import Cgroup
from shimd.cgroup.processors import processors
from shimd.engines.registry import engine_compiler, engine_family, engine_version
from shimd.errors import Internal, ResourceExhausted, from_code
from shimd.formats.magic import reject_native
from shimd.isolation.seccomp import worker_filter
from shimd.protocol import plans
from shimd.protocol.constants import RUNNER_FILE
from shimd.protocol.worker import Error
from shimd.supervisor.background import Background
from shimd.supervisor.metrics.measures import NOTHING, Measures
from shimd.supervisor.modules.cache import Cache
from shimd.supervisor.modules.compilations import Compilation, Compilations, Waiter
from shimd.supervisor.modules.compile_cgroups import CompileCgroups
from shimd.supervisor.modules.source import Source, source
from shimd.supervisor.tracing.steps import step
from shimd.supervisor.workers.fork_client import Birthplace, ForkClient, Worker
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.programs import Program

#: Seconds that a compilation may take unless SHIMD_COMPILE_SECONDS says otherwise: its processor time is limited, too,
#: and this is for one that sleeps, or is stopped.
_LONGEST = 3600.0


class Modules:
    """The module cache, filled by throw-away compile workers, as many at a time as there are processors.

    A compilation that has begun is the daemon's: it goes on when all who asked for it have gone away, and who asks
    again finds it. One that still waits for its turn is dropped.
    """

    def __init__(self, fork_servers: ForkServers, tasks: Background, measures: Measures = NOTHING) -> None:
        self._fork_servers, self._measures = fork_servers, measures
        self.cache = Cache(tasks=tasks)
        self.compilations = Compilations()
        self._turns, self._looks = anyio.CapacityLimiter(processors()), anyio.CapacityLimiter(1)
        self._cgroups = CompileCgroups()
        tasks.start_soon(self._cgroups.sweep)

    async def compiled(self, waiter: Waiter, name: str, fd: int, digest: str = "") -> Program:
        """The compiled form of the program in ``fd``, called ``name``.

        :param digest: its hash, if that is known (:func:`source`)

        :raises InvalidArgument: it is not WebAssembly, or not valid
        :raises Unimplemented: it cannot run on the waiter's engine
        :raises ResourceExhausted: it is too large, or no space, memory or time is left to compile it
        """
        family = engine_family(waiter.engine)
        program = await source(name, fd, reject_native, digest)
        compilation = Compilation(name, family, os.fstat(fd).st_size, program.digest, waiter.container)

        async def compile(own: Source, artifact: Path) -> None:
            with self.compilations.listed(compilation):
                if not self._turns.available_tokens:  # it may wait for minutes: not so what is refused anyway
                    async with self._looks:
                        with compilation.looked_at():
                            await self._compile(waiter.engine, compilation, own, artifact, only_look=True)
                async with self._turns:
                    await checkpoint_if_cancelled()  # it was dropped at the moment of its turn
                    about = step("compile", program=compilation.program, bytes=compilation.size)
                    with about, compilation.going_on(), self._measures.compiling(family):
                        await self._compile(waiter.engine, compilation, own, artifact)

        with self.compilations.waiting(waiter, name, program.digest):
            path = await self.cache.artifact(
                family, engine_version(family), program, compile, waiter.engine, compilation.drop
            )
        return compiled_program(path)

    async def _compile(
        self, engine: str, compilation: Compilation, program: Source, artifact: Path, *, only_look: bool = False
    ) -> None:
        forks = await self._fork_servers.get(engine_compiler(engine))
        async with self._cgroups.one() as cgroup:
            await compile_in_worker(
                forks, compilation.program, program, artifact, worker_filter({}), engine, cgroup, only_look=only_look
            )


def compiled_program(artifact: Path) -> Program:
    """A program of the cache, with what the compile worker noted of it (``worker/compile.py``)."""
    try:
        return Program(artifact, (artifact.parent / RUNNER_FILE).read_text())
    except OSError:  # none was noted, or a disk that crashed has made something else of the entry
        return Program(artifact)


async def compile_in_worker(
    forks: ForkClient,
    name: str,
    program: Source,
    artifact: Path,
    seccomp: str = "",
    engine: str = "",
    cgroup: Cgroup | None = None,
    *,
    only_look: bool = False,
) -> None:
    """Compile a program into ``artifact``, in a process of its own.

    :param seccomp: its filter, as in the plan
    :param engine: that will run it, if it is another than the fork server's
    :param cgroup: of that process alone
    :param only_look: whether to see by its outline only if it is worth while

    :raises ShimdError: what is wrong with the module, or with the worker
    """
    unified = cgroup.unified if cgroup is not None else None
    plan = plans.Compilation(
        artifact=str(artifact),
        digest=program.digest,
        engine=engine,
        only_look=only_look,
        seccomp=seccomp,
        directories=[] if cgroup is None or unified else cgroup.directories,
        limited=cgroup is not None,
    )
    # In a pid namespace its end is the end of all that it started, and it sees nobody whom it could kill.
    birthplace = Birthplace("new" if os.geteuid() == 0 else None, unified)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        worker = await forks.spawn(f"compile/{artifact}@{time.time_ns()}", plan, (program.fd, null, null), birthplace)
    finally:
        os.close(null)
    try:
        with anyio.fail_after(longest()):
            await _outcome(name, worker, cgroup)
    except TimeoutError:
        raise ResourceExhausted(f"{name}: compiling takes longer than SHIMD_COMPILE_SECONDS allows") from None
    finally:
        await forks.end(worker)


def longest() -> float:
    """Seconds that a compilation may take, once it has begun."""
    return float(os.environ.get("SHIMD_COMPILE_SECONDS") or _LONGEST)


async def _outcome(name: str, worker: Worker, cgroup: Cgroup | None) -> None:
    packet = await worker.receive()
    if packet is None:
        await worker.exited.wait()
        if cgroup is not None and cgroup.oom_count():
            raise ResourceExhausted(f"{name}: compiling takes more memory than SHIMD_COMPILE_MEMORY allows")
        raise Internal(f"{name}: the compile worker died{_of_what(worker.status or 0)}")
    message, _fds = packet
    if isinstance(message, Error):
        raise from_code(message.code, f"{name}: {message.message}")


def _of_what(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f" of {signal.Signals(-code).name}" if code < 0 else ""
