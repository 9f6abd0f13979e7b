"""The compile worker: reads an untrusted module, writes its compiled form, and can do nothing else.

All that compiling takes is loaded before it gives up its sight of the node's files (:mod:`shimd.seal`).

It is forked from the fork server and dies after one module. Input is fd 0. It runs as nobody, without network and
capabilities, in a pid namespace of its own (so that nothing it starts outlives it, and it reaches no other process),
within limits of memory, time and file size, and may write to one empty directory only: all else is read-only.
"""

import errno
import hashlib
import os
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shimd.engine import ChoosesEngine, Engine, Foresees, LoadsCompiler
from shimd.engines import foresight  # noqa: F401 — what engines foresee by
from shimd.errors import ResourceExhausted, Unavailable
from shimd.formats import outline
from shimd.isolation.privileges import filter_calls
from shimd.linux import libc
from shimd.linux.cgroup import join
from shimd.protocol.constants import RUNNER_FILE
from shimd.protocol.plans import Compilation
from shimd.seal import seal

#: How a program in the binary format starts; all else is taken for text (``.wat``).
_BINARY = b"\0asm"
#: nobody:nogroup (the kernel's overflow ids).
_NOBODY = 65534
#: How much it is niced, and its oom_score_adj: the highest.
_NICE, _FIRST_TO_DIE = 10, "1000"
#: Where the directory for the artefact is mounted; there is one everywhere.
_PLACE = "/tmp"


def run(engine: Engine[object], plan: Compilation) -> None:
    """Compile fd 0 into ``plan.artifact``, whose parent directory the caller has made for us.

    :raises EngineError: the module is not valid, or the engine failed
    :raises ResourceExhausted: it takes more memory or space than it may
    :raises Unavailable: it is not what was hashed
    """
    _give_way(plan.directories)
    if not plan.limited:
        resource.setrlimit(resource.RLIMIT_AS, (_limit("MEMORY", 16 << 30),) * 2)
    with suppress(OSError):  # a pipe, which nobody looked at
        os.lseek(0, 0, os.SEEK_SET)
    program = open(0, "rb", closefd=False)  # noqa: SIM115 this process has no other use for it
    load_compiler(engine, program.peek())
    artifact = _confine(Path(plan.artifact))
    filter_calls(plan.seccomp)
    _foresee(engine, plan.engine)
    if plan.only_look:
        return
    try:
        engine.precompile(_unchanged(program.read(), plan.digest), artifact)
    except MemoryError:
        raise ResourceExhausted("compiling takes more memory than SHIMD_COMPILE_MEMORY allows") from None
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise ResourceExhausted("its compiled form is larger than SHIMD_COMPILE_OUTPUT allows") from None
    os.chmod(artifact, 0o755 if artifact.is_dir() else 0o644)
    if isinstance(engine, ChoosesEngine) and (runner := engine.runner(artifact)):
        artifact.with_name(RUNNER_FILE).write_text(runner)


def load_compiler(engine: Engine[object], start: bytes) -> None:
    """All that compiling takes; nothing is imported afterwards.

    :param start: the program's first bytes
    """
    if isinstance(engine, LoadsCompiler):
        engine.load_compiler(text=not start.startswith(_BINARY))
    seal("its confinement")


def _give_way(cgroup: Sequence[str]) -> None:
    """To apps, and to all else on the node: it can be done again, and comes from anybody. Into its own cgroup, too."""
    join(cgroup)
    os.nice(_NICE)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # not the daemon's, which protects it
        file.write(_FIRST_TO_DIE)


def _foresee(engine: Engine[object], runs_on: str | None) -> None:
    """:raises UnsupportedFeature: it would be compiled in vain"""
    if isinstance(engine, Foresees):
        try:
            found = outline.read(0)
        except OSError:  # no file that can be read from the middle
            return
        if found is not None:
            engine.foresee(found, runs_on or engine.name)


def _unchanged(data: bytes, digest: str | None) -> bytes:
    """Returns the program, if it still is what was hashed: whoever can write to it may have done so since."""
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise Unavailable("the program was changed while it was read")
    return data


def _confine(artifact: Path) -> Path:
    """Give everything up that is not needed; returns where the artefact's directory is now."""
    resource.setrlimit(resource.RLIMIT_CPU, (_limit("CPU_SECONDS", 600),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_limit("OUTPUT", 4 << 30),) * 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error to be told, not a death
    if os.geteuid() != 0:
        return artifact
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC)
    libc.mount(None, "/", None, libc.MS_REC | libc.MS_SLAVE)
    # The one directory that it may write, at a place that nobody can reach whatever lies above the cache.
    os.chown(artifact.parent, _NOBODY, _NOBODY)
    libc.mount(str(artifact.parent), _PLACE, None, libc.MS_BIND)
    _make_all_readonly()
    libc.mount(None, _PLACE, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC)
    os.chdir(_PLACE)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.capset(0, 0, 0)
    return Path(_PLACE, artifact.name)


def _make_all_readonly() -> None:
    """Make the mounts read-only: what anybody may write to (/var/tmp, others' directories) is not for us."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.mount_setattr_readonly(root)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel before 5.12: permissions alone have to do
            raise
    finally:
        os.close(root)


def _limit(name: str, default: int) -> int:
    """A limit from ``SHIMD_COMPILE_<name>`` (bytes, seconds), capped by the hard limit in force."""
    return int(os.environ.get(f"SHIMD_COMPILE_{name}") or default)
