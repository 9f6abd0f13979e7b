"""The compile worker: reads an untrusted module, writes its compiled form, and can do nothing else.

It is forked from the fork server and dies after one module. Input is fd 0. It runs as nobody, without network and
capabilities, within limits of memory, time and file size, and may write to one empty directory only.
"""

import os
import resource
from pathlib import Path

from shimd.engines.base import Engine
from shimd.errors import ResourceExhausted
from shimd.linux import libc
from shimd.worker.messages import Plan

#: nobody:nogroup (the kernel's overflow ids).
_NOBODY = 65534
#: Where the directory for the artefact is mounted; there is one everywhere.
_PLACE = "/tmp"


def run(engine: Engine[object], plan: Plan) -> None:
    """Compile fd 0 into ``plan["artifact"]``, whose parent directory the caller has made for us.

    :raises EngineError: the module is not valid, or the engine failed
    :raises ResourceExhausted: it takes more memory or space than it may
    """
    artifact = _confine(Path(plan["artifact"]))
    try:
        with open(0, "rb", closefd=False) as file:
            engine.precompile(file.read(), artifact)
    except MemoryError:
        raise ResourceExhausted("compiling takes more memory than SHIMD_COMPILE_MEMORY allows") from None
    os.chmod(artifact, 0o755 if artifact.is_dir() else 0o644)


def _confine(artifact: Path) -> Path:
    """Give everything up that is not needed; returns where the artefact's directory is now."""
    resource.setrlimit(resource.RLIMIT_CPU, (_limit("CPU_SECONDS", 600),) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (_limit("MEMORY", 16 << 30),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_limit("OUTPUT", 4 << 30),) * 2)
    if os.geteuid() != 0:
        return artifact
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC)
    libc.mount(None, "/", None, libc.MS_REC | libc.MS_SLAVE)
    # The one directory that it may write, at a place that nobody can reach whatever lies above the cache.
    os.chown(artifact.parent, _NOBODY, _NOBODY)
    libc.mount(str(artifact.parent), _PLACE, None, libc.MS_BIND)
    os.chdir(_PLACE)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.capset(0, 0, 0)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    return Path(_PLACE, artifact.name)


def _limit(name: str, default: int) -> int:
    """A limit from ``SHIMD_COMPILE_<name>`` (bytes, seconds), capped by the hard limit in force."""
    return int(os.environ.get(f"SHIMD_COMPILE_{name}") or default)
