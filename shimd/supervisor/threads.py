"""Work that may hang, each in a thread of its own: who waits for it has a limit, and the process's end waits for none.

anyio's own threads are few, and one that hangs is one less for all; and Python waits for them when it ends.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread, get_ident
from typing import Any, Generic, TypeVar

import anyio
from anyio import from_thread
from anyio.lowlevel import current_token

from shimd.errors import Unavailable, plain

T = TypeVar("T")
#: Seconds after which something is taken for hanging, unless said otherwise.
LIMIT = 30.0
_lock = Lock()
#: What is shared and under way, by its words.
_shared: "dict[str, _Work[Any]]" = {}


async def in_thread(
    action: Callable[[], T],
    what: str,
    *,
    limit: float = LIMIT,
    undo: Callable[[], object] | None = None,
    shared: bool = False,
    cancellable: bool = False,
) -> T:
    """Returns what ``action`` returns. If it takes too long, it is left to itself.

    Whoever is cancelled waits for it nevertheless, within the limit: what it does is done then, or known to hang.

    :param what: for the error
    :param undo: called in the thread, if nobody waits any more when the action has been done after all
    :param shared: who asks for ``what`` while that is under way waits for it, and does not have it done twice
    :param cancellable: whether it is left to itself by a cancellation, too
    :raises Unavailable: it takes too long
    :raises ResourceExhausted: no thread can be started
    """
    work = _begun(_Work(action, undo, what if shared else ""), what)
    try:
        with anyio.move_on_after(limit, shield=not cancellable):
            await work.ended()
    finally:
        has_ended = work.left()
    if not has_ended:
        raise Unavailable(f"{what} has not ended within {limit:g} s")
    return work.outcome.result()


def _begun(work: "_Work[T]", what: str) -> "_Work[T]":
    with _lock:
        if (found := _shared.get(work.name)) is not None:
            found.waiting += 1
            return found
        try:
            Thread(target=work.run, name=f"shimd: {what}", daemon=True).start()
        except RuntimeError as error:
            raise plain(error) or error from error
        if work.name:
            _shared[work.name] = work
    return work


class _Work(Generic[T]):
    def __init__(self, action: Callable[[], T], undo: Callable[[], object] | None, name: str) -> None:
        self._action, self._undo, self.name = action, undo, name
        self._has_ended = False
        self.outcome: Future[T] = Future()
        self.waiting = 1

    def run(self) -> None:
        try:
            result = self._action()
        except BaseException as error:
            self._end()
            self.outcome.set_exception(error)
        else:
            if not self._end() and self._undo is not None:
                with suppress(Exception):
                    self._undo()
            self.outcome.set_result(result)

    def _end(self) -> bool:
        """Returns whether anybody waits."""
        with _lock:
            _shared.pop(self.name, None)
            self._has_ended = True
            return self.waiting > 0

    async def ended(self) -> None:
        done, token, loop = anyio.Event(), current_token(), get_ident()

        def tell(_outcome: object) -> None:
            if get_ident() == loop:
                done.set()
                return
            with suppress(RuntimeError):  # the daemon has ended meanwhile
                from_thread.run_sync(done.set, token=token)

        self.outcome.add_done_callback(tell)
        await done.wait()

    def left(self) -> bool:
        """One less waits; returns whether the outcome is there, or will be in a moment."""
        with _lock:
            self.waiting -= 1
            return self._has_ended
