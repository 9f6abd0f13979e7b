"""What is left of root's powers once they are dropped, as the kernel tells."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from shimd.errors import InvalidArgument
from shimd.isolation import privileges
from shimd.isolation.seccomp import worker_filter
from shimd.oci import Process
from shimd.protocol.system_calls import SystemCalls
from tests.unit.inside import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
NET, CHOWN = 1 << 10, 1 << 0


def process(**more: object) -> Process:
    made: Process = {"args": ["app"], "cwd": "/", **more}  # type: ignore[typeddict-item]
    return made


def dropped(process: Process, then: Callable[[], object], seccomp: str | None = None) -> str:
    def act() -> object:
        privileges.drop(calls := SystemCalls(), process)
        privileges.filter(calls, seccomp or "")
        calls.take()
        return then()

    return inside(act)


def status(*names: str) -> list[str]:
    lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return [lines[name].strip() for name in names]


def capabilities() -> list[int]:
    """Inheritable, permitted, effective, bounding, ambient."""
    return [int(value, 16) for value in status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]


def held() -> list[str]:
    """All capabilities that this machine's root has."""
    mask = capabilities()[1]
    return [f"CAP_{name}" for number, name in enumerate(privileges.CAPABILITIES) if mask >> number & 1]


NAMES = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]


def test_nothing_is_kept_that_is_not_asked_for() -> None:
    assert dropped(process(), capabilities) == "[0, 0, 0, 0, 0]"


def test_root_keeps_what_the_spec_gives() -> None:
    given = {"bounding": NAMES, "effective": NAMES[:1], "permitted": NAMES}
    assert dropped(process(capabilities=given), capabilities) == str([0, NET | CHOWN, CHOWN, NET | CHOWN, 0])


def test_others_have_only_ambient_ones_as_after_an_exec() -> None:
    given = {"bounding": NAMES, "effective": NAMES, "permitted": NAMES, "inheritable": NAMES[1:], "ambient": NAMES[1:]}
    user = {"uid": 1000, "gid": 1000}
    assert dropped(process(capabilities=given, user=user), capabilities) == str([NET, NET, NET, NET | CHOWN, NET])
    del given["ambient"]
    assert dropped(process(capabilities=given, user=user), capabilities) == str([NET, 0, 0, NET | CHOWN, 0])


def test_user_groups_and_umask() -> None:
    user = {"uid": 1234, "gid": 5678, "additionalGids": [5, 6], "umask": 0o027}
    said = dropped(process(user=user), lambda: status("Uid", "Gid", "Groups", "Umask", "NoNewPrivs"))
    ids = ["\\t".join([number] * 4) for number in ("1234", "5678")]
    assert said == f"['{ids[0]}', '{ids[1]}', '5 6', '0027', '1']"


def test_there_is_no_way_back() -> None:
    assert dropped(process(user={"uid": 1, "gid": 1}), lambda: os.setuid(0)).startswith("PermissionError")


def test_an_unknown_capability_is_named() -> None:
    said = dropped(process(capabilities={"bounding": ["CAP_FLY"]}), capabilities)
    assert said == "InvalidArgument: capability CAP_FLY is not known"


def test_limits() -> None:
    def act() -> object:
        rlimits = [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
        ]
        limited = process(rlimits=rlimits, oomScoreAdj=500)
        with Path("/proc/self/oom_score_adj").open() as score:  # there may be no descriptor for it afterwards
            privileges.account(calls := SystemCalls(), limited)
            privileges.limit(calls, limited)
            return calls.take(), resource.getrlimit(resource.RLIMIT_NOFILE), score.read().strip()

    assert inside(act) == "([], (100, 200), '500')"


def test_limits_that_are_none() -> None:
    with pytest.raises(InvalidArgument, match="rlimit RLIMIT_JOY is not known"):
        privileges.limit(SystemCalls(), process(rlimits=[{"type": "RLIMIT_JOY", "soft": 1, "hard": 1}]))


def test_what_the_node_forbids_is_a_warning() -> None:
    def act() -> object:
        limited = process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 300, "hard": 200}], oomScoreAdj=2000)
        privileges.account(calls := SystemCalls(), limited)
        privileges.limit(calls, limited)
        return calls.take()

    reason = "cannot be set: invalid argument"
    assert inside(act) == f"['oom_score_adj 2000 {reason}', 'rlimit RLIMIT_NOFILE {reason}']"


@pytest.mark.parametrize(
    "call",
    [
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.kill(os.getppid(), 0),
        lambda: os.mknod("/tmp/shimd-device", 0o20600, 0x103),
        lambda: os.chroot("/"),
    ],
    ids=["execve", "kill", "mknod", "chroot"],
)
def test_the_filter_denies_what_no_guest_needs_even_to_root(call: Callable[[], object]) -> None:
    given = {"bounding": held(), "effective": held(), "permitted": held()}
    said = dropped(process(capabilities=given), call, seccomp=worker_filter({"linux": {}}))
    assert said.startswith("PermissionError"), said


def test_the_filter_lets_ordinary_work_be_done(tmp_path: Path) -> None:
    def work() -> object:
        (tmp_path / "file").write_text("text")
        return (tmp_path / "file").read_text(), os.getpid() > 0

    assert dropped(process(), work, seccomp=worker_filter({"linux": {}})) == "('text', True)"
