"""Runs cases by ``shimd run``: the fork server, the module cache and the worker that containers get."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.components import rust
from tests.conformance.endpoints import serving
from tests.conformance.guests import CACHE, compiled
from tests.conformance.suite import HERE, Case
from tests.conformance.talks import ask, begin, echo
from tests.e2e import leftovers, trixie
from tests.e2e.containerd import PATIENCE
from tests.e2e.http_app import free_port

#: Guests that run at a time: a run waits as much as it works.
AT_ONCE = 3
#: LLVM takes a second for each module: what wasmedge has compiled once is kept.
_CACHES = {"wasmedge": {"SHIMD_CACHE_DIR": str(CACHE / "compiled")}}
#: What a check that fails says first: where it stands in the guest's source.
_CHECK = re.compile(r"[\w-]+\.(?:[ch]|rs):\d+: ")


@dataclass(frozen=True)
class Outcome:
    """How a case went."""

    case: Case
    engine: str
    code: int | None
    """The exit code; ``None``: it was killed, as it did not end."""
    stdout: str = ""
    stderr: str = ""
    wrong: str | None = None
    """What somebody who talked to it met otherwise than they must."""

    @property
    def failure(self) -> str | None:
        """What went wrong, on one line; ``None``: nothing."""
        said = self.stderr.strip().splitlines()
        if self.code is None:
            return f"did not end within {PATIENCE} seconds"
        if self.wrong is not None:
            return said[0] if self.guest_says else self.wrong
        if self.code != self.case.exit_code:
            return said[0] if said else f"exit code {self.code}, not {self.case.exit_code}"
        for must, printed in ((self.case.stdout, self.stdout), (self.case.stderr, self.stderr)):
            if must not in (None, printed):
                return f"printed {printed!r}, not {must!r}"
        return None

    @property
    def guest_says(self) -> bool:
        """Whether it is the guest that found a failure, and no accident before or after."""
        return (self.code == 1 or self.wrong is not None) and _CHECK.match(self.stderr) is not None


class Runner:
    """Below a directory of its own, by whose name its processes are known."""

    def __init__(self, directory: Path, server: str, *, zygote: bool) -> None:
        self._directory = directory
        self._server = server
        self._env = {
            "PATH": "/usr/bin:/bin",
            "SHIMD_CACHE_DIR": str(directory / "cache"),
            "TMPDIR": str(directory),
            "SHIMD_ZYGOTE": "yes" if zygote else "no",
        }

    def run_all(self, runs: Iterable[tuple[Case, str]]) -> list[Outcome]:
        """Each case on its engine, in order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda run: self.run(*run), runs))

    def run(self, case: Case, engine: str) -> Outcome:
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            return self._run(case, engine, Path(directory))

    def _run(self, case: Case, engine: str, directory: Path) -> Outcome:
        program, own = _program(case, directory), f"127.0.0.1:{free_port()}"
        enter, options = trixie.where(engine) or [], _options(case, directory)
        if case.requests:
            options = [*options, *_places(own, self._server)]
        command = [trixie.PROGRAMS / "shimd", "run", "--engine", engine, *options, program, *case.args]
        process = subprocess.Popen(
            [*enter, *map(str, command)],
            bufsize=0,  # what is not read yet stays where `communicate` finds it
            env={**self._env, **_CACHES.get(engine, {})},
            stdin=subprocess.PIPE if case.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        printed, wrong = begin(case, process), None
        if case.echo:
            wrong = echo(printed, case.echo)
        elif case.requests:
            wrong = ask(own, case, process)
        try:
            out, err = process.communicate(case.stdin.encode() or None, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()  # `shimd run` hands it on
            process.communicate(timeout=PATIENCE)
            return Outcome(case, engine, None)
        stdout, stderr = (data.decode(errors="replace") for data in (printed + out, err))
        return Outcome(case, engine, process.returncode, stdout, stderr, wrong)

    def close(self) -> None:
        leftovers.end(list(leftovers.processes_of(self._directory)))


def _program(case: Case, directory: Path) -> Path:
    if case.crate is None:
        return compiled(case.source, case.define)
    named = directory / f"{case.name}.wasm"  # by which the component knows which test it is
    named.symlink_to(rust.component(f"conformance-{case.crate}"))
    return named


def _options(case: Case, directory: Path) -> list[str]:
    options = [f"--env={name}={value}" for name, value in case.env.items()]
    if case.root:
        shutil.copytree(HERE / case.fixture, directory / "root")
        options += ["--dir", f"{directory}/root::/"]
    if case.network:
        options.append("--network")
    return options


def _places(own: str, server: str) -> list[str]:
    """What a server is told: where it is, and where others are, or are not."""
    places = {"WASMTIME_HTTP_PROXY_SOCKET_ADDR": own, "SERVER": server, "NOBODY": f"127.0.0.1:{free_port()}"}
    return [f"--env={name}={value}" for name, value in places.items()]


@contextmanager
def runner(*, zygote: bool = True) -> Iterator[Runner]:
    """
    :param zygote: whether workers without Python may be made
    """
    with tempfile.TemporaryDirectory(prefix="shimd-conformance-") as directory:
        Path(directory).chmod(0o755)  # compile workers, which are nobody, reach their own directories
        with serving() as server:
            made = Runner(Path(directory), server, zygote=zygote)
            try:
                yield made
            finally:
                made.close()
