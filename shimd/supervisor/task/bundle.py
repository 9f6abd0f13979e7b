"""The bundle: the directory that containerd made for one container, and the files that we put there.

``address`` is written by the launcher; ``shimd.task`` by us, for as long as the task exists: all that the launcher's
``delete`` needs to clean up without a daemon (``shimd/launcher/PROTOCOL.md``). ``shimd.poststop.N`` and
``shimd.poststart.N`` say that somebody runs, or has run, that hook.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_RECORD = "shimd.task"


def begin_record(bundle: Path, cgroup: Sequence[str]) -> None:
    """Record where a cgroup is about to be made: all that would be left if we died before :func:`write_record`."""
    _write(f"{bundle}/{_RECORD}", [f"new {directory}" for directory in cgroup])


def write_record(bundle: Path, pid: int, start: int, cgroup: Sequence[str], native: Path | None = None) -> None:
    """Record the init process, its cgroup and what a native runtime keeps of it, atomically."""
    lines = [f"{pid} {start}", *(f"cgroup {directory}" for directory in cgroup)]
    if native is not None:
        lines.append(f"native {native}")
    temporary = f"{bundle}/.{_RECORD}"
    try:
        _write(temporary, lines)
        os.replace(temporary, f"{bundle}/{_RECORD}")
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _write(path: str, lines: Sequence[str]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, os.fsencode("\n".join(lines) + "\n"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def claim_hook(bundle: Path, kind: str, number: int) -> bool:
    """Returns whether a hook is ours to run, and neither an earlier daemon's nor the launcher's: the first who asks has
    it."""
    try:
        os.close(os.open(_claim(bundle, kind, number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except (FileExistsError, FileNotFoundError):  # or the launcher is through, and the bundle is gone
        return False
    except OSError:  # a disk that is full, say: rather twice than not at all
        return True
    return True


def forget_claims(bundle: Path, kind: str, count: int) -> None:
    """Remove the claims of another container that had this bundle before."""
    for number in range(count):
        with suppress(OSError):
            os.unlink(_claim(bundle, kind, number))


def _claim(bundle: Path, kind: str, number: int) -> str:
    return f"{bundle}/shimd.{kind}.{number}"


def has_record(bundle: Path) -> bool:
    """Returns whether there is one: if not, nothing is left of the task, or of the bundle.

    :raises OSError: that cannot be told
    """
    try:
        os.lstat(f"{bundle}/{_RECORD}")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_record(bundle: Path) -> None:
    """Nothing is left for the launcher to clean up."""
    with suppress(OSError):  # containerd may have removed the whole bundle
        os.unlink(f"{bundle}/{_RECORD}")
