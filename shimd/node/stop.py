"""The end of shimd on this node, for good: of the daemon, its keeper, which would start another, and all that is left.

Tasks that there are end with it. Whoever does not want that has asked before (:func:`refuse_tasks`).
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from shimd import paths
from shimd.errors import FailedPrecondition, Internal
from shimd.node import processes, systemd
from shimd.node.processes import Kind, Process
from shimd.node.tasks import named, records, tasks
from shimd.protocol.journal import ProcessRecord, TaskRecord
from shimd.supervisor.modules.compile_cgroups import remove_left

#: Seconds: for a daemon that was asked to end, which has a limit of its own, and for what was killed.
_ASKED, _KILLED = 6.0, 10.0
#: Seconds for containerd to clean up after tasks, as it does when their connections end.
_CLEANED = 5.0
#: The same for the launcher, which does that where no containerd does.
_LAUNCHER = 10.0
#: What is started by nobody else, once daemon and keeper are gone.
_REST = frozenset(Kind) - {Kind.DAEMON, Kind.KEEPER}


def refuse_tasks(what: str) -> None:
    """:raises FailedPrecondition: there are tasks, which are named"""
    if found := tasks():
        there = "there is a task" if len(found) == 1 else f"there are {len(found)} tasks"
        raise FailedPrecondition(
            f"{there}: {named(found)}; delete their pods first, or {what} --force, which ends them"
        )


def stop(programs: Path) -> list[str]:
    """End all of it; returns a sentence for each thing that was there.

    :param programs: where the launchers are
    :raises Internal: a process does not end
    """
    left, said = records(), []
    if systemd.is_there() and any(systemd.is_("is-active", unit) for unit in systemd.UNITS):
        systemd.systemctl("stop", *systemd.UNITS)
        said.append(f"stopped {' and '.join(systemd.UNITS)}")
    said += _end_processes()
    said += _clean_up(programs, left)
    remove_left()
    shutil.rmtree(paths.journal_dir(), ignore_errors=True)  # of tasks that are no more
    return said


def clear() -> None:
    """Remove what is left in the runtime directory, once nothing of shimd runs."""
    with suppress(OSError):
        shutil.rmtree(paths.runtime_dir())


def _end_processes() -> list[str]:
    before = processes.running()
    for keeper in _keepers():  # it cannot start a daemon meanwhile
        processes.send(keeper, signal.SIGSTOP)
    processes.end(_daemons, signal.SIGTERM, _ASKED)
    left = [*processes.end(_daemons, signal.SIGKILL, _KILLED), *processes.end(_keepers, signal.SIGKILL, _KILLED)]
    left += processes.end(lambda: processes.of(_REST), signal.SIGKILL, _KILLED)
    if left:
        raise Internal(f"{_words(left)} cannot be killed: the kernel waits for something, a volume perhaps")
    return [f"ended {_words(before)}"] if before else []


def _daemons() -> list[Process]:
    return processes.of([Kind.DAEMON])


def _keepers() -> list[Process]:
    return processes.of([Kind.KEEPER])


def _words(found: Collection[Process]) -> str:
    named = [f"{one.kind} {one.pid}" for one in found if one.kind is not Kind.OTHER]
    others = sum(one.kind is Kind.OTHER for one in found)
    return ", ".join([*named, *([f"{others} more"] if others else [])])


def _clean_up(programs: Path, left: list[TaskRecord]) -> list[str]:
    """After tasks whose processes are gone: containerd does, for those that it knows, and we do for the others."""
    deadline = time.monotonic() + _CLEANED
    while any(map(_is_recorded, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for record in left:
        if _is_recorded(record):
            _delete(programs, record)
        for process in record.processes:
            _kill(process)
    return [f"ended {record.namespace}/{record.id}" for record in left]


def _is_recorded(record: TaskRecord) -> bool:
    return Path(record.bundle, "shimd.task").exists()


def _delete(programs: Path, record: TaskRecord) -> None:
    """As containerd calls the launcher (``launcher/PROTOCOL.md``)."""
    words = ["-namespace", record.namespace, "-id", record.id, "-bundle", record.bundle, "-address", "/", "delete"]
    command = [str(programs / "shimd-launcher"), f"containerd-shim-{record.engine}-v1", *words]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, env=dict(os.environ), capture_output=True, timeout=_LAUNCHER, check=False)


def _kill(process: ProcessRecord) -> None:
    """One whose fork server was gone, and that was in no cgroup of its own."""
    if process.pid > 0:
        processes.send(Process(process.pid, process.start, 0, Kind.OTHER), signal.SIGKILL)
