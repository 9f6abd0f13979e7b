"""System calls as data: in order, up to the first that fails, in the words that come with it."""

import os
from pathlib import Path

import pytest

from shimd.errors import Code, InvalidArgument, ShimdError
from shimd.linux.packed import Block, pack
from shimd.protocol.constants import Policy
from shimd.protocol.system_calls import CallRunner, SystemCalls
from tests.unit.inside import inside


def test_structs_lists_and_strings_are_where_the_pointers_say() -> None:
    block = Block(pack((1, b"one", [(2, b"two"), (3, b"")], (-4, 5))))
    one, text, items, minus, five = Block.words(block.root, 5)
    assert (one, minus, five) == (1, 2**64 - 4, 5)
    assert _string(text) == b"one"
    two, word, three, empty = Block.words(items, 4)
    assert (two, _string(word), three, _string(empty)) == (2, b"two", 3, b"")


def _string(address: int) -> bytes:
    import ctypes

    return ctypes.string_at(address)


def test_calls_are_made_in_order_and_only_up_to_the_pause(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    calls = SystemCalls()
    calls.write(str(file), b"first", "the first")
    calls.barrier()
    calls.add("chdir", os.fsencode(tmp_path), says="the second")
    runner = CallRunner(calls.packed())

    def act() -> object:
        before = runner.run(), runner.done, file.read_text(), os.getcwd() == str(tmp_path)
        return *before, runner.run(), runner.done, os.getcwd() == str(tmp_path)

    assert inside(act) == "([], False, 'first', False, [], True, True)"


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (Policy.FAIL, 'InvalidArgument: the "place": no such file or directory'),
        (Policy.WARN, "['the \"place\": no such file or directory'] /"),
        (Policy.IF_THERE, "[] /"),
        (Policy.TRY, "[] /"),
    ],
)
def test_what_becomes_of_a_call_that_fails(policy: Policy, outcome: str) -> None:
    calls = SystemCalls()
    calls.add("chdir", b"/no/such/place", says='the "place"', policy=policy)
    calls.add("chdir", b"/", says="the next")
    assert inside(lambda: f"{calls.take()} {os.getcwd()}") == outcome


def test_only_what_is_not_there_is_excused() -> None:
    calls = SystemCalls()
    calls.add("chdir", b"/etc/passwd/below", says="below a file", policy=Policy.IF_THERE)
    calls.add("setns", 999, 0, says="no descriptor", policy=Policy.IF_THERE)
    with pytest.raises(InvalidArgument, match="no descriptor: bad file descriptor"):
        calls.take()


def test_a_failure_has_the_status_that_it_was_given() -> None:
    calls = SystemCalls()
    calls.add("close", 999, says="no", code=Code.UNAVAILABLE)
    with pytest.raises(ShimdError) as caught:
        calls.take()
    assert caught.value.code is Code.UNAVAILABLE
