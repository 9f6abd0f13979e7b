"""What an operator is told: the reason, and the way out."""

import errno
import os
import re
from pathlib import Path

import pytest

import shimd
from shimd import settings
from shimd.errors import FailedPrecondition, Internal, from_os
from shimd.remedies import told

RUNTIME = "/run/shimd-test"


@pytest.fixture(autouse=True)
def directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", RUNTIME)


def error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("user", "found", "sentence"),
    [
        (0, error(errno.EROFS, "/x"), "/x: read-only file system; have that file system mounted writable"),
        (
            0,
            error(errno.EEXIST, RUNTIME),
            f"{RUNTIME}: file exists; move away what is there, or name another directory by SHIMD_RUNTIME_DIR",
        ),
        (
            0,
            error(errno.EIO, f"{RUNTIME}/journal/1"),
            f"{RUNTIME}/journal/1: input/output error; name another directory by SHIMD_RUNTIME_DIR",
        ),
        (0, error(errno.ENOSPC, "/x"), "/x: no space left on device: make room there"),
        (1000, error(errno.EACCES, "/x"), "/x: permission denied; try: sudo shimd ps"),
        (1000, from_os(error(errno.EACCES, "/x")), "/x: permission denied; try: sudo shimd ps"),
        (0, Internal("it does not work"), "it does not work"),
        (0, OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
        (0, ExceptionGroup("", [ExceptionGroup("", [Internal("wrapped")])]), "wrapped"),
        (0, ValueError("a bug"), None),
        (0, ExceptionGroup("", [Internal("one"), ValueError("a bug")]), None),
    ],
    ids=str,
)
def test_sentences(monkeypatch: pytest.MonkeyPatch, user: int, found: Exception, sentence: str | None) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert told(found, "ps") == sentence


def test_a_sentence_of_ours_about_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the way out where it tells the reason, and none where it tells something else."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words, way in (
        ("x: Permission denied; all is as it was", "; try: sudo shimd install"),
        ("the file is no text", ""),
    ):
        try:
            try:
                raise error(errno.EACCES, "/x")
            except OSError:
                raise FailedPrecondition(words) from None
        except FailedPrecondition as found:
            assert told(found, "install") == words + way


@pytest.mark.parametrize("name", settings.NUMBERS)
def test_no_number(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "12")
    settings.check()
    monkeypatch.setenv(name, "1 GiB")
    with pytest.raises(FailedPrecondition, match=f"{name}='1 GiB' is no (whole )?number"):
        settings.check()


def test_all_numbers_are_looked_at() -> None:
    """Each variable that the code reads as a number."""
    read = r'(?:int|float)\(os\.environ\.get\(f?"(SHIMD_[A-Z_]+)'
    sources = "".join(path.read_text() for path in Path(shimd.__file__).parent.rglob("*.py"))
    found = set(re.findall(read, sources))
    assert len(found) > 5
    assert all(any(name.startswith(each) for name in settings.NUMBERS) for each in found)
