"""``shimd upgrade``: the daemon that runs becomes the installed one, with every app running.

systemd restarts its own daemon. Else the next one is started from here, by the program that is installed with us,
wherever the one that runs has come from: it loads all that it needs, and only then has that one end
(``supervisor/successor.py``). If it cannot be loaded, the one that runs is not touched.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from shimd import paths, release
from shimd.api.shimd.status.v1 import DaemonResponse
from shimd.errors import FailedPrecondition, Unavailable
from shimd.linux.limits import GIVEN
from shimd.node import changes, systemd
from shimd.node.changes import Change
from shimd.node.circumstances import share
from shimd.node.install import Node, renewals
from shimd.node.old import Old, old
from shimd.node.processes import Kind, current_keeper, of
from shimd.node.tasks import daemon, named, records, tasks
from shimd.supervisor.successor import VARIABLE, holder

#: Seconds until the next daemon serves, and, when it says so, until it answers.
_READY, _ANSWERS = 90.0, 30.0
#: The same for a keeper that was killed to have been replaced.
_REPLACED = 5.0
_PAUSE = 0.05
#: Of who started a process, and for it alone.
_NOT_HANDED_ON = ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "SYSTEMD_EXEC_PID", "INVOCATION_ID", "PYTHON", "VIRTUAL_ENV")


@dataclass(frozen=True)
class UpgradePlan:
    """What is to be done."""

    node: Node
    changes: list[Change]
    daemon: DaemonResponse | None
    """What runs."""
    old: list[Old]
    restart: bool
    """Whether the daemon is to be replaced, or one to be started."""


def plan(node: Node, *, force: bool) -> UpgradePlan:
    """Returns what an upgrade would do.

    :param force: whether the daemon is replaced even if it is the installed one, or though apps end with it
    :raises FailedPrecondition: it cannot be done
    """
    running = daemon()
    found = old(running)
    needed = running is not None or current_keeper() != 0 or bool(records())
    restart = needed and (force or running is None or any(one.restart for one in found))
    if restart and running is not None and not force:
        _refuse_without_keeper()
    return UpgradePlan(node, renewals(node), running, found, restart)


def _refuse_without_keeper() -> None:
    deadline = time.monotonic() + _REPLACED
    while current_keeper() == 0 and time.monotonic() < deadline and tasks():
        time.sleep(_PAUSE)
    if current_keeper() == 0 and (left := tasks()):
        raise FailedPrecondition(
            "there is no keeper (shimd was installed without a C compiler), so that apps would end with the daemon: "
            f"{named(left)}; delete their pods first, or shimd upgrade --force"
        )


def upgrade(plan: UpgradePlan) -> DaemonResponse | None:
    """Do it; returns what the daemon says of itself that then runs, if one does.

    :raises ShimdError: it failed: files are as they were, and what ran before runs
    """
    with _reloaded(plan), changes.applied(plan.changes), _reloaded(plan):
        if not plan.restart:
            return plan.daemon
        if plan.node.has_systemd and _is_systemds(plan.daemon):
            systemd.systemctl("restart", systemd.SERVICE)
        else:
            _take_over(plan.node.programs / "shimd", holder())
        return _answered()


@contextmanager
def _reloaded(plan: UpgradePlan) -> Iterator[None]:
    """systemd knows of units as they are now: at the beginning, and at the end if the block fails."""
    if not plan.node.has_systemd or not any(change.path.name in systemd.UNITS for change in plan.changes):
        yield
        return
    systemd.reload()
    try:
        yield
    except BaseException:
        systemd.reload()
        raise


def _is_systemds(running: DaemonResponse | None) -> bool:
    if running is None:
        return systemd.is_("is-enabled", systemd.SOCKET)
    return systemd.main_pid() == running.pid


def _answered() -> DaemonResponse:
    """:raises Unavailable: it is not the one that is installed"""
    deadline = time.monotonic() + _ANSWERS
    while True:
        found = daemon()
        if found is not None and found.release == release.installed():
            return found
        if time.monotonic() > deadline:
            said = f"the one that answers, pid {found.pid}, is of {found.release}" if found else "none answers"
            raise Unavailable(f"the daemon is not of {release.installed()}: {said}; shimd logs may tell why")
        time.sleep(_PAUSE)


def _take_over(program: Path, earlier: int) -> None:
    """Start a daemon that has another one end, if there is one, and wait until it serves.

    :raises FailedPrecondition: it does not start; what it said last
    """
    with _readiness() as (address, is_ready), _log_of(earlier) as log:
        process = subprocess.Popen(
            [program, "serve"],
            env={**_environment_of(earlier), "NOTIFY_SOCKET": address, VARIABLE: "yes"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            preexec_fn=partial(share, earlier) if earlier else None,
        )
        deadline = time.monotonic() + _READY
        while not is_ready():
            code = process.poll()
            if code is not None:
                raise FailedPrecondition(f"{program} serve ended with {code} while starting: {_last(log)}")
            if time.monotonic() > deadline:
                process.kill()
                raise FailedPrecondition(f"{program} serve was not ready within {_READY:.0f} s: {_last(log)}")


@contextmanager
def _readiness() -> Iterator[tuple[str, Callable[[], bool]]]:
    """Where to say ``READY=1``, and what waits a moment for that (sd_notify(3))."""
    paths.runtime_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    path = paths.runtime_dir() / "upgrade.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(_PAUSE)

        def is_ready() -> bool:
            with suppress(TimeoutError):
                return b"READY=1" in sock.recv(65536).split(b"\n")
            return False

        try:
            yield str(path), is_ready
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _log_of(pid: int) -> Iterator[IO[bytes]]:
    """Where a daemon's errors go, or, where that cannot be opened anew, its log, as of a launcher's."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(f"/proc/{pid}/fd/2", flags)
    except OSError:  # a socket, or there is none
        fd = os.open(paths.runtime_dir() / "shimd.log", flags, 0o600)
    with open(fd, "ab", buffering=0) as file:
        yield file


def _environment_of(pid: int) -> dict[str, str]:
    """What a daemon was started with, but for what was its starter's; where none is, what a launcher hands on."""
    ours = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith(("SHIMD_", "OTEL_"))}
    given = (_environ(pid) if pid else {}) or ours
    for one in of([Kind.FORK_SERVER, Kind.JAILER]):  # they have been told what that daemon was given, and has raised
        given = {GIVEN: _environ(one.pid).get(GIVEN, ""), **given}
    return {name: value for name, value in given.items() if value and not name.startswith(_NOT_HANDED_ON)}


def _environ(pid: int) -> dict[str, str]:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (os.fsdecode(word).partition("=") for word in words) if name}


def _last(log: IO[bytes]) -> str:
    try:
        lines = Path(f"/proc/self/fd/{log.fileno()}").read_text(errors="replace").splitlines()
    except OSError:
        return "its log tells why"
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
