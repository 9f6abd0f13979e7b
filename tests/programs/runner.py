"""Runs programs under containerd: an image with the program, a volume with its files, ``ctr run``.

As a program (``python -m tests.programs.runner ENGINE NAME...``) it writes what came of them as JSON: so it is run in
the root tree of Debian 13, for engines whose libraries are there alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.e2e import audit, images, leftovers, trixie
from tests.e2e.containerd import LAUNCHERS, REPOSITORY, VERSIONS, Containerd, running
from tests.e2e.http_app import free_port
from tests.programs import fetch, server
from tests.programs.suite import Expected, Program, programs

#: Seconds for a run, of which most is the compilation of large programs.
PATIENCE = 580
WORK = "/files"
#: Of this run alone: cgroups are named by it.
NAMESPACE = f"programs-{os.getpid()}"
_DEBIAN, _V2 = VERSIONS


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    name: str
    engine: str
    code: int | None
    """The exit code; ``None``: it was killed, as it did not end."""
    stdout: str = ""
    stderr: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """What it made, as hexadecimal digits."""
    answers: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def program(self) -> Program:
        return next(program for program in programs() if program.name == self.name)

    @property
    def failure(self) -> str | None:
        """What is not as it must be, on one line; ``None``: nothing."""
        if self.code is None:
            return f"did not end within {PATIENCE} seconds"
        return next(self._differences(self.program.expected_on(self.engine)), None)

    def _differences(self, expected: Expected) -> Iterator[str]:
        if self.code != expected.code:
            yield f"exit code {self.code}, not {expected.code}: {self.stderr.strip()[-600:]}"
        if expected.stdout not in (None, self.stdout):
            yield f"printed {self.stdout!r}, not {expected.stdout!r}"
        for words, text in ((expected.stdout_has, self.stdout), (expected.stderr_has, self.stderr)):
            yield from (f"{word!r} is not in {text!r}" for word in words if word not in text)
        if self.answers != list(expected.answers):
            yield f"answered {self.answers}, not {expected.answers}: {self.stderr.strip()[-600:]}"
        for name, content in expected.files.items():
            made = self.files.get(name)
            if made is None or _as_said(bytes.fromhex(made), content) != content:
                yield f"{name} is {made}, not {content!r}"


def _as_said(data: bytes, content: str) -> str:
    """A file's content in the form in which it is expected."""
    kind, _, said = content.partition(":")
    if kind == "sha256":
        return f"sha256:{sha256(data).hexdigest()}"
    if kind == "begins":
        return f"begins:{data[: len(said)].decode(errors='replace')}"
    return f"hex:{data.hex()}" if kind == "hex" else data.decode(errors="replace")


def outcomes(engine: str, chosen: Sequence[Program]) -> list[Outcome]:
    """Each program on an engine, one after the other, here or in the root tree of Debian 13.

    :raises LookupError: the engine runs in neither
    """
    enter = trixie.where(engine)
    if enter is None:
        raise LookupError(f"{engine} cannot run here, and there is no tree of Debian 13: run tools/setup")
    for program in chosen:
        fetch.module(program)
        fetch.extras(program)
    return _there(enter, engine, chosen) if enter else _here(engine, chosen)


def _there(enter: list[str], engine: str, chosen: Sequence[Program]) -> list[Outcome]:
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--"]
    command = [*alone, *enter, str(trixie.PROGRAMS / "python"), "-m", __name__, engine, *map(str, chosen)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return [Outcome(**each) for each in json.loads(done.stdout)]


def _here(engine: str, chosen: Sequence[Program]) -> list[Outcome]:
    with _containerd() as containerd, tempfile.TemporaryDirectory(prefix="shimd-programs-") as directory:
        return [_run(containerd, engine, program, Path(directory) / program.name) for program in chosen]


@contextmanager
def _containerd() -> Iterator[Containerd]:
    audit.install()
    with suppress(FileExistsError):  # the engine wasmer-sdk has no launcher of its own
        (LAUNCHERS / "containerd-shim-wasmer-sdk-v1").symlink_to("containerd-shim-wasmer-v1")
    newest = _V2 if Path(_V2.programs).exists() else _DEBIAN
    with running(newest, Containerd) as containerd:
        try:
            yield containerd
        finally:
            leftovers.remove_parents(NAMESPACE)


def _run(containerd: Containerd, engine: str, program: Program, work: Path) -> Outcome:
    work.mkdir()
    for name, text in program.files.items():
        (work / name).write_text(text)
    image = f"test.invalid/{program.name}:1"
    _import(containerd, program, image, work.with_suffix(".tar"))
    mount = f"type=bind,src={work},dst={WORK},options=rbind:{'rw' if program.writes else 'ro'}"
    volume = ["--mount", mount] if program.files or program.writes else []
    env = [word for name, value in program.env.items() for word in ("--env", f"{name}={value}")]
    address = f"127.0.0.1:{free_port()}"
    network = ["--net-host", "--env", f"{server.VARIABLE}={address}"] if program.requests else []
    command = ["run", "--rm", "--runtime", f"io.containerd.{engine}.v1", *volume, *env, *network, image, program.name]
    began = time.monotonic()
    words = [*command, "/app.wasm", *program.args] if program.args else command
    code, out, err, answers = _ctr(containerd, program, words, address)
    seconds = time.monotonic() - began
    containerd.ctr("images", "rm", "--sync", image, namespace=NAMESPACE)
    made = {name: (work / name).read_bytes().hex() for name in program.expected.files if (work / name).exists()}
    return Outcome(program.name, engine, code, out, err, made, answers, seconds)


def _import(containerd: Containerd, program: Program, image: str, archive: Path) -> None:
    files = {"/app.wasm": fetch.module(program)} | fetch.extras(program)
    layer = images.layer({path: file.read_bytes() for path, file in files.items()}, ["files", "tmp"])
    images.save(archive, [images.image(image, [layer], {"Entrypoint": ["/app.wasm"]})])
    containerd.import_image(archive, NAMESPACE)
    archive.unlink()


def _ctr(
    containerd: Containerd, program: Program, arguments: list[str], address: str
) -> tuple[int | None, str, str, list[str]]:
    stdin = subprocess.DEVNULL if program.stdin is None else subprocess.PIPE
    process = subprocess.Popen(
        containerd.command(*arguments, namespace=NAMESPACE),
        env=containerd.env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if program.stdin is not None:  # ctr forgets the end of its stdin if that comes before the task
        _wait_for_task(containerd, process)
    answers = []
    if program.requests:
        answers = server.answers(address, program.requests, lambda: process.poll() is not None, PATIENCE)
        containerd.ctr("tasks", "kill", program.name, namespace=NAMESPACE, check=False)
    try:
        out, err = process.communicate(program.stdin, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        containerd.ctr("tasks", "delete", "--force", program.name, namespace=NAMESPACE, check=False)
        process.terminate()
        out, err = process.communicate()
        return None, out, err, answers
    return process.returncode, out, err, answers


def _wait_for_task(containerd: Containerd, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if "RUNNING" in containerd.ctr("tasks", "ls", namespace=NAMESPACE).out:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    wanted = [program for program in programs() if program.name in sys.argv[2:]]
    json.dump([asdict(outcome) for outcome in outcomes(sys.argv[1], wanted)], sys.stdout)
