"""Whether a directory is one user's alone: nobody else may write to it, or put another in its place.

Root may do that anywhere, and counts as nobody else.
"""

import os
import stat
from collections import deque
from pathlib import Path

#: As many as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def not_alone(directory: Path) -> str:
    """Returns why a directory is not this process's user's alone, in one sentence; empty if it is, or is not there.

    Each directory on the way counts, those that links lead through included: who may write to one may rename what is in
    it, but for a sticky one (/tmp), where only owners may.
    """
    path, missing, links = "/", deque(_parts(os.path.abspath(directory))), 0
    try:
        while missing:
            if said := _lets_rename(path):
                return f"{directory} is not {_user()}'s alone: {said}"
            part = os.path.join(path, missing.popleft())
            status = os.lstat(part)
            if status.st_uid not in (0, os.geteuid()):
                return f"{directory} is not {_user()}'s alone: {part} belongs to user {status.st_uid}"
            if not stat.S_ISLNK(status.st_mode):
                path = part
            elif (links := links + 1) > _MOST_LINKS:
                return f"{directory} leads nowhere: it is a link in a circle"
            else:
                target = os.readlink(part)
                missing.extendleft(reversed(_parts(target)))
                path = "/" if target.startswith("/") else path
        return _not_own(directory, path)
    except FileNotFoundError:
        return ""


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _lets_rename(path: str) -> str:
    """Why others could rename what is in a directory."""
    mode = os.stat(path).st_mode
    return "" if mode & stat.S_ISVTX or not mode & _OTHERS else f"others may write to {path} (chmod go-w {path})"


def _not_own(directory: Path, path: str) -> str:
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        return f"{directory} is not {_user()}'s alone: it belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return f"{directory} is not {_user()}'s alone: others may write to it (chmod go-w {directory})"
    return ""


def _user() -> str:
    return "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
