"""``shimd upgrade``: what runs becomes what is installed, and no app ends; ``stop`` and ``uninstall`` end all."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import leftovers
from tests.e2e.box import Box, Runtime, content, ours_only, until
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import PATIENCE, Version, running
from tests.e2e.trees import Linked, Tree, tree

pytestmark = ours_only


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Tree, Tree]:
    old, new = tree(tmp_path / "old"), tree(tmp_path / "new")
    new.change("99.0")
    return old, new


@pytest.fixture
def linked(version: Version, trees: tuple[Tree, Tree]) -> Iterator[Linked]:
    with running(version, Linked) as containerd:
        trees[0].link(containerd.links)
        yield containerd


@pytest.fixture
def box(linked: Linked, runtime: Runtime, new_box: BoxMaker) -> Box:
    return new_box(linked, runtime)


def lines(linked: Linked, of: str) -> dict[int, str]:
    """Processes of its shimd, by what is in their command lines."""
    return {pid: line for pid, line in leftovers.processes_of(linked.directory).items() if of in line}


def status(linked: Linked, one: Tree) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(linked.shimd(one, "status", "--json").out)
    return found


def upgrade(linked: Linked, one: Tree, *flags: str) -> str:
    return linked.shimd(one, "upgrade", "--bin-dir", linked.links, *flags).out


def links(linked: Linked) -> dict[Path, str]:
    return {path: os.readlink(path) for path in linked.links.iterdir()}


def program(pid: int) -> bytes:
    return Path(f"/proc/{pid}/exe").read_bytes()


def test_every_app_goes_on(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    old, new = trees
    output = box.detach("ticks", "tick")
    box.detach("stays", "sleep", 600)
    reads = box.run_attached("reads", "lines", flags=("--rm",), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reads.stdin is not None and reads.stdout is not None
    reads.stdin.write("one\n")
    reads.stdin.flush()
    assert reads.stdout.readline() == "one\n"
    box.wait_status("reads", "RUNNING")  # a native program may speak before its start is answered
    before, was = box.tasks(), status(linked, old)
    assert was["old"] == []
    assert was["release"].encode() not in Path(f"/proc/{box.pid('stays')}/environ").read_bytes()  # a guest may see it
    group = Path(f"/proc/{was['pid']}/cgroup").read_text()
    assert {Path(line.split()[0]).parent for line in lines(linked, "forkserver").values()} == {old.programs}
    (first_keeper,) = lines(linked, "shimd-keeper")

    findings = json.loads(linked.shimd(new, "doctor", "--json", check=False).out)
    assert any("leads to another installation" in one["found"] and one["remedy"] == "shimd upgrade" for one in findings)
    told = [one["what"] for one in status(linked, new)["old"]]
    assert told[0] == "the daemon" and "the keeper" in told and any("fork server" in what for what in told)
    said = upgrade(linked, new)

    assert box.tasks() == before
    now = status(linked, new)
    assert now["release"] == now["installed"] != was["release"]
    assert now["version"] == "99.0"
    assert was["release"] in said and now["release"] in said, said
    assert "tasks that go on: 3" in said, said
    assert str(new.programs) in Path(f"/proc/{now['pid']}/cmdline").read_text()
    assert Path(f"/proc/{now['pid']}/cgroup").read_text() == group
    assert links(linked) == {path: str(new.programs / path.name) for path in linked.links.iterdir()}
    assert {one["release"] for one in now["fork_servers"] if one["retiring"]} == {was["release"]}
    (keeper,) = (pid for pid in lines(linked, "shimd-keeper") if pid != first_keeper)
    assert program(keeper) == (new.programs / "shimd-keeper").read_bytes()
    assert f"a keeper, pid {first_keeper}" in said and "the fork server of" in said, said
    assert "has 3 apps left" in linked.shimd(new, "status").out
    findings = json.loads(linked.shimd(new, "doctor", "--json", check=False).out)
    assert any(one["level"] == "warning" and "has 3 apps left" in one["remedy"] for one in findings)

    seen = len(content(output))
    until(lambda: len(content(output)) > seen, "more ticks")
    assert box.run("next").code == 0
    assert box.exec("stays", "e", "exit", 7).code == 7
    fresh = [one for one in status(linked, new)["fork_servers"] if not one["retiring"]]
    assert {one["release"] for one in fresh} == {now["release"]}
    for one in fresh:
        assert str(new.programs) in Path(f"/proc/{one['pid']}/cmdline").read_text()
        for child in leftovers.children_of(one["pid"]):
            if b"shimd-zygote" in Path(f"/proc/{child}/cmdline").read_bytes():
                assert program(child) == (new.package / "zygote" / "_zygote").read_bytes()
    jailers = lines(linked, "shimd.jailer").values()
    assert {Path(line.split()[0]).parent for line in jailers} == {new.programs}

    reads.stdin.write("two\n")
    reads.stdin.close()
    assert reads.stdout.readline() == "two\n"
    assert reads.wait(PATIENCE) == 4
    for id in ("ticks", "stays"):
        assert box.kill(id).code == 0
        box.wait_status(id, "STOPPED")
        assert box.delete(id) == 137
        box.wait_event(id, "/tasks/delete")
    until(lambda: not status(linked, new)["old"], "the end of what is old")
    assert not leftovers.settled(box.leftovers)


def test_true_exits_when_all_that_is_old_is_killed(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    """The old fork server is: its apps are the old keeper's then, which tells the daemon that is not its own."""
    _old, new = trees
    ends = [box.run_attached(f"ends{n}", "lines", flags=("--rm",), stdin=subprocess.PIPE) for n in range(2)]
    until(lambda: {state for _pid, state in box.tasks().values()} == {"RUNNING"} and len(box.tasks()) == 2, "both")
    upgrade(linked, new)
    for one in status(linked, new)["fork_servers"]:
        if one["retiring"]:
            os.kill(one["pid"], signal.SIGKILL)
    for number, app in enumerate(ends):
        assert app.stdin is not None
        app.stdin.write("line\n" * (number + 1))
        app.stdin.close()
        assert app.wait(PATIENCE) == 4
        if number == 0:
            upgrade(linked, new, "--force")
    until(lambda: not status(linked, new)["old"], "the end of what is old")


def test_what_is_installed_runs_already(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    old, new = trees
    assert upgrade(linked, old).startswith("no daemon runs, and none is needed")
    box.run("app")
    pid = linked.daemon_pid()
    assert f"pid {pid}, is of {status(linked, old)['installed']}, as is installed" in upgrade(linked, old)
    assert linked.daemon_pid() == pid
    upgrade(linked, old, "--force")
    assert linked.daemon_pid() not in (None, pid)
    shown = upgrade(linked, new, "--dry-run")
    assert "the daemon would be replaced" in shown and str(new.programs) in shown
    assert status(linked, new)["release"] == status(linked, old)["installed"]


def test_one_that_does_not_start_changes_nothing(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    _old, new = trees
    box.detach("app", "sleep", 600)
    before, pid, linked_before = box.tasks(), linked.daemon_pid(), links(linked)
    with open(new.package / "supervisor" / "serve.py", "a") as file:
        file.write("raise RuntimeError('not well')\n")
    done = linked.shimd(new, "upgrade", "--bin-dir", linked.links, check=False)
    assert done.code == 1 and "RuntimeError: not well" in done.err, done
    assert (linked.daemon_pid(), box.tasks()) == (pid, before)
    assert links(linked) == linked_before


def test_the_way_back_from_one_that_ends_again_and_again(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    """It has taken the keeper over, which starts it for ever; no app ends meanwhile."""
    old, new = trees
    box.detach("app", "sleep", 600)
    pid, linked_before = box.pid("app"), links(linked)
    with open(new.package / "supervisor" / "recovery" / "recover.py", "a") as file:
        file.write("\n\nasync def recover(supervisor):\n    raise RuntimeError('not well')\n")
    done = linked.shimd(new, "upgrade", "--bin-dir", linked.links, check=False)
    assert done.code == 1 and "while starting" in done.err, done
    assert links(linked) == linked_before
    said = upgrade(linked, old)
    assert "the daemon did not run; now it is of" in said, said
    assert (box.status("app"), box.pid("app")) == ("RUNNING", pid)
    assert box.run("next").code == 0
    box.kill("app")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137


def test_without_a_keeper(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    """Apps would end with the daemon: only by force."""
    old, new = trees
    for one in trees:
        (one.programs / "shimd-keeper").unlink()
    box.detach("app", "sleep", 600)
    pid = linked.daemon_pid()
    done = linked.shimd(new, "upgrade", "--bin-dir", linked.links, check=False)
    assert done.code == 1 and f"{box.namespace}/app" in done.err and "no keeper" in done.err, done
    assert (linked.daemon_pid(), box.status("app")) == (pid, "RUNNING")
    assert {Path(target).parent for target in links(linked).values()} == {old.programs}
    upgrade(linked, new, "--force")
    assert status(linked, new)["version"] == "99.0"
    box.remove("app")
    assert box.run("next").code == 0


def test_in_place_and_the_tree_gone(linked: Linked, box: Box, trees: tuple[Tree, Tree]) -> None:
    """As by pip, whatever became of the files of what runs; then one whose place is not there any more."""
    old, new = trees
    box.detach("app", "sleep", 600)
    before = box.tasks()
    old.change("98.0")
    upgrade(linked, old)
    assert status(linked, old)["version"] == "98.0"
    assert box.tasks() == before
    assert box.run("next").code == 0
    shutil.rmtree(old.directory)
    upgrade(linked, new)
    assert status(linked, new)["version"] == "99.0"
    assert box.tasks() == before
    assert box.run("next").code == 0
    os.kill(pid := linked.daemon_pid() or 0, signal.SIGKILL)
    until(lambda: linked.daemon_pid() not in (None, pid), "the next daemon")
    until(lambda: linked.shimd(new, "status", check=False).code == 0, "it to answer")
    assert status(linked, new)["version"] == "99.0"
    box.kill("app")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137


def of_shimd(linked: Linked) -> list[str]:
    """What runs of it."""
    marks = ("shimd-keeper", "shimd-zygote", "shimd.", "shimd serve")
    return [line for line in lines(linked, "").values() if any(mark in line for mark in marks)]


@pytest.mark.parametrize("command", ["stop", "uninstall"])
def test_the_end_for_good(linked: Linked, box: Box, trees: tuple[Tree, Tree], command: str) -> None:
    old, _new = trees
    flags = ("--bin-dir", linked.links, "--config", linked.directory / "config.toml") if command == "uninstall" else ()
    box.detach("one", "sleep", 600)
    box.detach("two", "exit", 3)
    pid = linked.daemon_pid()
    refused = linked.shimd(old, command, *flags, check=False)
    assert refused.code == 1
    for id in ("one", "two"):
        engine = "native" if box.runtime.native else box.runtime.handler
        assert f"{box.namespace}/{id} ({engine})" in refused.err, refused
    assert linked.daemon_pid() == pid and box.status("one") == "RUNNING"

    done = linked.shimd(old, command, *flags, "--force")
    assert f"ended {box.namespace}/one" in done.out, done
    assert not of_shimd(linked)
    until(lambda: box.status("one") != "RUNNING", "containerd to notice")
    for id in ("one", "two"):
        box.remove(id)
    assert not leftovers.settled(box.leftovers)
    if command == "uninstall":
        assert not list(linked.links.iterdir())
        assert not (linked.directory / "shimd").exists()
        old.link(linked.links)
    assert box.run("next").code == 0
    linked.shimd(old, command, *flags)
    assert not of_shimd(linked)
    assert "nothing" in linked.shimd(old, command, *flags).out
