"""What is of another release than the installed one."""

from pathlib import Path

import pytest

from shimd import keeper, release
from shimd.api.shimd.status.v1 import DaemonResponse, ForkServer
from shimd.node import old as module
from shimd.node.old import UPGRADE, old
from shimd.node.processes import Kind, Process


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "of", lambda _kinds: [])
    monkeypatch.setattr(module, "current_keeper", lambda: 0)


def daemon(of: str, *fork_servers: ForkServer) -> DaemonResponse:
    return DaemonResponse(pid=7, release=of, fork_servers=list(fork_servers))


def test_nothing() -> None:
    own = release.installed()
    warming = ForkServer(engine="wasmer", pid=9)
    assert old(None) == []
    assert old(daemon(own, ForkServer(engine="wasmtime", pid=8, release=own), warming)) == []


def test_a_daemon_with_all_that_is_its_own() -> None:
    found = old(daemon("0.0+1", ForkServer(engine="wasmtime", pid=8, release="0.0+1")))
    assert [(one.what, one.pid, one.remedy, one.restart) for one in found] == [
        ("the daemon", 7, UPGRADE, True),
        ("the fork server of wasmtime", 8, UPGRADE, True),
    ]
    assert str(found[0]) == "the daemon, pid 7, is of 0.0+1"


@pytest.mark.parametrize(("of", "words"), [("0.0+1", "is of 0.0+1"), ("", "is of another release")])
def test_a_fork_server_that_serves_its_last_app(of: str, words: str) -> None:
    server = ForkServer(engine="wasmtime", pid=8, release=of, retiring=True, workers=1)
    (one,) = old(daemon(release.installed(), server))
    assert (str(one), one.restart) == (f"the fork server of wasmtime, pid 8, {words}", False)
    assert one.remedy.startswith("it has 1 app left, and leaves with the last")


def test_keepers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own is replaced by an upgrade; one that was replaced ends by itself."""
    monkeypatch.setattr(keeper, "program", lambda: Path("/opt/shimd-keeper"))
    monkeypatch.setattr(module, "current_keeper", lambda: 10)
    keepers = [Process(pid, 1, 1, Kind.KEEPER) for pid in (10, 11, 12)]
    monkeypatch.setattr(module, "of", lambda kinds: keepers if kinds == [Kind.KEEPER] else [])
    monkeypatch.setattr(module, "runs", lambda pid, _program: pid == 12)
    assert [(one.what, one.pid, one.restart) for one in old(None)] == [
        ("the keeper", 10, True),
        ("a keeper", 11, False),
    ]


def test_a_jailer_of_an_earlier_daemon_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    jailers = [Process(20, 1, 7, Kind.JAILER), Process(21, 1, 1, Kind.JAILER)]
    monkeypatch.setattr(module, "of", lambda kinds: jailers if kinds == [Kind.JAILER] else [])
    (one,) = old(daemon(release.installed()))
    assert (one.what, one.pid, one.restart) == ("a jailer", 21, False)
