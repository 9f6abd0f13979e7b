"""``delete``: the usual one that leaves nothing to do, with a daemon, and cleaning up without one.

Real processes, cgroups and mounts.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shimd import oci
from shimd.api.containerd.task.v2 import DeleteResponse
from shimd.supervisor.task import bundle
from tests.unit.launcher.launcher_rig import Launcher, wait_dead

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
CGROUPS = Path("/sys/fs/cgroup")


def response(done: "subprocess.CompletedProcess[bytes]") -> DeleteResponse:
    assert (done.returncode, done.stderr) == (0, b"")
    return DeleteResponse.parse(done.stdout)


def seconds(answer: DeleteResponse) -> float:
    assert answer.exited_at is not None
    return answer.exited_at.timestamp()


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """A process with a name that makes its /proc/PID/stat hard to read."""
    program = ["/bin/bash", "-c", "echo -n 'x) S 1 (' > /proc/$$/comm; echo; read"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def record(launcher: Launcher, pid: int, *cgroups: Path, start: str = "") -> Path:
    path = launcher.bundle / "shimd.task"
    lines = [f"{pid} {start or start_time(pid)}", *(f"cgroup {cgroup}" for cgroup in cgroups)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_nothing_to_do(launcher: Launcher) -> None:
    before = time.time()
    answer = response(launcher.delete())
    assert (answer.pid, answer.exit_status) == (0, 137)
    assert before - 0.001 <= seconds(answer) <= time.time()
    assert launcher.daemons() == []


def test_no_bundle(launcher: Launcher) -> None:
    launcher.bundle.rmdir()
    answer = response(launcher.delete())
    assert (answer.pid, answer.exit_status) == (0, 137)


def test_daemon_answers(launcher: Launcher, victim: "subprocess.Popen[bytes]") -> None:
    launcher.start()
    record(launcher, victim.pid)
    answer = response(launcher.delete())
    assert (answer.pid, answer.exit_status) == (42, 7)
    assert round(seconds(answer)) == 1700000000
    fields = (launcher.runtime / "request").read_bytes().split(b"\0")
    assert fields[:3] == [b"delete", b"wasmer", b"k8s.io"]
    assert fields[5:] == [b"web", str(launcher.bundle).encode(), b""]
    assert victim.poll() is None  # the daemon's business


def test_kills_without_a_daemon(launcher: Launcher, victim: "subprocess.Popen[bytes]") -> None:
    path = record(launcher, victim.pid)
    answer = response(launcher.delete())
    assert (answer.pid, answer.exit_status) == (victim.pid, 137)
    assert victim.wait(10) == -signal.SIGKILL
    assert not path.exists()
    assert launcher.daemons() == []
    assert response(launcher.delete()).pid == 0


@pytest.mark.parametrize("mode", ["error", "nonsense", "no answer", "killed", "stopped"])
def test_kills_when_the_daemon_is_of_no_help(launcher: Launcher, victim: "subprocess.Popen[bytes]", mode: str) -> None:
    if mode in ("killed", "stopped"):
        launcher.start()
        os.kill(launcher.daemons()[0], signal.SIGKILL if mode == "killed" else signal.SIGSTOP)
    else:
        launcher.env = {"SHIMD_STANDIN": mode}
        launcher.start()
    record(launcher, victim.pid)
    assert response(launcher.delete()).pid == victim.pid
    assert victim.wait(10) == -signal.SIGKILL


def test_spares_a_process_that_took_over_the_pid(launcher: Launcher, victim: "subprocess.Popen[bytes]") -> None:
    path = record(launcher, victim.pid, start=start_time(victim.pid)[:-1])
    assert response(launcher.delete()).exit_status == 137
    assert victim.poll() is None
    assert not path.exists()


def test_process_long_gone(launcher: Launcher) -> None:
    path = record(launcher, 2**22 + 1, start="12345")
    assert response(launcher.delete()).pid == 2**22 + 1
    assert not path.exists()


@pytest.mark.parametrize(
    "content", ["", "\n", "garbage", "1 2 3\ncgroup\ncgroup /sys/fs/cgroup/\n", "x y\ncgroup /tmp\n"]
)
def test_record_that_makes_no_sense(launcher: Launcher, content: str) -> None:
    path = launcher.bundle / "shimd.task"
    path.write_text(content)
    assert response(launcher.delete()).exit_status == 137
    assert not path.exists()


# --- cgroups ---------------------------------------------------------------------------------------------------------


def hierarchies() -> list[Path]:
    """The roots where a cgroup can be made: version 1 hierarchies and the unified one, at either of its places."""
    candidates = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())] if CGROUPS.is_dir() else []
    return [path for path in candidates if path.is_mount() and (path / "cgroup.procs").exists()]


def version2() -> list[Path]:
    return [path for path in hierarchies() if (path / "cgroup.controllers").exists()]


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    """A cgroup for this test in a few hierarchies, the freezer's (version 1) and the unified one among them."""
    wanted = ("freezer", "pids", "unified", "cgroup")
    directories = [root / f"shimd-test-{os.getpid()}" for root in hierarchies() if root.name in wanted]
    for directory in directories:
        (directory / "child").mkdir(parents=True)
    yield directories
    for directory in directories:
        with suppress(OSError):
            (directory / "freezer.state").write_text("THAWED")
        for path in (directory / "child", directory):
            if path.exists():
                for pid in (path / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                    wait_dead(int(pid))
                path.rmdir()


def new(launcher: Launcher, cgroups: list[Path]) -> None:
    """The record of a task that was still being made."""
    (launcher.bundle / "shimd.task").write_text("".join(f"new {cgroup}\n" for cgroup in cgroups))


def test_a_new_cgroup_is_removed(launcher: Launcher, cgroups: list[Path]) -> None:
    new(launcher, [cgroup / "child" for cgroup in cgroups])
    assert response(launcher.delete()).pid == 0
    assert not any((cgroup / "child").exists() for cgroup in cgroups)
    assert all(cgroup.exists() for cgroup in cgroups)


def test_a_new_cgroup_that_is_somebody_elses_stays(launcher: Launcher, cgroups: list[Path]) -> None:
    new(launcher, cgroups[:1])
    with sleeper(cgroups[0]) as process:
        done = launcher.delete()
        assert process.poll() is None
        process.kill()
    assert b"is still in use" in done.stderr
    assert cgroups[0].exists()


def sleeper(directory: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["sleep", "60"])
    (directory / "cgroup.procs").write_text(str(process.pid))
    return process


@needs_root
def test_cgroups_are_emptied_and_removed(
    launcher: Launcher, victim: "subprocess.Popen[bytes]", cgroups: list[Path]
) -> None:
    left = [sleeper(path) for directory in cgroups for path in (directory, directory / "child")]
    record(launcher, victim.pid, *cgroups)
    assert response(launcher.delete()).pid == victim.pid
    assert [process.wait(10) for process in left] == [-signal.SIGKILL] * len(left)
    assert [directory for directory in cgroups if directory.exists()] == []


@needs_root
def test_paused_cgroup(launcher: Launcher, cgroups: list[Path]) -> None:
    switches = [(directory / "freezer.state", "FROZEN") for directory in cgroups if directory.parent.name == "freezer"]
    switches += [(directory / "cgroup.freeze", "1") for directory in cgroups if directory.parent in version2()]
    if not switches:
        pytest.skip("no freezer here")
    for switch, value in switches:
        with sleeper(switch.parent) as process:
            switch.write_text(value)
            record(launcher, process.pid, switch.parent)
            assert response(launcher.delete()).pid == process.pid
            assert process.wait(10) == -signal.SIGKILL
        assert not switch.parent.exists()


@needs_root
def test_cgroup_that_cannot_be_removed_is_named(launcher: Launcher, tmp_path: Path) -> None:
    """The root of a hierarchy: nothing else stays busy."""
    root = next(path for path in hierarchies() if path.name in ("pids", "cgroup"))
    directory = root / f"shimd-test-{os.getpid()}"
    directory.mkdir()
    mount = directory / "."
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        record(launcher, 2**22 + 1, mount, start="1")
        done = launcher.delete()
        assert done.returncode == 0
        assert done.stderr.decode() == f"the cgroup {mount} is still in use\n"
    finally:
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


# --- mounts ----------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("name", ["plain", "with space", "tab\tand \\ back", "ümläut"])
def test_rootfs_is_unmounted(launcher: Launcher, tmp_path: Path, name: str) -> None:
    launcher.bundle = tmp_path / name
    rootfs = launcher.bundle / "rootfs"
    rootfs.mkdir(parents=True)
    for _ in range(2):  # one upon the other
        subprocess.run(["mount", "-t", "tmpfs", "shimd-test", rootfs], check=True)
    (rootfs / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shimd-test", rootfs / "below"], check=True)
    try:
        with open(rootfs / "below" / "busy", "w"):
            record(launcher, 2**22 + 1, start="1")
            assert response(launcher.delete()).exit_status == 137
            assert not rootfs.is_mount()
            assert list(rootfs.iterdir()) == []
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    finally:
        while rootfs.is_mount():
            subprocess.run(["umount", "-l", rootfs], check=True)
        shutil.rmtree(launcher.bundle)


@needs_root
def test_bundle_behind_a_link(launcher: Launcher, tmp_path: Path) -> None:
    real = launcher.bundle / "rootfs"
    real.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shimd-test", real], check=True)
    record(launcher, 2**22 + 1, start="1")
    (tmp_path / "link").symlink_to(launcher.bundle)
    launcher.bundle = tmp_path / "link"
    try:
        assert response(launcher.delete()).exit_status == 137
        assert not real.is_mount()
    finally:
        while real.is_mount():
            subprocess.run(["umount", "-l", real], check=True)


def test_what_a_native_runtime_keeps_is_removed(launcher: Launcher) -> None:
    """And nothing that lies elsewhere, whatever the record says."""
    native = launcher.runtime / "native"
    for name in ("ns/app/deep", "ns/other"):
        (native / name).mkdir(parents=True)
        (native / name / "state.json").write_text("{}")
    elsewhere = launcher.bundle / "elsewhere"
    elsewhere.mkdir()
    (native / "ns/app/link").symlink_to(elsewhere)
    wrong = [f"native {elsewhere}", f"native {native}/../native/ns/other", f"native {native}/"]
    path = launcher.bundle / "shimd.task"
    path.write_text("\n".join(["1 0", f"native {native}/ns/app", *wrong]) + "\n")
    response(launcher.delete())
    assert not path.exists()
    assert [found.name for found in (native / "ns").iterdir()] == ["other"]
    assert elsewhere.exists()


def test_poststop_hooks_are_run(launcher: Launcher, tmp_path: Path) -> None:
    """As by runc's shim; one that fails is a warning, and the others follow."""
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\necho "$0 $1 $HOOK $(cat)" >>{tmp_path}/log; exit $2\n')
    script.chmod(0o755)
    hooks: list[dict[str, object]] = [
        {"path": str(script), "args": ["hook", str(n), str(n)], "env": [f"HOOK={n}"]} for n in (0, 3)
    ]
    hooks += [{"path": "/no/such/hook"}, {"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}]
    spec = {"hooks": {"poststop": hooks}, "annotations": {"a": "b"}}
    (launcher.bundle / "config.json").write_text(json.dumps(spec))
    record(launcher, 4194305, start="1")
    done = launcher.delete("web")
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [
        f"hooks.poststop[1] ({script}): it failed with exit status 3",
        "hooks.poststop[2] (/no/such/hook): No such file or directory",
        "hooks.poststop[3] (/bin/sleep): it took too long",
    ]
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[1:3] for line in lines] == [["0", "0"], ["3", "3"]]
    state = json.loads(lines[0].split(" ", 3)[3])
    where = str(launcher.bundle)
    assert state == {
        "ociVersion": oci.VERSION, "id": "web", "status": "stopped", "bundle": where, "annotations": {"a": "b"},
    }  # fmt: skip


def test_a_poststop_hook_is_for_the_first_who_takes_it(launcher: Launcher, tmp_path: Path) -> None:
    """The daemon, that runs one already and was only slow to answer, or the launcher."""
    hooks = [{"path": "/bin/mkdir", "args": ["mkdir", str(tmp_path / str(number))]} for number in range(3)]
    (launcher.bundle / "config.json").write_text(json.dumps({"hooks": {"poststop": hooks}}))
    assert bundle.claim_hook(launcher.bundle, "poststop", 1)
    for _ in range(2):
        record(launcher, 4194305, start="1")
        response(launcher.delete("web"))
        assert [(tmp_path / str(number)).exists() for number in range(3)] == [True, False, True]
    assert not any(bundle.claim_hook(launcher.bundle, "poststop", number) for number in range(3))
    bundle.forget_claims(launcher.bundle, "poststop", 3)
    assert all(bundle.claim_hook(launcher.bundle, "poststop", number) for number in range(3))
    shutil.rmtree(launcher.bundle)
    assert not bundle.claim_hook(launcher.bundle, "poststop", 0)


def test_a_task_that_left_nothing_has_had_its_hooks(launcher: Launcher, tmp_path: Path) -> None:
    hooks = {"poststop": [{"path": "/bin/touch", "args": ["touch", str(tmp_path / "again")]}]}
    (launcher.bundle / "config.json").write_text(json.dumps({"hooks": hooks}))
    response(launcher.delete())
    assert not (tmp_path / "again").exists()
