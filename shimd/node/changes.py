"""Changes to a node's files: planned first, shown as a diff or applied, never half."""

import difflib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shimd.errors import FailedPrecondition


@dataclass(frozen=True)
class Change:
    """A file as it shall be: its whole text, the target of a link, or neither: it is removed."""

    path: Path
    text: str | None = None
    link: str | None = None
    backup: bool = False
    """True if the old file is kept next to it, as ``NAME.before-shimd``."""
    follow: bool = False
    """True if a link is followed and its target changed; else the link itself is replaced."""
    prune: bool = False
    """True if its directory is removed with it, once nothing else is in there."""

    @property
    def needed(self) -> bool:
        if self.link is not None:
            return not (self.path.is_symlink() and os.readlink(self.path) == self.link)
        if self.path.is_symlink() and not self.follow:
            return True
        if self.text is None:
            return self.path.exists()
        return read(self.path) != self.text

    @property
    def removes(self) -> bool:
        return self.text is None and self.link is None

    def diff(self) -> str:
        """Returns the change as ``diff -u`` shows it."""
        name = str(self.path)
        if self.link is not None:
            return f"+ {name} → {self.link}\n"
        if self.path.is_symlink() and not self.follow:
            return f"- {name} → {os.readlink(self.path)}\n"
        before, after = read(self.path) or "", self.text or ""
        names = (name if before else "/dev/null", name if after else "/dev/null")
        return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), *names))

    def apply(self) -> None:
        """Write it so that whoever reads it meanwhile sees all of the old or all of the new.

        :raises OSError: nothing was changed
        """
        if self.removes:
            self._target.unlink(missing_ok=True)
            if self.prune:
                with suppress(OSError):  # not empty, or not there
                    self.path.parent.rmdir()
            return
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if self.backup and (before := _State.of(self.path.resolve())).data is not None:
            before.put_at(copy_of(self.path))
        if self.link is not None:
            _relink(self.path, self.link)
        else:
            _State((self.text or "").encode(), *_ownership(self._target)).put_at(self._target)

    @property
    def _target(self) -> Path:
        return self.path.resolve() if self.follow else self.path

    @property
    def touches(self) -> list[Path]:
        """The files that the change makes, changes or removes."""
        return [self._target, *([copy_of(self.path)] if self.backup else [])]


@contextmanager
def applied(changes: Sequence[Change]) -> Iterator[None]:
    """Make all changes; if one fails, or the block does, all is put back as it was.

    :raises FailedPrecondition: a file cannot be written
    """
    with ExitStack() as undo:
        for change in changes:
            try:
                for path in change.touches:
                    undo.callback(_put_back, path, _State.of(path), _missing(path))
                change.apply()
            except OSError as error:
                raise FailedPrecondition(f"{change.path}: {error.strerror}; all is as it was") from None
        yield
        undo.pop_all()


def needed(changes: Sequence[Change]) -> list[Change]:
    return [change for change in changes if change.needed]


def read(path: Path) -> str | None:
    """Read a text with its line ends as they are; ``None`` if there is no such file.

    :raises FailedPrecondition: it cannot be read
    """
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise FailedPrecondition(f"{path} is not text: {error}") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read: {error.strerror}") from None


def copy_of(path: Path) -> Path:
    """Returns the path where a file is kept before its first change."""
    return path.with_name(f"{path.name}.before-shimd")


@dataclass(frozen=True)
class _State:
    """A file as it was at some time; without data and link there was none."""

    data: bytes | None = None
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    link: str | None = None

    @classmethod
    def of(cls, path: Path) -> "_State":
        if path.is_symlink():
            return cls(link=os.readlink(path))
        return cls(path.read_bytes(), *_ownership(path)) if path.is_file() else cls()

    def put_at(self, path: Path) -> None:
        if self.link is not None:
            _relink(path, self.link)
        elif self.data is not None:
            _replace(path, self.data, self.mode, self.owner)
        else:
            path.unlink(missing_ok=True)


def _ownership(path: Path) -> tuple[int, tuple[int, int] | None]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0o644, None
    return (0o644, None) if path.is_symlink() else (status.st_mode & 0o7777, (status.st_uid, status.st_gid))


def _missing(path: Path) -> list[Path]:
    """Returns the directories that are to be made for a file, the innermost first."""
    return [directory for directory in path.parents if not directory.exists()]


def _put_back(path: Path, state: _State, made: Sequence[Path]) -> None:
    if state != _State.of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        state.put_at(path)
    for directory in made:
        with suppress(OSError):
            directory.rmdir()


def _replace(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _relink(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)
