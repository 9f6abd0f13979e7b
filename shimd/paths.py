"""Where shimd keeps its files, so that several installations live side by side.

Three directories, each overridable from the environment (the launcher hands containerd's environment on):
``SHIMD_RUNTIME_DIR`` (sockets, pid file; gone at reboot), ``SHIMD_STATE_DIR`` (the task journal) and
``SHIMD_CACHE_DIR`` (compiled modules). Only this module and the launchers know these names.
"""

import hashlib
import os
from pathlib import Path


def runtime_dir() -> Path:
    return Path(os.environ.get("SHIMD_RUNTIME_DIR") or "/run/shimd")


def state_dir() -> Path:
    return Path(os.environ.get("SHIMD_STATE_DIR") or "/var/lib/shimd")


def cache_dir() -> Path:
    return Path(os.environ.get("SHIMD_CACHE_DIR") or "/var/cache/shimd")


def pid_file() -> Path:
    return runtime_dir() / "shimd.pid"


def launch_socket() -> Path:
    """Where launchers ask for a task address (see ``shimd/launcher/PROTOCOL.md``)."""
    return runtime_dir() / "launch.sock"


def status_socket() -> Path:
    """gRPC Status service for operators, mode 0600."""
    return runtime_dir() / "status.sock"


def worker_socket(engine: str) -> Path:
    """SEQPACKET socket of the fork server of one engine, which may have been started by an older shimd: the number is
    that of what they speak (``shimd/protocol/messages.py``)."""
    return runtime_dir() / f"worker-{engine}.2.sock"


def native_root(namespace: str) -> Path:
    """What ``runc`` keeps about native containers of one containerd namespace."""
    return runtime_dir() / "native" / namespace


def task_socket(engine: str, containerd: str, namespace: str) -> Path:
    """Task service socket of one (engine, containerd event address, containerd namespace).

    containerd 1.6 names no namespace in its Task calls, so the socket does. Hashed: a Unix address holds 107 bytes.
    """
    digest = hashlib.sha256("\0".join((engine, containerd, namespace)).encode()).hexdigest()[:16]
    return runtime_dir() / "s" / f"{digest}.sock"
