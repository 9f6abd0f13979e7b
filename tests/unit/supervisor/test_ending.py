"""shimd.supervisor.ending, in processes that do not end by themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

_BEGIN = """
import os, signal, threading, time
import anyio
from shimd.supervisor import ending
ending.LIMIT = 0.2
async def shield():
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        ending.at_signals(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        async for number in signals:
            assert number == signal.SIGTERM
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()
async def loop_stands():
    with anyio.open_signal_receiver(signal.SIGTERM):
        ending.at_signals(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1000)
"""


@pytest.mark.parametrize(
    "what",
    [
        "anyio.run(shield)",
        "anyio.run(loop_stands)",
        "ending.begin(); threading.Thread(target=threading.Event().wait).start()",
    ],
)
def test_it_ends_whatever_it_does(what: str, tmp_path: Path) -> None:
    (tmp_path / "shimd.pid").write_text("1")
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + what],
        env={"SHIMD_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "most recent call first" in done.stderr  # where it stands
    assert not (tmp_path / "shimd.pid").exists()


def test_where_no_thread_can_be_started_the_kernel_ends_it() -> None:
    program = _BEGIN + (
        'def no(*_): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = no\nending._GRACE = 0.1\nending.begin()\ntime.sleep(1000)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == -14
