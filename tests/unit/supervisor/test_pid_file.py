"""The pid file, as those see it who read it at any moment."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from shimd.supervisor import serve


def test_it_is_never_seen_empty(tmp_path: Path) -> None:
    path, ended = tmp_path / "shimd.pid", threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not ended.is_set():
            with suppress(FileNotFoundError):
                seen.add(path.read_text())

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(3000):
        serve._write_pid(path)
        path.unlink()
    ended.set()
    looking.join()
    assert {int(text) for text in seen} <= {os.getpid()}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", ["1\n", "4194304   \n"])
def test_it_takes_the_place_of_a_killed_daemons(tmp_path: Path, before: str) -> None:
    path = tmp_path / "shimd.pid"
    path.write_text(before)
    inode = path.stat().st_ino
    serve._write_pid(path)
    assert int(path.read_text()) == os.getpid()
    assert path.stat().st_ino == inode
