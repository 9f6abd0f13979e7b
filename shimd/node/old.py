"""What still runs of another release than the installed one, and how that comes to its end."""

from dataclasses import dataclass

from shimd import keeper, release
from shimd.api.shimd.status.v1 import DaemonResponse, ForkServer
from shimd.linux.program import runs
from shimd.node.processes import Kind, current_keeper, of

UPGRADE = "shimd upgrade"


@dataclass(frozen=True)
class Old:
    """One process."""

    what: str
    pid: int
    release: str
    """Empty: not known."""
    remedy: str
    restart: bool
    """Whether it is replaced when the daemon is."""

    def __str__(self) -> str:
        return f"{self.what}, pid {self.pid}, is of {self.release or 'another release'}"


def old(daemon: DaemonResponse | None) -> list[Old]:
    """All of them, the daemon first.

    :param daemon: what the daemon says of itself, if one answers
    """
    found: list[Old] = []
    if daemon is not None:
        if daemon.release != release.installed():
            found.append(Old("the daemon", daemon.pid, daemon.release, UPGRADE, True))
        found += [_fork_server(one) for one in daemon.fork_servers if _is_old(one)]
    return [*found, *_keepers(), *(_jailers(daemon.pid) if daemon is not None else [])]


def _is_old(one: ForkServer) -> bool:
    """One that has not said yet who it is takes new apps."""
    return one.release != release.installed() and (one.retiring or bool(one.release))


def _fork_server(one: ForkServer) -> Old:
    remedy = UPGRADE
    if one.retiring:
        apps = "1 app" if one.workers == 1 else f"{one.workers} apps"
        remedy = f"it has {apps} left, and leaves with the last: to be rid of it, have their pods made anew"
    return Old(f"the fork server of {one.engine}", one.pid, one.release, remedy, not one.retiring)


def _keepers() -> list[Old]:
    program, current = keeper.program(), current_keeper()
    if program is None:
        return []
    others = [one.pid for one in of([Kind.KEEPER]) if one.pid != current and not runs(one.pid, program)]
    found = [] if current == 0 or runs(current, program) else [Old("the keeper", current, "", UPGRADE, True)]
    remedy = "another has taken its place; it ends with the last process that it has started"
    return [*found, *(Old("a keeper", pid, "", remedy, False) for pid in others)]


def _jailers(daemon: int) -> list[Old]:
    """Those of an earlier daemon, which should have ended with it."""
    remedy = "it hangs, on a volume that does not answer, most likely, and ends when that does"
    return [Old("a jailer", one.pid, "", remedy, False) for one in of([Kind.JAILER]) if one.parent != daemon]
