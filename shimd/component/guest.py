"""One instance of a component: its store, and the host's objects that it holds handles of.

Host functions are shared by all instances of an app, which run on threads of their own: a function finds the one that
calls it by :func:`current`.
"""

from typing import cast

import wasmtime
from wasmtime import component

from shimd.component.caller import Caller, caller
from shimd.component.current import Current
from shimd.component.objects import Objects


class Guest(Caller, Objects):
    """A store with what belongs to it."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        Caller.__init__(self)
        Objects.__init__(self)
        self.store = wasmtime.Store(engine)
        self.context = self.store._context()
        self.failure: BaseException | None = None
        """The exception that a host function raised last; it ended the guest's call."""
        self.instance: component.Instance
        self.environment: dict[str, str] = {}
        """Variables of this instance, besides the app's."""

    def close(self) -> None:
        """Close all objects and the store. The guest must not be entered again."""
        self.close_all()
        self.store.close()


#: Callers that come over a bridge have none of these hosts' functions to call.
current = cast("Current[Guest]", caller)
