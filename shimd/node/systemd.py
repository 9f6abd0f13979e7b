"""systemd on this machine, and shimd's units there."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shimd.errors import FailedPrecondition

SERVICE, SOCKET = UNITS = ("shimd.service", "shimd.socket")
#: Questions to systemctl for what ``enable --now`` does, and the verbs that undo it.
_UNDO = {"is-active": "stop", "is-enabled": "disable"}


def is_there() -> bool:
    """Returns whether there is a systemd that can be told of units."""
    return Path("/run/systemd/system").is_dir()


@contextmanager
def enabled() -> Iterator[None]:
    """Tell systemd of units that are there now; if the block fails, they are as they were."""
    before = {question: is_(question, SOCKET) for question in _UNDO}
    systemctl("daemon-reload")
    try:
        systemctl("enable", "--now", SOCKET)
        yield
    except BaseException as error:
        for question, undo in _UNDO.items():
            if not before[question]:
                systemctl(undo, *UNITS)
        if isinstance(error, FailedPrecondition):
            raise FailedPrecondition(f"{error}; all is as it was") from None
        raise


def disable() -> None:
    """Stop what is about to go. Apps that run go on; delete their pods first."""
    systemctl("disable", "--now", *UNITS)


def is_(question: str, unit: str) -> bool:
    """Returns what systemctl says, by its exit code."""
    done = subprocess.run(["systemctl", "--quiet", question, unit], capture_output=True, check=False)
    return done.returncode == 0


def reload() -> None:
    """Tell systemd that files of units have changed."""
    systemctl("daemon-reload")


def main_pid() -> int:
    """The pid of the daemon that systemd has started; 0: none."""
    done = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", SERVICE], capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.stdout.strip().isdigit() else 0


def systemctl(*arguments: str) -> None:
    """:raises FailedPrecondition: it fails"""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FailedPrecondition(f"systemctl {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
