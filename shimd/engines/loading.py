"""Modules that an engine's fork server loads by name, since nothing can be imported once an app is in its container."""

import sys
from collections.abc import Iterable
from importlib import import_module


def load(names: Iterable[str]) -> None:
    """Import modules that are there."""
    for name in names:
        import_module(name)


def load_if_there(names: Iterable[str]) -> None:
    """Import modules that a library, or an app, does without where they are missing: that they are is then known, too,
    and nobody looks for them again."""
    for name in names:
        try:
            import_module(name)
        except ImportError:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
