"""How interfaces are given by objects (*providers*), whichever host calls them.

An interface is given by an object, named by the interface, as ``a:b/streams``. Its functions are found by name:
``get-random-bytes`` is the provider's ``get_random_bytes``; a resource's class is the provider's attribute of its name
(``input-stream``: ``InputStream``), for its constructor and static functions; a method is the object's own.
"""

from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any, TypeVar

from shimd.engine import UnsupportedFeature

Providers = Mapping[str, object]
"""Providers by the interface's name: with its version, or without, which serves all versions that are compatible."""

Function = Callable[..., Any]
T = TypeVar("T")


def unversioned(interface: str) -> str:
    """Returns an interface's name without its version."""
    return interface.partition("@")[0]


def find(providers: Mapping[str, T], interface: str, plain: Callable[[str], str] = unversioned) -> T | None:
    """Returns what an interface is given by; ``None``: nothing.

    :param plain: makes one name of those of an interface's compatible versions
    """
    return providers.get(interface, providers.get(plain(interface)))


def implementation(provider: object, name: str) -> Function | None:
    """Returns the Python callable for a function of an interface."""
    kind, _, rest = name.rpartition("]")
    resource, _, function = rest.rpartition(".")
    match kind:
        case "":
            return _attribute(provider, name)
        case "[method":
            return Method(_python(function))
        case "[static":
            return _attribute(getattr(provider, _class(resource), None), function)
        case "[constructor":
            constructor: Function | None = getattr(provider, _class(rest), None)
            return constructor
    return None


def _attribute(owner: object, name: str) -> Function | None:
    found: Function | None = getattr(owner, _python(name), None)
    return found


class Method:
    """A resource's method: called with the object, and its arguments."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, of: object, *arguments: Any) -> Any:
        return self.bound(of)(*arguments)

    def bound(self, of: object) -> Function:
        """:raises UnsupportedFeature: the object has none of this name"""
        method: Function | None = getattr(of, self._name, None)
        if method is None:
            raise UnsupportedFeature(f"{type(of).__name__} has no {self._name} here")
        return method


def _python(name: str) -> str:
    """Returns a function's name in Python: ``del-many`` is ``del_many``; a keyword gets an underscore more:
    ``del_``."""
    plain = name.replace("-", "_")
    return f"{plain}_" if iskeyword(plain) else plain


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
