"""Changes to a node's files: planned first, shown as a diff or applied, never half."""

import difflib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Change:
    """A file as it shall be: its whole text, the target of a link, or gone."""

    path: Path
    text: str | None = None
    link: str | None = None
    backup: bool = False
    """What was there before is kept beside it, as ``NAME.before-shimd``."""

    @property
    def needed(self) -> bool:
        if self.link is not None:
            return not (self.path.is_symlink() and os.readlink(self.path) == self.link)
        if self.text is None:
            return self.path.is_symlink() or self.path.exists()
        return self.path.is_symlink() or read(self.path) != self.text

    def diff(self) -> str:
        """As ``diff -u`` shows it."""
        before, after = read(self.path) or "", self.text or ""
        name = str(self.path)
        if self.link is not None:
            return f"+ {name} → {self.link}\n"
        if self.path.is_symlink():
            return f"- {name} → {os.readlink(self.path)}\n"
        names = (name if before else "/dev/null", name if after else "/dev/null")
        return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), *names))

    def apply(self) -> None:
        """Whoever reads the file meanwhile sees all of the old or all of the new.

        :raises OSError: nothing was changed
        """
        if self.link is None and self.text is None:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.backup and (before := read(self.path)) is not None:
            _replace(self.path.with_name(f"{self.path.name}.before-shimd"), before, _mode(self.path))
        if self.link is not None:
            _relink(self.path, self.link)
        else:
            _replace(self.path, self.text or "", _mode(self.path))


def needed(changes: Sequence[Change]) -> list[Change]:
    return [change for change in changes if change.needed]


def read(path: Path) -> str | None:
    """``None`` if there is no such file."""
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return 0o644


def _replace(path: Path, text: str, mode: int) -> None:
    target = path.resolve()  # a link to the real file stays one
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=target.parent)
    try:
        with open(fd, "w") as file:
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _relink(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)
