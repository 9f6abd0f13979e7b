"""The processes of shimd on this node, of one runtime directory and whatever release: found in ``/proc``, and ended.

Nothing of shimd's is asked, since what is looked for may be too old, or hang.
"""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shimd import keeper, paths
from shimd.linux.peer import peer_pid
from shimd.linux.pidfd import PARENT, START, open_process, stat_fields
from shimd.supervisor.recovery.keeper_link import connect

_PAUSE = 0.02


class Kind(StrEnum):
    """What a process is. Workers look like the fork server or the zygote that forked them."""

    DAEMON = "daemon"
    KEEPER = "keeper"
    FORK_SERVER = "fork server"
    ZYGOTE = "zygote"
    JAILER = "jailer"
    OTHER = "other"


@dataclass(frozen=True)
class Process:
    pid: int
    start: int
    """Of its start, in clock ticks since boot: with the pid it names the process for good."""
    parent: int
    kind: Kind

    @property
    def lives(self) -> bool:
        try:
            fields = stat_fields(self.pid)
        except OSError:
            return False
        return int(fields[START]) == self.start and fields[0] not in (b"Z", b"X")


def running() -> list[Process]:
    """All of them, with what their fork servers are the ancestors of."""
    all_of_them = {one.pid: one for one in _all()}
    roots = [one for one in all_of_them.values() if one.kind is not Kind.OTHER and _is_ours(one.pid)]
    found = {one.pid: one for one in roots}
    forkers = {one.pid for one in roots if one.kind is Kind.FORK_SERVER}
    growing = True
    while growing:
        below = [one for one in all_of_them.values() if one.parent in forkers and one.pid not in forkers]
        found |= {one.pid: one for one in below}
        forkers |= {one.pid for one in below}
        growing = bool(below)
    return list(found.values())


def of(kinds: Collection[Kind]) -> list[Process]:
    return [one for one in running() if one.kind in kinds]


def current_keeper() -> int:
    """The pid of the keeper that daemons connect to; 0: none."""
    try:
        sock = connect(paths.keeper_socket())
    except OSError:
        return 0
    if sock is None:
        return 0
    with sock:
        return peer_pid(sock)


def end(look: Callable[[], Collection[Process]], number: int, patience: float) -> Collection[Process]:
    """Send a signal to all that there are, until there are none; returns those that are left after so many seconds."""
    deadline = time.monotonic() + patience
    told: set[Process] = set()
    while left := [one for one in look() if one.lives]:
        for one in set(left) - told:
            send(one, number)
            told.add(one)
        if time.monotonic() > deadline:
            return left
        time.sleep(_PAUSE)
    return []


def send(process: Process, number: int) -> None:
    with suppress(OSError):
        pidfd = open_process(process.pid, process.start)
        try:
            signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _all() -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError, IndexError):  # it ends meanwhile
                words = Path(entry.path, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                fields = stat_fields(int(entry.name))
                if words != [b""]:  # the kernel's own, and zombies
                    kind = kind_of([os.fsdecode(word) for word in words])
                    yield Process(int(entry.name), int(fields[START]), int(fields[PARENT]), kind)


def kind_of(words: list[str]) -> Kind:
    """What a command line says."""
    name = os.path.basename(words[0])
    modules = {"shimd.forkserver.main": Kind.FORK_SERVER, "shimd.jailer.main": Kind.JAILER}
    if name == keeper.NAME:
        return Kind.KEEPER
    if name == "shimd-zygote":
        return Kind.ZYGOTE
    if words[-1] == "serve" and len(words) > 1 and os.path.basename(words[-2]) == "shimd":
        return Kind.DAEMON
    place = words.index("-m") + 1 if "-m" in words else 0
    return modules.get(words[place], Kind.OTHER) if 0 < place < len(words) else Kind.OTHER


def _is_ours(pid: int) -> bool:
    """Returns whether a process has our runtime directory, and not that of the same name in a container."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        same = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False
    prefix = b"SHIMD_RUNTIME_DIR="
    named = [os.fsdecode(one.removeprefix(prefix)) for one in variables if one.startswith(prefix)]
    directory = next((name for name in named if name), "/run/shimd")
    return same and os.path.realpath(directory) == os.path.realpath(paths.runtime_dir())
