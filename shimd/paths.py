"""The paths of shimd's files, chosen so that several installations live side by side.

Three directories, each overridable from the environment (the launcher hands containerd's environment on):
``SHIMD_RUNTIME_DIR`` (sockets, pid file; gone at reboot), ``SHIMD_STATE_DIR`` (what must outlive a reboot: nothing yet)
and ``SHIMD_CACHE_DIR`` (compiled modules). Only this module and the launchers know these names.
"""

import os
from pathlib import Path


def runtime_dir() -> Path:
    return Path(os.environ.get("SHIMD_RUNTIME_DIR") or "/run/shimd")


def state_dir() -> Path:
    return Path(os.environ.get("SHIMD_STATE_DIR") or "/var/lib/shimd")


def cache_dir() -> Path:
    return Path(os.environ.get("SHIMD_CACHE_DIR") or "/var/cache/shimd")


def directories() -> tuple[Path, ...]:
    """Returns those that have to be the daemon's user's alone."""
    return runtime_dir(), state_dir(), cache_dir()


def variable_of(path: str) -> str:
    """Returns the variable that names the directory which a path is in, or that is in its way; empty: none does."""
    named = {"SHIMD_RUNTIME_DIR": runtime_dir(), "SHIMD_STATE_DIR": state_dir(), "SHIMD_CACHE_DIR": cache_dir()}
    return next((name for name, place in named.items() if place in (Path(path), *Path(path).parents)), "")


def pid_file() -> Path:
    return runtime_dir() / "shimd.pid"


def launch_socket() -> Path:
    """Returns the socket where launchers ask for a task address (see ``shimd/launcher/PROTOCOL.md``)."""
    return runtime_dir() / "launch.sock"


def status_socket() -> Path:
    """gRPC Status service for operators, mode 0600."""
    return runtime_dir() / "status.sock"


def keeper_socket() -> Path:
    """SEQPACKET socket of the keeper, mode 0600."""
    return runtime_dir() / "keeper.sock"


def old_keeper_socket(pid: int) -> Path:
    """Of a keeper that another has replaced, until the last of its children has ended."""
    return runtime_dir() / f"keeper.{pid}.sock"


def old_keeper_sockets() -> list[Path]:
    """Those that were ever made since boot, the newest last."""
    found = runtime_dir().glob("keeper.*.sock")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns if path.exists() else 0)


def fork_server_socket(engine: str, name: str) -> Path:
    """SEQPACKET socket of a fork server of one engine; several may run, of which one is current."""
    return runtime_dir() / f"fork-{engine}.{name}.sock"


def fork_server_sockets() -> list[Path]:
    """Those that were ever made since boot."""
    return sorted(runtime_dir().glob("fork-*.*.sock"))


def noted_exits(path: Path) -> Path:
    """Beside a fork server's socket: ends of its workers (``protocol/noted_exits.py``)."""
    return path.with_suffix(".exits")


def engine_of(path: Path) -> str:
    """The engine of a fork server's socket."""
    return path.name.removeprefix("fork-").rsplit(".", 2)[0]


def scratch_dir() -> Path:
    """What native runtimes are told and say; what a daemon that was killed has left is removed by the next one."""
    return runtime_dir() / "scratch"


def journal_dir() -> Path:
    """What the next supervisor has to know (``supervisor/recovery/journal.py``)."""
    return runtime_dir() / "journal"


def native_root(namespace: str) -> Path:
    """Returns the directory where ``runc`` keeps the state of native containers of one containerd namespace."""
    return runtime_dir() / "native" / namespace


def task_socket(engine: str, containerd: str, namespace: str) -> Path:
    """Task service socket of one (engine, containerd event address, containerd namespace).

    containerd 1.6 names no namespace in its Task calls, so the socket does. Hashed: a Unix address holds 107 bytes.
    """
    import hashlib  # fork servers know paths, too, and can do without OpenSSL

    digest = hashlib.sha256("\0".join((engine, containerd, namespace)).encode()).hexdigest()[:16]
    return runtime_dir() / "s" / f"{digest}.sock"
