"""The root tree of Debian 13 that tools/setup makes: for engines whose libraries this machine does not have."""

from shimd.engines.registry import lacking
from tests.e2e.containerd import REPOSITORY

#: In the tree, it is that of its own Python.
PROGRAMS = REPOSITORY / ".venv/bin"
_ENTER = REPOSITORY / "tools/trixie"


def is_there() -> bool:
    return (REPOSITORY / ".cache/trixie/complete").exists()


def where(engine: str) -> list[str] | None:
    """The words before a command line that come where an engine can run: none if it can here; ``None``: nowhere."""
    if lacking(engine) is None:
        return []
    return [str(_ENTER)] if is_there() else None
