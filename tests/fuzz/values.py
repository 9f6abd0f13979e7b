"""What others send: any JSON, and what is nearly right."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_ATOMS = st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.floats() | st.text(max_size=9)
JSON = st.recursive(
    _ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """A value, in which a few places are missing, or have something else."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            parent[key] = draw(JSON)
        else:
            del parent[key]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


@st.composite
def torn(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of which some are others, or missing."""
    begin, end = sorted(draw(st.integers(0, len(whole))) for _ in range(2))
    return whole[:begin] + draw(st.binary(max_size=9)) + whole[end:]
