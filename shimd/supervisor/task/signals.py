"""The effect of a signal on a guest, decided here when the kernel would not.

A worker is process 1 of its pid namespace where the spec asks for one, and the kernel drops signals with a default
action for such a process (pid_namespaces(7)). A Wasm guest has no handlers, so the default action is all that any
signal can mean.
"""

import signal
from enum import Enum

#: Default action Ign (signal(7)).
_IGNORED = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
#: Default action Stop.
_STOPPING = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Action(Enum):
    TERMINATE = "terminate"
    STOP = "stop"
    CONTINUE = "continue"
    IGNORE = "ignore"


def default_action(number: int) -> Action:
    """The default action of a signal, real-time signals included (signal(7)).

    :raises ValueError: there is no such signal
    """
    if not 1 <= number < signal.NSIG:
        raise ValueError(f"{number} is not a signal")
    if number == signal.SIGCONT:
        return Action.CONTINUE
    if number in _STOPPING:
        return Action.STOP
    return Action.IGNORE if number in _IGNORED else Action.TERMINATE
