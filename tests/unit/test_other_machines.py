"""What is in C, for a processor that this machine has not: it compiles without a warning, and what needs no kernel of
that machine's runs, if there is something to run it with."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SHIMD = Path(__file__).parents[2] / "shimd"
SOURCES = sorted(SHIMD.rglob("*.c"))
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
#: rt_sigtimedwait(2), by this machine's number: x86_64's and that of all others.
WAITING = ("128", "137")
FLAGS = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", '-DVERSION="1.2.3"')

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no {COMPILER}")
needs_emulator = pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR}")


def compiled(made: Path, *sources: Path, more: tuple[str, ...]) -> Path:
    done = subprocess.run([COMPILER, *FLAGS, *more, "-o", made, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_compiles(source: Path, tmp_path: Path) -> None:
    compiled(tmp_path / "made.o", source, more=("-fPIC", "-c"))


def test_links_lead_where_the_kernel_says_there_too(tmp_path: Path) -> None:
    """The part that knows the processor is in, and not what says that there is none."""
    library = compiled(tmp_path / "made.so", SHIMD / "engines/contained.c", more=("-fPIC", "-shared"))
    assert b"/proc/self/fd/" in library.read_bytes()


@needs_emulator
def test_the_launcher_runs(tmp_path: Path) -> None:
    program = compiled(tmp_path / "containerd-shim-wasmtime-v1", SHIMD / "launcher/launcher.c", more=("-static",))
    done = subprocess.run([EMULATOR, program, "-v"], capture_output=True, text=True, check=True)
    assert "1.2.3" in done.stdout


@pytest.fixture
def pause(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    program = compiled(tmp_path / "pause", SHIMD / "worker/pause.c", more=("-static",))
    process = subprocess.Popen([EMULATOR, program])
    yield process
    process.kill()
    process.wait()


@needs_emulator
def test_a_pods_first_process_ends_with_zero_when_asked(pause: "subprocess.Popen[bytes]") -> None:
    # Whether the signal is blocked does not show: the emulator keeps that to itself. What it waits in does.
    while "sigtimedwait" not in Path(f"/proc/{pause.pid}/wchan").read_text():
        assert pause.poll() is None
        time.sleep(0.01)
    pause.send_signal(signal.SIGTERM)
    assert pause.wait() == 0
