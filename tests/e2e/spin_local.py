"""An application run by ``shimd run``, from a directory of this machine."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shimd.engines.wasmtime import NATIVE
from tests.e2e import http_app, leftovers, spin_app
from tests.e2e.box import until
from tests.e2e.containerd import LAUNCHERS, PATIENCE
from tests.e2e.http_app import free_port
from tests.e2e.spin_app import PORTABLE_SPIN, SPIN

on_hosts = pytest.mark.parametrize("engine", [SPIN.name, PORTABLE_SPIN.name] if NATIVE else [SPIN.name])


class Running(http_app.App, spin_app.App):
    """An application that is run by ``shimd run``."""


def command(*words: object) -> list[str]:
    return [str(LAUNCHERS / "shimd"), "run", *map(str, words)]


@contextmanager
def running(tmp_path: Path, environment: dict[str, str], *words: object) -> Iterator[Running]:
    address, output = f"127.0.0.1:{free_port()}", tmp_path / "output"
    words = ("-p", address.rpartition(":")[2], *words)
    with (
        output.open("w") as log,
        subprocess.Popen(command(*words), stdout=log, stderr=log, text=True, env=environment, cwd=tmp_path) as process,
    ):
        try:
            told = f"serving on http://{address}\n"
            until(lambda: told in output.read_text() or process.poll() is not None, "the application to listen")
            assert process.poll() is None, output.read_text()
            yield Running(process, address, output)
        finally:
            if process.poll() is None:
                process.kill()
    leftovers.end([*leftovers.processes_of(tmp_path)])


def ended(tmp_path: Path, environment: dict[str, str], *words: object) -> "subprocess.CompletedProcess[str]":
    """An application that ends by itself."""
    return subprocess.run(
        command(*words), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )


def refused(tmp_path: Path, environment: dict[str, str], *words: object) -> tuple[int, str]:
    done = ended(tmp_path, environment, *words)
    return done.returncode, done.stderr
