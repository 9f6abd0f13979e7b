"""More apps than there are descriptors for: some are refused in a sentence, all others run, whatever ends
meanwhile, and it recovers."""

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.box import OURS, Box, until
from tests.e2e.test_daemon_death import end_daemon

#: SHIMD_FEW=1024,500: as containerd 2.x limits what it starts, with as many apps as there is no room for.
LIMIT, ASKED = (int(word) for word in os.environ.get("SHIMD_FEW", "128,100").split(","))
few_only = pytest.mark.parametrize("runtime", OURS[:2], ids=lambda runtime: runtime.name, indirect=True)


def processes(box: Box) -> dict[int, str]:
    """The daemon, its fork servers and its keeper: each may have no more than so many."""
    wanted = ("shimd serve", "shimd.forkserver.main", "shimd-keeper")
    found = leftovers.processes_of(box.containerd.directory)
    return {pid: line for pid, line in found.items() if any(word in line for word in wanted)}


def limit(box: Box) -> None:
    """From now on, for daemons to come as well. A fork server may have more: runc, its child, has to set limits above
    ours."""
    for pid, line in processes(box).items():
        _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (LIMIT, hard if "forkserver" in line else LIMIT))


def ask(box: Box, id: str) -> str:
    """What it is refused with, or nothing."""
    log = box.containerd.directory / f"{id}.out"
    return box.ctr(*box._run(id, ("sleep", 600), ("-d", "--log-uri", f"file://{log}"), None), check=False).err


@few_only
def test_some_are_refused_and_all_others_run(own_box: Box) -> None:
    box = own_box
    assert not ask(box, "first")
    pids = list(processes(box))
    assert len(pids) >= 3
    limit(box)
    refused = {id: error for id in (f"app-{number}" for number in range(ASKED)) if (error := ask(box, id))}
    print(f"{len(refused)} of {ASKED} were refused; descriptors: {[_open(pid) for pid in pids]}")
    assert refused
    for error in refused.values():
        assert "descriptors" in error or "too many open files" in error.lower(), error
    assert set(processes(box)) == set(pids), "nothing of shimd has ended"
    tasks = box.tasks()
    running = {id for id, (_pid, status) in tasks.items() if status == "RUNNING"}
    assert running == {"first"} | {f"app-{number}" for number in range(ASKED)} - set(refused)
    for _ in range(2):
        end_daemon(box, signal.SIGKILL)
        assert box.tasks() == tasks
    ended = sorted(running)[:5]
    for id in ended:
        assert box.kill(id).code == 0
        box.wait_status(id, "STOPPED")
        assert box.delete(id) == 137
    assert not ask(box, "again"), "there is room for one more now"
    assert not ask(box, "more")
    running = running - set(ended) | {"again", "more"}
    assert {id for id, (_pid, status) in box.tasks().items() if status == "RUNNING"} == running
    for id in running:
        assert box.kill(id).code == 0
    for id in running:
        box.wait_status(id, "STOPPED")
        assert box.delete(id) == 137
    until(lambda: not box.tasks(), "all to be gone")
    assert not leftovers.settled(box.leftovers)


def _open(pid: int) -> int:
    return len(os.listdir(Path(f"/proc/{pid}/fd")))
