"""A block of our own in somebody else's file, between two marks: what stood there stays as it is, to the byte."""

import re
from pathlib import Path

from shimd.errors import InvalidArgument

BEGIN = "# >>> shimd install: what lies between these marks is its own"
END = "# <<< shimd install"
#: Of a file whose last line had no end.
_AND_THE_END_BEFORE = ", and so is the end of the line above"
_BLOCK = re.compile(
    rf"^{re.escape(BEGIN)}(?P<ended>{re.escape(_AND_THE_END_BEFORE)})?\r?\n(?P<tables>.*?)^{re.escape(END)}(\r?\n|\Z)",
    re.MULTILINE | re.DOTALL,
)


def joined(text: str, tables: str) -> str:
    """Returns the text with the block at its end."""
    whole = not text or text.endswith("\n")
    begin = BEGIN if whole else f"\n{BEGIN}{_AND_THE_END_BEFORE}"
    return f"{text}{begin}\n{tables}{END}\n"


def split(path: Path, text: str) -> tuple[str, str]:
    """Split a text; returns it without the block, and what is in the block: empty if there is none.

    :raises InvalidArgument: one of the two marks is missing
    """
    found = _BLOCK.search(text)
    if found is None:
        _no_mark(path, text)
        return text, ""
    before, after = text[: found.start()], text[found.end() :]
    if found["ended"] and not after:
        before = before.removesuffix("\n")
    rest, others = split(path, before + after)
    return rest, found["tables"] + others


def _no_mark(path: Path, text: str) -> None:
    for mark, other in ((BEGIN, END), (END, BEGIN)):
        if re.search(f"^{re.escape(mark)}", text, re.MULTILINE):
            raise InvalidArgument(f"{path}: one of the marks of shimd install is missing: {other!r}")
