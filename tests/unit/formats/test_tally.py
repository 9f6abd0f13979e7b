"""Counts of requests, as they are written and read."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from shimd.apps.http.tally import Tallies
from shimd.formats import tally
from shimd.supervisor.metrics import requests
from shimd.supervisor.metrics.requests import counts

NOTHING = tally.Tally((0,) * tally.CLASSES, 0, (0,) * (len(tally.BOUNDS) + 1))


def slot(*numbers: int) -> bytes:
    """Of a class's counts, and zeros."""
    rest = (0,) * (tally.CLASSES + 1 + len(tally.BOUNDS) + 1 - len(numbers))
    return tally.LAYOUT.pack(tally.MAGIC, *numbers, *rest).ljust(tally.SLOT, b"\0")


def test_slots_are_added() -> None:
    found = tally.read(slot(0, 1, 0, 0, 2, 300) + slot(0, 10, 0, 0, 20, 4000) + b"\0" * tally.SLOT)
    assert found is not None
    assert (found.classes, found.microseconds) == ((0, 11, 0, 0, 22), 4300)


@pytest.mark.parametrize("data", [b"", b"\0" * 1024, b"shimd-http 2" + b"\0" * 500, slot()[:100]])
def test_another_file(data: bytes) -> None:
    assert tally.read(data) is None


def test_no_more_slots_than_there_may_be() -> None:
    found = tally.read(slot(1) * (tally.MOST + 5))
    assert found is not None and found.classes[0] == tally.MOST


def test_the_library_has_the_same() -> None:
    source = (Path(__file__).parents[3] / "native/wasmtime/src/http/tally.rs").read_text()
    text = re.search(r"const BOUNDS: [^=]*= \[([^\]]*)\]", source)
    assert text is not None
    assert tuple(int(number) for number in text[1].replace("_", "").split(",") if number.strip()) == tally.BOUNDS
    magic = re.search(r'const MAGIC: [^=]*= \*b"([^"]*)"', source)
    assert magic is not None and magic[1].replace("\\0", "\0").encode() == tally.MAGIC
    assert f'c"{tally.NAME}"' in source and f"const SIZE: usize = {tally.SLOT};" in source


async def answer(tallies: Tallies, number: int, status: int | None) -> None:
    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        if status is None:
            raise ValueError("it fails")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(_message: Any) -> None:
        """Into nothing."""

    async def receive() -> Any:
        """Nothing comes."""

    await tallies.counted(number, application)({"type": "http"}, receive, send)


def test_what_an_app_answers() -> None:
    """Also what the server answers for it; of all its processes."""
    tallies = Tallies(2)

    async def answers() -> None:
        for number, status in ((0, 200), (1, 204), (1, 404), (0, 503)):
            await answer(tallies, number, status)
        with pytest.raises(ValueError, match="it fails"):
            await answer(tallies, 0, None)

    anyio.run(answers)
    found = counts(os.getpid())
    assert found is not None
    assert found.classes == (0, 2, 0, 1, 2)
    assert sum(found.buckets) == 5


def test_a_file_that_is_not_in_memory(tmp_path: Path) -> None:
    """A container may have one of that name, where opening it, or reading, hangs."""
    path = tmp_path / f"memfd:{tally.NAME}"
    path.write_bytes(slot(7))
    assert requests._read(str(path)) is None
    os.unlink(path)
    os.mkfifo(path)
    assert requests._read(str(path)) is None


def test_a_process_that_serves_nothing() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert counts(process.pid) is None
        process.kill()
    assert counts(process.pid) is None
