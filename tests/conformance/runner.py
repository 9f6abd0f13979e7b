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

from tests.conformance.guests import CACHE, compiled
from tests.conformance.suite import FIXTURE, Case
from tests.e2e import leftovers, trixie

#: Seconds until a guest counts as hanging.
PATIENCE = 60
#: Guests that run at a time: a run waits as much as it works.
AT_ONCE = 3
#: LLVM takes a second for each module: what wasmedge has compiled once is kept.
_CACHES = {"wasmedge": {"SHIMD_CACHE_DIR": str(CACHE / "compiled")}}
#: What a check that fails says first: where it stands in the guest's source.
_CHECK = re.compile(r"[\w-]+\.[ch]:\d+: ")


@dataclass(frozen=True)
class Outcome:
    """How a case went."""

    case: Case
    engine: str
    code: int | None
    """The exit code; ``None``: it was killed, as it did not end."""
    stdout: str = ""
    stderr: str = ""

    @property
    def failure(self) -> str | None:
        """What went wrong, on one line; ``None``: nothing."""
        said = self.stderr.strip().splitlines()
        if self.code is None:
            return f"did not end within {PATIENCE} seconds"
        if self.code != self.case.exit_code:
            return said[0] if said else f"exit code {self.code}, not {self.case.exit_code}"
        if self.case.stdout not in (None, self.stdout):
            return f"printed {self.stdout!r}, not {self.case.stdout!r}"
        return None

    @property
    def guest_says(self) -> bool:
        """Whether it is the guest that found a failure, and no accident before or after."""
        return self.code == 1 and _CHECK.match(self.stderr) is not None


class Runner:
    """Below a directory of its own, by whose name its processes are known."""

    def __init__(self, directory: Path, *, zygote: bool) -> None:
        self._directory = directory
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
        module = compiled(case.source, case.define)
        enter = trixie.where(engine) or []
        command = [trixie.PROGRAMS / "shimd", "run", "--engine", engine, *_options(case, directory), module, *case.args]
        process = subprocess.Popen(
            [*enter, *map(str, command)],
            env={**self._env, **_CACHES.get(engine, {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()  # `shimd run` hands it on
            process.communicate(timeout=PATIENCE)
            return Outcome(case, engine, None)
        return Outcome(case, engine, process.returncode, out, err)

    def close(self) -> None:
        leftovers.end(list(leftovers.processes_of(self._directory)))


def _options(case: Case, directory: Path) -> Iterator[str]:
    for name, value in case.env.items():
        yield from ("--env", f"{name}={value}")
    if case.root:
        shutil.copytree(FIXTURE, directory / "root")
        yield from ("--dir", f"{directory}/root::/")


@contextmanager
def runner(*, zygote: bool = True) -> Iterator[Runner]:
    """
    :param zygote: whether workers without Python may be made
    """
    with tempfile.TemporaryDirectory(prefix="shimd-conformance-") as directory:
        Path(directory).chmod(0o755)  # compile workers, which are nobody, reach their own directories
        made = Runner(Path(directory), zygote=zygote)
        try:
            yield made
        finally:
            made.close()
