"""Compiled modules: a program's file in, its compiled form on disk out, compiled at most once."""

import os
import time
from pathlib import Path

from shimd.daemon.forks import ForkPool
from shimd.engines.registry import engine_family, engine_version
from shimd.errors import Internal, from_code
from shimd.log import logger
from shimd.task.magic import reject_native
from shimd.task.seccomp import worker_filter
from shimd.worker.cache import Cache
from shimd.worker.client import Forks, Worker
from shimd.worker.messages import Plan

_log = logger(__name__)


class Modules:
    """The module cache, filled by throw-away compile workers."""

    def __init__(self, pool: ForkPool) -> None:
        self._pool = pool
        self.cache = Cache()
        self.compiling: dict[str, float] = {}
        """Programs being compiled, by name: since when (seconds, monotonic)."""

    async def compiled(self, engine: str, name: str, fd: int) -> Path:
        """The compiled form of the program in ``fd``, called ``name``.

        :raises InvalidArgument: it is not WebAssembly, or not valid
        :raises ResourceExhausted: no space, memory or time left to compile it
        """
        reject_native(name, fd)
        engine = engine_family(engine)

        async def compile(wasm: int, artifact: Path) -> None:
            await self._compile(engine, name, wasm, artifact)

        return await self.cache.artifact(engine, engine_version(engine), fd, compile)

    async def _compile(self, engine: str, name: str, wasm: int, artifact: Path) -> None:
        started = self.compiling[name] = time.monotonic()
        try:
            await compile_in_worker(await self._pool.get(engine), name, wasm, artifact, worker_filter({}))
        finally:
            self.compiling.pop(name, None)
        _log.info("compiled %s for %s in %.2f s", name, engine, time.monotonic() - started)


async def compile_in_worker(forks: Forks, name: str, wasm: int, artifact: Path, seccomp: str = "") -> None:
    """Compile the module in the file ``wasm`` into ``artifact``, in a process of its own.

    :param seccomp: its filter, as in the plan

    :raises ShimdError: what is wrong with the module, or with the worker
    """
    plan = Plan(kind="compile", id=f"compile {name}", artifact=str(artifact), seccomp=seccomp)
    if os.geteuid() == 0:
        plan["pidns"] = "new"  # its end is the end of all that it started, and it sees nobody whom it could kill
    null = os.open(os.devnull, os.O_RDWR)
    try:
        worker = await forks.spawn(f"compile/{artifact}@{time.time_ns()}", plan, (wasm, null, null))
    finally:
        os.close(null)
    try:
        await _outcome(name, worker)
    finally:
        await forks.end(worker)


async def _outcome(name: str, worker: Worker) -> None:
    packet = await worker.receive()
    if packet is None:
        raise Internal(f"{name}: the compile worker died")
    message, _fds = packet
    if message["ev"] == "error":
        raise from_code(message["code"], f"{name}: {message['message']}")
