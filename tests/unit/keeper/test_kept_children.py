"""Children, orphans and their exits; the supervisor among them."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from shimd.protocol.keeper import MAX_EXITS, REMOVES, Kind
from tests.unit.keeper.rig import Process, Supervisor, alive, command, until


def test_a_child_has_what_it_is_given_and_nothing_else(keeper: Process, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as out, keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        script = (
            "ls /proc/$$/fd; tr '\\0' '\\n' </proc/$$/environ; grep -E 'Sig(Blk|Ign)' /proc/self/status; echo $1 $0 >&9"
        )
        answer = supervisor.spawn(
            ["/bin/sh", "-c", script, "", "a  b"], {"A": "1", "B": ""}, {9: out.fileno(), 1: out.fileno()}
        )
        pid, start = answer.numbers[:2]
        assert supervisor.exit_of(pid).numbers[1:3] == (start, 0)
        said = (tmp_path / "out").read_text().split("\n")
    assert sorted(said[:4]) == ["0", "1", "2", "9"]
    assert said[4:6] == ["A=1", "B="]
    assert [int(line.split()[1], 16) & 0x7FFFFFFF for line in said[6:8]] == [0, 0]  # those of POSIX
    assert said[8] == "a b"


def test_a_child_leads_a_session_and_has_the_usual_limit(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        pid, _ = supervisor.run("exec sleep 60")
        assert os.getsid(pid) == pid
        limits = [
            Path(f"/proc/{one}/limits").read_text().partition("Max open files")[2].split()[0] for one in (pid, "self")
        ]
        assert limits[0] == limits[1]


def test_descriptors_may_change_places(keeper: Process, tmp_path: Path) -> None:
    with open(tmp_path / "one", "w") as one, open(tmp_path / "two", "w") as two, keeper.connect() as supervisor:
        fds = {number: one.fileno() if number % 2 else two.fileno() for number in range(3, 12)}
        answer = supervisor.spawn(["/bin/sh", "-c", "for n in 3 4 5 6 7 8 9; do echo $n >&$n; done"], {}, fds)
        supervisor.exit_of(answer.numbers[0])
    assert (tmp_path / "one").read_text().split() == ["3", "5", "7", "9"]
    assert (tmp_path / "two").read_text().split() == ["4", "6", "8"]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7 << 8), ("kill -9 $$", 9), ("kill -15 $$", 15)]
)
def test_exits_have_their_status_and_time(keeper: Process, script: str, status: int) -> None:
    with keeper.connect() as supervisor:
        before = time.time_ns()
        pid, start = supervisor.run(script)
        told = supervisor.exit_of(pid).numbers
        assert told[:3] == (pid, start, status)
        assert before <= told[3] <= time.time_ns()
        assert not alive(pid)


def test_what_cannot_be_started_says_why(keeper: Process, tmp_path: Path) -> None:
    (tmp_path / "not-a-program").touch()
    with keeper.connect() as supervisor:
        for path, reason in ((tmp_path / "none", 2), (tmp_path / "not-a-program", 13), (tmp_path, 13)):
            answer = supervisor.spawn([str(path)])
            assert (answer.kind, answer.numbers[0]) == (Kind.FAILED, reason)
        supervisor.say(Kind.SPAWN, id=1)
        assert supervisor.expect(Kind.FAILED).id == 1
        supervisor.say(Kind.SPAWN, id=2, fds=[0])
        assert supervisor.expect(Kind.FAILED).id == 2
        assert supervisor.list() == ({}, [])


@pytest.mark.parametrize("cut", [0, 11, 12, 13, 15, 16, 20])
def test_a_command_that_is_torn_is_refused(keeper: Process, tmp_path: Path, cut: int) -> None:
    whole = os.pread(command(["/bin/true"], {"A": "B"}, [5]), 1000, 0)
    (tmp_path / "command").write_bytes(whole[:cut])
    with open(tmp_path / "command") as file, keeper.connect() as supervisor:
        supervisor.say(Kind.SPAWN, id=1, fds=[file.fileno(), 0])
        assert supervisor.expect(Kind.FAILED).numbers[0] == 22


def test_orphans_become_its_children(keeper: Process, tmp_path: Path) -> None:
    with keeper.connect() as supervisor:
        parent, _ = supervisor.run(f"sleep 60 & echo $! >{tmp_path}/pid; wait")
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "its child")
        orphan = int((tmp_path / "pid").read_text())
        os.kill(parent, signal.SIGKILL)
        supervisor.exit_of(parent)
        assert keeper.children() == [orphan]
        os.kill(orphan, signal.SIGTERM)
        assert supervisor.exit_of(orphan).numbers[2] == signal.SIGTERM


def test_exits_are_told_until_they_are_acknowledged(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        (pid, start), (other, _) = supervisor.run("exit 3"), supervisor.run("sleep 0.1; exit 4")
        supervisor.exit_of(pid)
    until(lambda: not alive(other), "the other to end without a supervisor")
    with keeper.connect() as successor:
        _, exits = successor.list()
        assert {packet.numbers[0]: packet.numbers[2] >> 8 for packet in exits} == {pid: 3, other: 4}
        successor.say(Kind.ACKNOWLEDGE, pid, start + 1)  # another's, of the same number
        successor.say(Kind.ACKNOWLEDGE, pid, start)
        successor.say(Kind.ACKNOWLEDGE, 0, 0)
        _, exits = successor.list()
        assert [packet.numbers[0] for packet in exits] == [other]


def test_the_oldest_exits_are_dropped(keeper: Process) -> None:
    more = MAX_EXITS + 50
    with keeper.connect() as supervisor:
        first, _ = supervisor.run("exit 1")
        supervisor.exit_of(first)
        script = f"import os\nfor _ in range({more}):\n if not os.fork(): os._exit(0)"
        pid = supervisor.spawn([sys.executable, "-ISc", script]).numbers[0]  # which waits for none of them
        supervisor.exit_of(pid)
        until(lambda: not keeper.children(), "all of them to end")
        _, exits = supervisor.list()
        while len(exits) > MAX_EXITS:  # those that were told meanwhile come first
            del exits[0]
        assert first not in [packet.numbers[0] for packet in exits[-MAX_EXITS:]]
        _, exits = supervisor.list()
        assert len(exits) == MAX_EXITS


def test_quit_ends_it_at_once_if_it_has_no_children(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        supervisor.say(Kind.QUIT, REMOVES)
        until(keeper.ended, "the keeper to end")
    assert not keeper.path.exists()


def test_quit_waits_for_its_children(keeper: Process, pair: tuple[int, int]) -> None:
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[pair[1]])
        os.close(pair[1])
        pid, _ = supervisor.run("exec sleep 60")
        supervisor.say(Kind.QUIT)
        assert supervisor.names() == set()
        assert os.read(pair[0], 1) == b""
    assert not keeper.ended()
    os.kill(pid, signal.SIGKILL)
    until(keeper.ended, "the keeper to end")
    assert keeper.path.exists()


def test_it_is_called_back(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        pid, _ = supervisor.run("exec sleep 60")
        supervisor.say(Kind.QUIT)
    with keeper.connect() as successor:
        os.kill(pid, signal.SIGKILL)
        successor.exit_of(pid)
        assert successor.names() == set()
        assert not keeper.ended()


def test_it_ends_when_nobody_needs_it(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        supervisor.say(Kind.DROP, name="a")
    until(keeper.ended, "the keeper to end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT])
def test_signals_do_not_end_it(keeper: Process, number: signal.Signals) -> None:
    with keeper.connect() as supervisor:
        os.kill(keeper.pid, number)
        assert supervisor.names() == set()


def test_it_ends_with_the_node(keeper: Process) -> None:
    """Which waits for each process that it has told to end, children or not."""
    with keeper.connect() as supervisor:
        keeper.first.close()
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        child, _ = supervisor.run("exec sleep 60")
        connected = keeper.open()
    until(lambda: keeper.open() < connected, "it to notice")
    os.kill(keeper.pid, signal.SIGTERM)
    until(keeper.ended, "the keeper to end")
    os.kill(child, signal.SIGKILL)


def test_it_stays_for_who_is_to_be_started_again(keeper: Process, tmp_path: Path) -> None:
    with restarted(keeper, tmp_path, "exec sleep 60"):
        connected = keeper.open()
    until(lambda: keeper.open() < connected, "it to notice")
    os.kill(keeper.pid, signal.SIGTERM)
    until(keeper.children, "the next one to be started")
    os.kill(keeper.pid, signal.SIGTERM)
    with keeper.connect() as successor:
        assert successor.names() == set()


def restarted(keeper: Process, tmp_path: Path, script: str) -> Supervisor:
    """A supervisor that asks to be started again as a script, with its output in a file."""
    supervisor = keeper.connect(hello=False)
    file = command(["/bin/sh", "-c", script], {"RUN": str(tmp_path)}, [1])
    with open(tmp_path / "out", "w") as out:
        supervisor.hello([file, out.fileno()])
    os.close(file)
    return supervisor


def test_a_supervisor_is_started_again(keeper: Process, tmp_path: Path) -> None:
    with restarted(keeper, tmp_path, "echo $RUN; exec sleep 60") as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        assert not keeper.children()
    until(keeper.children, "the next one to be started")
    until(lambda: (tmp_path / "out").read_text() == f"{tmp_path}\n", "its output where the old one's went")
    with keeper.connect() as successor:
        assert successor.names() == {"a"}


def test_one_that_dies_at_once_is_started_again_and_again(keeper: Process, tmp_path: Path) -> None:
    with restarted(keeper, tmp_path, "echo $$; exit 1"):
        pass
    until(lambda: len((tmp_path / "out").read_text().split()) >= 3, "three starts")
    with keeper.connect() as successor:
        successor.say(Kind.QUIT)
        until(keeper.ended, "no more of them")


def test_who_was_started_and_waits_is_ended_when_another_comes(keeper: Process, tmp_path: Path) -> None:
    """An upgrade's: it would be the next one, of the release that was replaced."""
    with restarted(keeper, tmp_path, "exec sleep 60"):
        pass
    until(keeper.children, "the next one to be started")
    with keeper.connect() as another:
        until(lambda: not keeper.children(), "its end")
        another.say(Kind.QUIT)
        until(keeper.ended, "the keeper's")


def test_it_is_not_started_again_if_it_said_so_or_has_quit(keeper: Process, tmp_path: Path) -> None:
    with restarted(keeper, tmp_path, "echo $$") as supervisor:
        supervisor.hello()
    until(keeper.ended, "the keeper to end without it")
    assert (tmp_path / "out").read_text() == ""


def test_who_has_no_room_for_its_successors_command_leaves_its_own(keeper: Process, tmp_path: Path) -> None:
    from tests.unit.keeper.test_names import limit

    with restarted(keeper, tmp_path, "echo $$; exec sleep 60"):
        limit(keeper, keeper.open())
    until(keeper.children, "the next one to be started")
    (first,) = keeper.children()
    with restarted(keeper, tmp_path, "echo other"):
        until(lambda: first not in keeper.children(), "the end of who was started, and has not come")
    until(lambda: keeper.children() and keeper.children() != [first], "the first one's command once more")
