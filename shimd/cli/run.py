"""``shimd run``: a program in a worker of its own, with no containerd and no daemon around it.

A private fork server, the module cache and the worker are the ones that containers get; what is missing is the
container: the program sees the directories that it is given.
"""

import json
import os
import signal
import stat
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.abc

from shimd import log, settings
from shimd.cli import words
from shimd.engine import Preopen
from shimd.engines.registry import engine_compiler, engine_family, engine_reference, engine_version
from shimd.errors import Internal, InvalidArgument, NotFound, ShimdError, Unimplemented, from_os
from shimd.formats.magic import reject_native
from shimd.isolation.seccomp import worker_filter
from shimd.linux.memory_file import memory_file
from shimd.oci import Process, listen
from shimd.oci.programs import split_entry
from shimd.protocol.plans import HostApp
from shimd.protocol.system_calls import of_host
from shimd.protocol.worker import Start
from shimd.remedies import cause, told
from shimd.supervisor.modules.cache import Cache
from shimd.supervisor.modules.modules import compile_in_worker, compiled_program
from shimd.supervisor.modules.source import Source, source
from shimd.supervisor.task.process import exit_code
from shimd.supervisor.workers.fork_client import ForkClient, Worker
from shimd.supervisor.workers.launch import Launch, ProgramFile
from shimd.supervisor.workers.private_fork_servers import PrivateForkServers, private_fork_servers
from shimd.supervisor.workers.programs import Image, Program
from shimd.timestamp import timestamp

if TYPE_CHECKING:
    from shimd.cli.application import LocalApplication, Stamps

#: Exit codes of shimd's own failures, as of ``docker run``.
NOT_FOUND, NOT_RUNNABLE, FAILED = 127, 126, 125
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class RunOptions(NamedTuple):
    engine: str
    directories: tuple[str, ...]
    """Directories: ``HOST[::GUEST][:ro]``."""
    environment: tuple[str, ...]
    """Variables: ``NAME=VALUE``, or ``NAME`` for our own variable of that name."""
    cwd: str
    network: bool
    entry: str
    program: str
    args: tuple[str, ...]
    listen: tuple[str, ...] = ()
    """Listening sockets: ``[tcp:]PORT`` or ``[tcp:]ADDRESS:PORT``; of an application one, its address."""
    watch: bool = False
    """Whether an application is started anew when a file of it has changed."""


@dataclass
class RunOutcome:
    """The outcome of a run; ``--json`` prints it."""

    program: str
    engine: str
    pid: int = 0
    exit_status: int = FAILED
    error: str | None = None
    """The error that kept it from running; ``None`` if it ran."""
    compile_seconds: float | None = None
    """``None``: it was in the cache."""
    started_at: str | None = None
    exited_at: str | None = None


def main(options: RunOptions, as_json: bool) -> int:
    """Returns the exit code."""
    log.configure("warning")
    if os.geteuid() != 0:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        os.environ.setdefault("SHIMD_CACHE_DIR", f"{home}/shimd")
    outcome = anyio.run(_run, options)
    if as_json:
        print(json.dumps(asdict(outcome), ensure_ascii=False), file=sys.stderr)
    elif outcome.error:
        print(f"shimd: {words.printable(outcome.error)}", file=sys.stderr)
    return outcome.exit_status


async def _run(options: RunOptions) -> RunOutcome:
    run = Run(options)
    await run.run()
    return run.outcome


class Run:
    """One run; how it went stands in ``outcome`` afterwards."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._worker: Worker | None = None
        self._manifest = ""
        """An application's, if its messages name another."""
        self._ended = False
        """Whether somebody has told us to end."""
        self._scope = anyio.CancelScope()
        """Inside the fork server's: what is cancelled cleans up with its help."""
        self.outcome = RunOutcome(options.program, options.engine)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._forward_signals)
            try:
                settings.check()
                await self._attempt()
            except Exception as error:
                self.outcome.error, self.outcome.exit_status = self._told(error), _exit_status(cause(error))
            tasks.cancel_scope.cancel()

    def _told(self, error: Exception) -> str:
        """Returns an error's sentence, with the manifest that there is instead of a container's; a bug's is raised."""
        said = told(error, "run")
        if said is None:
            raise error
        return said.replace("/slightfile.toml", self._manifest) if self._manifest else said

    async def _attempt(self) -> None:
        name, entry = split_entry(self._options.program)
        try:
            engine_reference(self._options.engine)
        except InvalidArgument as error:
            raise Internal(str(error)) from None
        if os.path.isdir(self._options.program) or name.endswith(".toml"):
            from shimd.cli.application import LocalApplication

            await self._application(LocalApplication.of(self._options.program))
            return
        if self._options.watch:
            raise InvalidArgument(f"--watch is for applications, and {name} is a program")
        preopens = with_cwd([preopen(text) for text in self._options.directories], self._options.cwd)
        with ExitStack() as stack:
            wasm = _open(name, stack)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shimd-", dir=_runtime())))
            async with private_fork_servers(directory) as servers:
                programs = _Programs(self._options.engine, servers, self.outcome)
                with self._scope:
                    plan = self._plan(f"{name}#{self._options.entry or entry}", preopens)
                    await self._live(programs, plan, ProgramFile(name, wasm))

    async def _application(self, application: "LocalApplication") -> None:
        self._refuse_programs_options(application)
        engine = self.outcome.engine = self._engine(application)
        self._manifest = os.path.abspath(application.manifest) if application.engine == "slight" else ""
        plan = HostApp(
            id=self._options.program,
            process=Process(args=["/", *self._options.args], env=self._variables(application), cwd="/"),
            artifact="",
            network=True,
            application=os.path.abspath(application.manifest),
        )
        with tempfile.TemporaryDirectory(prefix="shimd-", dir=_runtime()) as directory:
            async with private_fork_servers(Path(directory)) as servers:
                programs = _Programs(engine, servers, self.outcome)
                with self._scope:
                    if self._options.watch:
                        await self._watched(application, programs, plan)
                    else:
                        await self._live(programs, plan, None)

    def _refuse_programs_options(self, application: "LocalApplication") -> None:
        options = self._options
        given = {"--dir": options.directories, "--invoke": options.entry, "--cwd": options.cwd.strip("/")}
        for name in (name for name, value in given.items() if value):
            raise InvalidArgument(f"{name} is for programs: what an application sees is in {application.manifest}")

    def _engine(self, application: "LocalApplication") -> str:
        """Returns who runs an application: if that is asked for, the portable one of its hosts."""
        chosen = self._options.engine
        if chosen == f"{application.engine}-py":
            return chosen
        if chosen not in ("wasmtime", application.engine):
            raise InvalidArgument(f"--engine {chosen}: {application.manifest} is run by {application.engine}")
        return application.engine

    def _variables(self, application: "LocalApplication") -> list[str]:
        if len(self._options.listen) > 1:
            raise InvalidArgument("--listen: an application has one address")
        listen = "".join(self._options.listen).removeprefix("tcp:")
        return [*application.variables(listen), *map(variable, self._options.environment)]

    async def _watched(self, application: "LocalApplication", programs: "_Programs", plan: HostApp) -> None:
        """Run an application again and again: when one of its files has changed, whether it runs by then or not."""
        while not self._ended:
            before = await anyio.to_thread.run_sync(application.stamps)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._restart, application, before, tasks.cancel_scope)
                try:
                    await self._live(programs, plan, None)
                except (ShimdError, OSError) as error:
                    print(f"shimd: {words.printable(self._told(error))}", file=sys.stderr)
                if not self._ended:  # it may have ended by itself, and be mended
                    await application.change(before)
                tasks.cancel_scope.cancel()

    async def _restart(self, application: "LocalApplication", before: "Stamps", starting: anyio.CancelScope) -> None:
        """End an application once it has changed; if it still starts, that is given up."""
        await application.change(before)
        if self._worker is None or self._worker.status is not None:
            starting.cancel()
        self._signal(signal.SIGTERM)

    def _plan(self, program: str, preopens: list[Preopen]) -> HostApp:
        options = self._options
        return HostApp(
            id=options.program,
            process=Process(args=[program, *options.args], env=[*map(variable, options.environment)], cwd=options.cwd),
            artifact="",
            preopens=preopens,
            network=options.network,
            listen=[address for text in options.listen for address in listen.parse(_with_protocol(text), "--listen")],
        )

    async def _live(self, programs: "_Programs", plan: HostApp, file: ProgramFile | None) -> None:
        """Start the worker and wait for its end; its exit code is the outcome."""
        calls = memory_file("shimd-calls", of_host().packed())
        try:
            launch = Launch(programs, "run", file.path if file is not None else plan.application, (0, 1, 2))
            worker = await launch.app(plan, [calls], file)
        finally:
            os.close(calls)
        self._worker, self.outcome.pid = worker, worker.pid
        try:
            self.outcome.started_at = _time(time.time_ns())
            worker.send(Start())
            await worker.exited.wait()
            assert worker.status is not None
            self.outcome.exit_status, self.outcome.exited_at = exit_code(worker.status), _time(worker.exited_at)
        finally:
            self._worker = None
            await worker.forks.end(worker)

    async def _forward_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Forward signals: what is sent to us is meant for the app, which is in a session of its own; before it lives,
        we end."""
        with anyio.open_signal_receiver(*_FORWARDED) as signals:
            task_status.started()
            async for number in signals:
                self._ended = self._ended or number != signal.SIGTSTP
                if number == signal.SIGTSTP:
                    self._pause()
                elif self._worker is not None and self._worker.status is None:
                    self._signal(number)
                else:
                    self.outcome.exit_status = 0 if self._options.watch else 128 + number
                    self._scope.cancel()

    def _pause(self) -> None:
        """Stop the app and ourselves at Ctrl-Z; go on when the shell says so."""
        self._signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        """Signal the app, if it is there: not one that has ended, whether or not we know that by now."""
        if self._worker is not None:
            with suppress(ProcessLookupError):
                self._worker.signal(number)


class _Programs:
    """:class:`~shimd.supervisor.workers.programs.Programs` of one run: private fork servers, and the node's cache."""

    def __init__(self, engine: str, servers: PrivateForkServers, outcome: RunOutcome) -> None:
        self.engine = engine
        self._servers, self._outcome = servers, outcome
        self._cache = Cache()

    async def forks(self, engine: str | None = None) -> ForkClient:
        return await self._servers.get(engine or self.engine)

    async def program(self, container: str, name: str, fd: int | None, digest: str = "", engine: str = "") -> Program:
        if fd is None:
            raise NotFound(f"{name}: no such file or directory")
        reject_native(name, fd)
        engine = engine or self.engine
        family = engine_family(engine)

        async def compile(program: Source, artifact: Path) -> None:
            started = time.monotonic()
            with _progress(name, os.fstat(program.fd).st_size, family):
                forks = await self.forks(engine_compiler(engine))
                await compile_in_worker(forks, name, program, artifact, worker_filter({}), engine)
            self._outcome.compile_seconds = round(time.monotonic() - started, 3)

        program = await source(name, fd, digest=digest)
        version = engine_version(family)
        return compiled_program(await self._cache.artifact(family, version, program, compile, engine))

    async def image(self, container: str, engine: str = "") -> Image:
        raise NotFound("a program that is run alone has no image")

    def view(self, artifact: Path) -> int:
        return self._cache.view(artifact)

    async def discard(self, artifact: Path) -> None:
        await self._cache.discard(artifact)


def preopen(text: str) -> Preopen:
    """Parse ``HOST[::GUEST][:ro]``.

    :raises InvalidArgument: there is no such directory
    """
    rest = text.removesuffix(":ro")
    host, _, guest = rest.partition("::")
    if not os.path.isdir(host):
        raise InvalidArgument(f"--dir {text}: {host} is not a directory")
    return Preopen(os.path.abspath(host), guest or host, rest != text)


def with_cwd(preopens: list[Preopen], cwd: str) -> list[Preopen]:
    """Add ``.``, the working directory: WASI has none but as an open directory of that name.

    :raises InvalidArgument: the guest could not open it
    """
    if cwd == "/" or any(one.guest == "." for one in preopens):
        return preopens
    for one in sorted(preopens, key=lambda one: len(one.guest), reverse=True):
        if f"{cwd}/".startswith(f"{one.guest.rstrip('/')}/"):
            here = os.path.join(one.host, os.path.relpath(cwd, one.guest))
            return [*preopens, Preopen(here, ".", one.read_only)]
    raise InvalidArgument(f"--cwd {cwd} is in no directory of --dir")


def _with_protocol(address: str) -> str:
    return address if address.partition(":")[0].isalpha() else f"tcp:{address}"


def variable(text: str) -> str:
    """Returns ``NAME=VALUE``; ``NAME`` alone gets the value of our own variable, or none."""
    return text if "=" in text else f"{text}={os.environ.get(text, '')}"


def _open(name: str, stack: ExitStack) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{name}: no such file or directory") from None
    except OSError as error:
        raise InvalidArgument(str(from_os(error))) from None
    stack.callback(os.close, fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise InvalidArgument(f"{name} is not a file")
    return fd


def _runtime() -> str | None:
    """Returns the directory for sockets: the user's own (XDG Base Directory Specification); ``None``: /tmp."""
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    return directory if os.path.isdir(directory) else None


def _exit_status(error: Exception) -> int:
    match error:
        case NotFound():
            return NOT_FOUND
        case InvalidArgument() | Unimplemented():
            return NOT_RUNNABLE
        case _:
            return FAILED


def _time(nanoseconds: int) -> str:
    return timestamp(nanoseconds).isoformat().replace("+00:00", "Z")


def _progress(name: str, size: int, engine: str) -> AbstractContextManager[object]:
    """Show progress while a program compiles, on a terminal only."""
    if not sys.stderr.isatty():
        return nullcontext()
    from shimd.cli.progress import progress

    return progress(f"compiling {words.printable(os.path.basename(name))} ({words.size(size)}) for {engine}")
