"""A root file system to be: where in it something is mounted, or made.

Every path is looked up as the container would (``open_in_root``), so that no symlink in an image leads out of the root,
and none leads a mount into or over what is guarded (/proc, /sys), where what is masked is known by its name. What was
mounted is known by a path without links (its *place*): whoever writes to a volume meanwhile cannot have another taken
for it.
"""

import errno
import os
from collections import deque
from contextlib import suppress

from shimd.errors import InvalidArgument
from shimd.linux import libc
from shimd.oci.mount_options import normal, within

#: As many as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40
#: How often somebody else may make what we are about to make.
_ATTEMPTS = 128


class Tree:
    """A root file system to be, held by a descriptor: nothing in it is ever named by a host path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.guarded = {"/proc", "/sys"}
        """Directories that no link leads a mount into, or over."""

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """:raises OSError: as of openat2(2)"""
        return libc.open_in_root(self.fd, path, flags)

    def make(self, path: str, directory: bool) -> int:
        """Open ``path``, made with its parents if it is missing: a directory, or an empty file to mount upon.

        Where a link leads to nothing, what it names is made, inside the root.

        :raises OSError: ELOOP: links lead in a circle; else as of openat2(2), mkdir(2)
        """
        with suppress(FileNotFoundError):
            return self.open(path)
        missing, found = deque(path.split("/")), list[str]()
        links = attempts = 0
        while missing:
            links += self._walk(missing, found)
            if links > _MOST_LINKS or attempts > _ATTEMPTS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if missing:
                attempts += not self._make(found, missing[0], directory or any(list(missing)[1:]))
        return self.open("/".join(found))

    def _walk(self, missing: deque[str], found: list[str]) -> int:
        """Move what is there from one to the other, in a link's stead what it names; returns how many links it was."""
        links = 0
        while missing and links <= _MOST_LINKS:
            part, target = missing[0], None
            if part not in ("", ".", ".."):
                try:
                    target = self._link(found, part)
                except FileNotFoundError:
                    break
            missing.popleft()
            if target is not None:
                links += 1
                missing.extendleft(reversed(target.split("/")))
                del found[0 if target.startswith("/") else len(found) :]
            elif part == "..":
                del found[-1:]
            elif part not in ("", "."):
                found.append(part)
        return links

    def _link(self, directory: list[str], name: str) -> str | None:
        """Returns the target of a symbolic link; ``None``: it is none."""
        above = self.open("/".join(directory), os.O_PATH | os.O_DIRECTORY)
        try:
            return os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None
        finally:
            os.close(above)

    def _make(self, directory: list[str], name: str, is_directory: bool) -> bool:
        """Returns whether it was not there."""
        above = self.open("/".join(directory), os.O_PATH | os.O_DIRECTORY)
        try:
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=above))
        except FileExistsError:
            return False
        finally:
            os.close(above)
        return True

    def place(self, fd: int) -> str:
        """Returns the path of what is open, without links.

        :raises InvalidArgument: it is the root, or not in it any more
        """
        root, path = (os.readlink(f"/proc/self/fd/{one}") for one in (self.fd, fd))
        if path == root or not within(path, root):
            raise InvalidArgument("it is the root itself, or outside of it")
        return "/" + path[len(root) :].lstrip("/")

    def reopen(self, place: str) -> int:
        """Open what is mounted at a place.

        :raises OSError: ELOOP: somebody has put a link there
        """
        return libc.open_without_links(self.fd, place, os.O_PATH)

    def check(self, destination: str, place: str) -> None:
        """:raises InvalidArgument: links lead from a destination into, over or away from what is guarded"""
        if astray := self._touched(normal(destination)) ^ self._touched(place):
            raise InvalidArgument(
                f"a link in the image leads it to {place}: none may lead a mount into, over or away from {min(astray)}"
            )

    def _touched(self, path: str) -> set[str]:
        return {kept for kept in self.guarded if within(path, kept) or within(kept, path)}


class MountPoint:
    """A mount point, made if it is missing.

    :raises InvalidArgument: nothing is to be mounted where links lead to from there
    :raises OSError: it cannot be opened, or made
    """

    def __init__(self, tree: Tree, destination: str, directory: bool) -> None:
        self._fd = tree.make(destination, directory)
        self.path = f"/proc/self/fd/{self._fd}"
        """The mount point's path for mount(2), by its descriptor."""
        try:
            self.place = tree.place(self._fd)
            tree.check(destination, self.place)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> "MountPoint":
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)
