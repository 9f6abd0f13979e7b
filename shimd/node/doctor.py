"""``shimd doctor``: what may keep apps from running on this node, one finding a check, each with its remedy."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import shimd
from shimd import keeper, paths, release, zygote
from shimd.cgroup import layout
from shimd.engines.registry import engine_names, engine_version, lacking
from shimd.isolation import landlock
from shimd.launcher.build import ENGINES
from shimd.launcher.names import runtime_type
from shimd.linux.ownership import not_alone
from shimd.node.check import process
from shimd.node.distributions import DISTRIBUTIONS, PATH, PLAIN
from shimd.node.old import UPGRADE, old
from shimd.node.tasks import daemon
from shimd.remedies import told

#: Bytes below which the cache will soon have no room for another compiled module.
_LITTLE_SPACE = 200 << 20
#: Open files below which a node's apps may be too many for the daemon.
_FEW_DESCRIPTORS = 1 << 16
#: The program that runs.
_OWN = Path(sys.argv[0]).resolve()
#: Of containerd by itself, and of distributions that bring their own.
_SOCKETS = tuple(dict.fromkeys(each.address for each in (PLAIN, *DISTRIBUTIONS)))
#: Kernel releases, and what comes with them.
_NEEDED = {(5, 6): "openat2(2), pidfd_open(2)"}
_WANTED = {(5, 7): "clone3(2) into a cgroup: without it starts are slower", (5, 12): "mount_setattr(2): no rro mounts"}
_GUEST = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\08\\00\\00\\00\\05\\00\\00\\00well\\n")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))
"""


@dataclass(frozen=True)
class Finding:
    subject: str
    level: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""
    """A sentence that says what to do; empty if there is nothing to be done."""


def examine() -> list[Finding]:
    """Returns every check's findings, in the order in which one thing needs another."""
    return [finding for check in _CHECKS for finding in _found(check)]


def _found(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield a check's findings; what it stumbles over is one."""
    try:
        yield from check()
    except Exception as error:
        said = told(error, "doctor")
        if said is None:
            raise
        found, _, remedy = said.partition("; ")
        yield Finding(check.__name__.strip("_").replace("_", " "), "problem", f"cannot be looked at: {found}", remedy)


def _kernel() -> Iterator[Finding]:
    kernel = os.uname().release
    numbers = [int(number) for number in re.findall(r"\d+", kernel)[:2]]
    version = (numbers[0], numbers[1])
    for least, what in _NEEDED.items():
        if version < least:
            yield Finding("kernel", "problem", f"{kernel} has no {what}", f"use Linux {least[0]}.{least[1]} or later")
            return
    lacks = [what for least, what in _WANTED.items() if version < least]
    if lacks:
        yield Finding("kernel", "warning", f"{kernel} lacks {'; '.join(lacks)}", "use Linux 5.12 or later")
    else:
        yield Finding("kernel", "ok", kernel)


def _privileges() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("user", "ok", "root")
    else:
        yield Finding("user", "problem", f"uid {os.geteuid()}: containers cannot be made", "run shimd doctor as root")


def _cgroups() -> Iterator[Finding]:
    found = layout.current()
    names = {name for hierarchy in found.v1 for name in hierarchy.controllers} | _unified(found)
    kind = "version 2" if found.is_v2 else "version 1" + (" and 2 (hybrid)" if found.unified else "")
    lacks = {"cpu", "memory", "pids"} - names
    if not found.roots:
        yield Finding("cgroups", "problem", "none is mounted", "mount cgroup2 at /sys/fs/cgroup")
    elif lacks:
        remedy = "enable them, by the kernel's command line or in cgroup.subtree_control of the root"
        yield Finding("cgroups", "warning", f"{kind}, without {', '.join(sorted(lacks))}", remedy)
    else:
        yield Finding("cgroups", "ok", kind)


def _unified(found: layout.Layout) -> set[str]:
    if found.unified is None:
        return set()
    return set(Path(found.unified, "cgroup.controllers").read_text().split())


def _engines() -> Iterator[Finding]:
    for name in engine_names():
        if missing := lacking(name):
            yield Finding(f"engine {name}", "warning", missing.found, missing.remedy)
            continue
        try:
            yield Finding(f"engine {name}", "ok", engine_version(name))
        except Exception as error:  # whatever a package that is broken on this node raises
            yield Finding(f"engine {name}", "problem", f"{type(error).__name__}: {error}", "install its package anew")


def _native() -> Iterator[Finding]:
    name = os.environ.get("SHIMD_RUNC") or "runc"
    if program := shutil.which(name) or shutil.which(name, path=_brought()):
        yield Finding("native containers", "ok", program)
    else:
        remedy = f"install {name}, or name another by SHIMD_RUNC; Wasm apps run without"
        yield Finding("native containers", "warning", f"there is no {name}: sidecars do not run", remedy)


def _brought() -> str:
    """Returns the directories of distributions' programs, as a PATH."""
    return os.pathsep.join(each.programs for each in DISTRIBUTIONS)


def _space() -> Iterator[Finding]:
    directory = next(path for path in (paths.cache_dir(), *paths.cache_dir().parents) if path.exists())
    free = shutil.disk_usage(directory).free
    level: Literal["ok", "warning"] = "warning" if free < _LITTLE_SPACE else "ok"
    remedy = f"make room below {paths.cache_dir()}, or set SHIMD_CACHE_DIR" if level == "warning" else ""
    yield Finding("module cache", level, f"{free >> 20} MiB free at {paths.cache_dir()}", remedy)


def _directories() -> Iterator[Finding]:
    problems = [problem for directory in paths.directories() if (problem := not_alone(directory))]
    for problem in problems:
        yield Finding("directories", "problem", problem, "see to its owner and mode: the daemon does not start")
    if not problems:
        yield Finding("directories", "ok", f"{', '.join(map(str, paths.directories()))}: nobody else may write there")


def _tree() -> Iterator[Finding]:
    """The files that root runs: who may write to them is root."""
    if os.geteuid() != 0:
        return
    places = dict.fromkeys((Path(shimd.__file__).parent, _OWN.parent))
    problems = [problem for place in places if (problem := not_alone(place))]
    for problem in problems:
        yield Finding(
            "installation", "warning", problem, "install shimd where only root may write: what is there is run"
        )
    if not problems:
        yield Finding("installation", "ok", f"{', '.join(map(str, places))}: nobody else may write there")


def _parts_in_c() -> Iterator[Finding]:
    remedy = "install a C compiler (gcc, libc6-dev), then shimd anew, and call shimd upgrade"
    if keeper.program() is None:
        found = "there is no keeper: when the daemon ends, so do apps"
        yield Finding("parts in C", "warning", found, remedy)
    elif not zygote.PROGRAM.is_file():
        yield Finding(
            "parts in C", "warning", "there is no zygote: all workers run in Python, and take more memory", remedy
        )
    else:
        yield Finding("parts in C", "ok", "the keeper and the zygote are there")


def _descriptors() -> Iterator[Finding]:
    """Of the daemon, or of containerd, whose launchers start it."""
    running, containerd = daemon(), _process()
    name, pid = ("the daemon", running.pid) if running else ("containerd", int(containerd.name) if containerd else 0)
    if not pid:
        return
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    except (ProcessLookupError, PermissionError):
        return
    if hard == resource.RLIM_INFINITY or hard >= _FEW_DESCRIPTORS:
        yield Finding("descriptors", "ok", f"{name} may have {'any number' if hard < 0 else hard} open")
    else:
        remedy = "raise LimitNOFILE= of the service that it runs in, and restart that"
        yield Finding("descriptors", "warning", f"{name}, pid {pid}, may have {hard} open: few for many apps", remedy)


def _landlock() -> Iterator[Finding]:
    if found := landlock.version():
        yield Finding("Landlock", "ok", f"version {found}")
    else:
        remedy = "use Linux 5.19 or later, with landlock among those that /sys/kernel/security/lsm lists"
        yield Finding("Landlock", "warning", "not there: workers have one wall less around their files", remedy)


def _daemon() -> Iterator[Finding]:
    """And its keeper, fork servers and jailers: whether all of them are of the release that is installed."""
    running = daemon()
    if running is None:
        yield Finding("daemon", "ok", f"does not run, or does not answer, at {paths.runtime_dir()}")
    elif running.release == release.installed():
        yield Finding("daemon", "ok", f"release {running.release}, at {paths.runtime_dir()}")
    for one in old(running):
        found = f"pid {one.pid}, is of {one.release or 'another release'}, and {release.installed()} is installed"
        yield Finding(one.what.removeprefix("the "), "warning", found, one.remedy)


def _containerd() -> Iterator[Finding]:
    address = _address()
    if address is None:
        remedy = "start containerd, or set CONTAINERD_ADDRESS to its socket"
        yield Finding("containerd", "problem", f"no socket at {' or '.join(_SOCKETS)}", remedy)
        return
    done = _run([*_ctr(), "--address", address, "version"])
    versions = re.findall(r"Version:\s+v?(\S+)", done.stdout)
    if done.returncode != 0 or not versions:
        yield Finding("containerd", "problem", _last(done.stderr), f"start containerd: nobody answers at {address}")
    elif tuple(map(int, versions[-1].split(".")[:2])) < (1, 6):
        yield Finding("containerd", "problem", f"version {versions[-1]}", "use containerd 1.6 or later")
    else:
        yield Finding("containerd", "ok", f"version {versions[-1]}, at {address}")


def _launchers() -> Iterator[Finding]:
    path = _path_of_containerd()
    for name in ENGINES:
        program = shutil.which(f"containerd-shim-{name}-v1", path=path)
        if program is None:
            found = f"containerd-shim-{name}-v1 is not in containerd's PATH ({path})"
            yield Finding(f"launcher {name}", "problem", found, "shimd install")
        elif (other := Path(program).resolve().parent) != _OWN.parent and _OWN.with_name("shimd-launcher").exists():
            found = f"{program} leads to another installation, in {other}"
            yield Finding(f"launcher {name}", "warning", found, UPGRADE)
        elif shimd.__version__ not in (said := _run([program, "-v"]).stdout):
            found = f"{program} is another version's: {' '.join(said.split())}"
            yield Finding(f"launcher {name}", "warning", found, "shimd install, or remove that file")
        else:
            yield Finding(f"launcher {name}", "ok", program)


def _configuration() -> Iterator[Finding]:
    """Check the configuration, which Kubernetes needs; ``ctr`` does without."""
    command = _containerd_command()
    if command is None:
        return
    done = _run(["containerd", *command[1:], "config", "dump"], command[0])
    lacks = [name for name in ENGINES if runtime_type(name) not in done.stdout]
    if done.returncode != 0:
        found = f"{command[0]} config dump: {_last(done.stderr)}"
        yield Finding("runtimes", "problem", found, "mend containerd's configuration")
    elif lacks:
        found = f"containerd's configuration has no runtime for {', '.join(lacks)}: pods cannot use them"
        yield Finding("runtimes", "warning", found, "shimd install --restart-containerd")
    else:
        yield Finding("runtimes", "ok", f"{', '.join(ENGINES)} are in containerd's configuration")


def _one_task() -> Iterator[Finding]:
    """Run an app on each engine: by containerd, launcher, daemon and worker, and its output all the way back."""
    address = _address()
    if address is None:
        return
    for name in (name for name in ENGINES if not lacking(name)):
        with tempfile.TemporaryDirectory(prefix="shimd-doctor-") as directory:
            Path(directory, "app.wat").write_text(_GUEST)
            Path(directory).chmod(0o755)
            done = _run(_ctr_run(address, name, directory))
        if (done.returncode, done.stdout) == (0, "well\n"):
            yield Finding(f"an app on {name}", "ok", "ran in a container")
        else:
            found = _last(done.stderr) or f"exit code {done.returncode}, output {done.stdout!r}"
            yield Finding(f"an app on {name}", "problem", found, "mend what is found above; shimd logs tells more")


def _ctr_run(address: str, engine: str, directory: str) -> list[str]:
    name = f"shimd-doctor-{os.getpid()}"
    base = [*_ctr(), "--address", address, "--namespace", "shimd-doctor", "run", "--rm"]
    return [*base, "--rootfs", "--runtime", runtime_type(engine), directory, name, "/app.wat"]


def _address() -> str | None:
    named = os.environ.get("CONTAINERD_ADDRESS")
    return next((path for path in ([named] if named else _SOCKETS) if Path(path).is_socket()), None)


def _ctr() -> list[str]:
    """Returns the command ``ctr``: on the PATH, or where a distribution has it; k0s has it within itself."""
    found = shutil.which("ctr") or shutil.which("ctr", path=_brought())
    return ["k0s", "ctr"] if found is None and shutil.which("k0s") else [found or "ctr"]


def _process() -> Path | None:
    """Returns the directory in /proc of the containerd that answers; ``None``: none does."""
    address = _address()
    return process(address) if address else None


def _path_of_containerd() -> str:
    """Returns the PATH that containerd was started with; if it does not run, the one that systemd gives it."""
    process = _process()
    with suppress(OSError):  # it has ended meanwhile
        for variable in (process / "environ").read_bytes().split(b"\0") if process else []:
            if variable.startswith(b"PATH="):
                return os.fsdecode(variable[5:])
    return PATH


def _containerd_command() -> list[str] | None:
    """Returns the containerd that runs, with the option that names its configuration; ``None``: none does."""
    process = _process()
    if process is None:
        return None
    try:
        program = os.readlink(process / "exe")
        words = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")]
    except OSError:  # it has ended meanwhile
        return None
    flags = [words[place : place + 2] for place, word in enumerate(words) if word in ("-c", "--config")]
    joined = [[word] for word in words if word.startswith("--config=")]  # k0s
    return [program, *next(iter([*flags, *joined]), [])]


def _run(command: list[str], program: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, for a minute at most; exit code 127 if it cannot be run.

    :param program: the file, if it is not what the command's first word names: k3s is many programs in one
    """
    try:
        return subprocess.run(
            command,
            executable=program,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


_CHECKS: list[Callable[[], Iterator[Finding]]] = [
    _kernel,
    _privileges,
    _cgroups,
    _engines,
    _native,
    _space,
    _directories,
    _tree,
    _parts_in_c,
    _landlock,
    _containerd,
    _launchers,
    _configuration,
    _daemon,
    _descriptors,
    _one_task,
]
