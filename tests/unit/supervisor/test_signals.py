"""Default actions, against what the kernel really does to a process that has no handlers."""

import os
import signal

import pytest

from shimd.supervisor.task.signals import Action, default_action

CATCHABLE = sorted(signal.valid_signals())


def kernel_action(number: int) -> Action:
    """What the signal does to a process that has only default actions: a child sends it to itself."""
    pid = os.fork()
    if pid == 0:
        for other in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(other) is not None:
                signal.signal(other, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
        os._exit(0)
    _pid, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return Action.STOP
    return Action.TERMINATE if os.WIFSIGNALED(status) else Action.IGNORE


@pytest.mark.parametrize("number", CATCHABLE)
def test_agrees_with_the_kernel(number: int) -> None:
    expected = kernel_action(number)
    if number == signal.SIGCONT:  # continues what is stopped, and does nothing to what runs
        assert (expected, default_action(number)) == (Action.IGNORE, Action.CONTINUE)
    elif number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):  # dropped in an orphaned process group
        assert expected in (Action.STOP, Action.IGNORE) and default_action(number) is Action.STOP
    else:
        assert default_action(number) is expected


@pytest.mark.parametrize("number", [-1, 0, 65, 1000])
def test_not_a_signal(number: int) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        default_action(number)
