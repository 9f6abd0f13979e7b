"""``ctr run``: output, exit codes, what the app is given."""

import pytest

from tests.e2e.box import Box


def test_output_and_removal(box: Box) -> None:
    done = box.run("app")
    assert (done.code, done.out, done.err) == (0, "hello from app\n", "")
    assert not box.leftovers()
    assert box.ctr("containers", "ls", "-q").out == ""


def test_stderr_is_apart(box: Box) -> None:
    done = box.run("app", "error", "oh")
    assert (done.code, done.out, done.err) == (0, "", "oh\n")


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 130, 255])
def test_exit_code(box: Box, code: int) -> None:
    assert box.run("app", "exit", code).code == code


def test_abort_is_134(box: Box) -> None:
    assert box.run("app", "abort").code == 134


def test_arguments(box: Box) -> None:
    assert box.run("app", "echo", "a b", "", "ü").out == "a b  ü\n"
