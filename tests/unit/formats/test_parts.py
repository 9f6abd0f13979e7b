"""Programs of several parts, in one file."""

from collections.abc import Callable

import pytest

from shimd.formats.parts import Parts, is_parts, join, split


@pytest.mark.parametrize("parts", [[], [b""], [b"a", b"", b"\0asm"], [bytes(1 << 20), b"x"]])
def test_there_and_back(parts: list[bytes]) -> None:
    joined = join(Parts('{"how": "ü"}', parts))
    assert is_parts(joined)
    assert split(joined) == Parts('{"how": "ü"}', parts)


def test_what_differs_is_another_program() -> None:
    """As whatever is known by its hash."""
    all = [Parts("a", [b"b", b"c"]), Parts("a", [b"bc"]), Parts("a", [b"bc", b""]), Parts("ab", [b"c"])]
    assert len({join(one) for one in all}) == len(all)


@pytest.mark.parametrize("change", [lambda it: it[:-1], lambda it: it + b"x", lambda it: it[:15], lambda it: it[:20]])
def test_what_is_broken(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="parts"):
        split(change(join(Parts("how", [b"part"]))))


@pytest.mark.parametrize("data", [b"", b"\0asm\x01\0\0\0", b"(module)"])
def test_other_programs(data: bytes) -> None:
    assert not is_parts(data)
