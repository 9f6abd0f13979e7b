"""Code that the capabilities share: a guest opens one by its name, and gets errors in the interface's form."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from shimd.apps.slight.slightfile import Capability, Slightfile
from shimd.component.results import Case, Err


def fail(case: str, text: object) -> NoReturn:
    """Raise an error for the guest: a case of the interface's ``error``, with one sentence."""
    raise Err(Case(case, str(text).strip().partition("\n")[0]))


@contextmanager
def failing(cases: Mapping[Any, str]) -> Iterator[None]:
    """Convert a library's errors to the guest's: the first kind that fits; others are ``unexpected-error``.

    :param cases: the case, by class of exception, or by several in a tuple
    """
    try:
        yield
    except Err:
        raise
    except Exception as error:
        case = next((case for kind, case in cases.items() if isinstance(error, kind)), "unexpected-error")
        fail(case, f"{error or type(error).__name__}")


class Opener:
    """One kind of capability: what a name opens is made once, and shared by all requests."""

    def __init__(self, slightfile: Slightfile, kind: str, make: Mapping[str, Callable[[Capability, str], Any]]) -> None:
        """:param make: by backend"""
        self._slightfile = slightfile
        self._kind = kind
        self._make = make
        self._opened: dict[str, Any] = {}
        self._lock = threading.Lock()

    def open(self, name: str) -> Any:
        capability = self._slightfile.find(self._kind, name)
        if capability is None:
            fail("unexpected-error", f"/slightfile.toml has no capability {self._kind} of the name {name}")
        with self._lock:
            if name not in self._opened:
                self._opened[name] = self._make[capability.backend](capability, name)
            return self._opened[name]


def file_name(case: str, name: str) -> str:
    """Check that a guest's name can be that of a file in a directory of ours; ``case`` is the error's case if not."""
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name.encode()) > 255:
        fail(case, f"{name!r} cannot be the name of a file")
    return name
