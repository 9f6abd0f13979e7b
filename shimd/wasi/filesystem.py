"""``wasi:filesystem``: the preopened directories, by the kernel's own ``*at`` calls.

A path never leads out of the directory that it is relative to: ``openat2`` with RESOLVE_BENEATH resolves it, up to its
last part. In a container only the path's own words are held to that: where a link on it leads is the kernel's to say,
since it is in the container's root in any case.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from shimd.component.results import Case, Err
from shimd.engine import Preopen
from shimd.linux import libc
from shimd.wasi.clocks import datetime
from shimd.wasi.io import Error, FileInput, FileOutput, InputStream, OutputStream

#: ``error-code`` of an errno; what is not here is ``io``.
_CODES = {
    errno.EACCES: "access",
    errno.EAGAIN: "would-block",
    errno.EALREADY: "already",
    errno.EBADF: "bad-descriptor",
    errno.EBUSY: "busy",
    errno.EDEADLK: "deadlock",
    errno.EDQUOT: "quota",
    errno.EEXIST: "exist",
    errno.EFBIG: "file-too-large",
    errno.EILSEQ: "illegal-byte-sequence",
    errno.EINTR: "interrupted",
    errno.EINVAL: "invalid",
    errno.EISDIR: "is-directory",
    errno.ELOOP: "loop",
    errno.EMLINK: "too-many-links",
    errno.ENAMETOOLONG: "name-too-long",
    errno.ENODEV: "no-device",
    errno.ENOENT: "no-entry",
    errno.ENOMEM: "insufficient-memory",
    errno.ENOSPC: "insufficient-space",
    errno.ENOTDIR: "not-directory",
    errno.ENOTEMPTY: "not-empty",
    errno.ENOTSUP: "unsupported",
    errno.ENOTTY: "no-tty",
    errno.ENXIO: "no-such-device",
    errno.EOVERFLOW: "overflow",
    errno.EPERM: "not-permitted",
    errno.EPIPE: "pipe",
    errno.EROFS: "read-only",
    errno.ESPIPE: "invalid-seek",
    errno.ETXTBSY: "text-file-busy",
    errno.EXDEV: "not-permitted",  # a path that leads out
}
_TYPES = {
    stat.S_IFBLK: "block-device",
    stat.S_IFCHR: "character-device",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "fifo",
    stat.S_IFLNK: "symbolic-link",
    stat.S_IFREG: "regular-file",
    stat.S_IFSOCK: "socket",
}
_READ, _WRITE, _MUTATE = "read", "write", "mutate-directory"


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn the kernel's errors into the interface's."""
    try:
        yield
    except OSError as error:
        raise Err(_CODES.get(error.errno or 0, "io")) from None


class FilesystemTypes:
    """``wasi:filesystem/types``."""

    def filesystem_error_code(self, error: Error) -> str | None:
        cause = error.cause
        return _CODES.get(cause.errno or 0, "io") if isinstance(cause, OSError) else None


class Preopens:
    """``wasi:filesystem/preopens``."""

    def __init__(self, preopens: Sequence[Preopen], contained: bool = False) -> None:
        self._preopens = preopens
        self._contained = contained

    def get_directories(self) -> list[tuple["Descriptor", str]]:
        return [(self._open(preopen), preopen.guest) for preopen in self._preopens]

    def _open(self, preopen: Preopen) -> "Descriptor":
        fd = os.open(preopen.host, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return Descriptor(fd, {_READ} if preopen.read_only else {_READ, _MUTATE}, self._contained)


class DirectoryEntries:
    """``directory-entry-stream``."""

    def __init__(self, entries: list[dict[str, str]]) -> None:
        self._entries = iter(entries)

    def read_directory_entry(self) -> dict[str, str] | None:
        return next(self._entries, None)


class Descriptor:
    """``descriptor``: an open file or directory. ``flags`` are what it was opened for; ``contained`` says that links
    may lead anywhere in this process's root (:attr:`Invocation.contained`)."""

    def __init__(self, fd: int, flags: set[str], contained: bool = False) -> None:
        self._fd = fd
        self._flags = flags
        self._contained = contained

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> "Descriptor":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _writable(self) -> None:
        if _WRITE not in self._flags:
            raise Err("bad-descriptor")

    def _mutable(self) -> None:
        if _MUTATE not in self._flags:
            raise Err("read-only")

    def _open(self, path: str, flags: int) -> int:
        return open_beneath(self._fd, path, flags, self._contained)

    @contextmanager
    def _beneath(self, path: str, *, follow: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the directory that a path's last part is in, and that part; links on the way stay inside."""
        if path.startswith("/"):
            raise Err("not-permitted")
        head, _, name = path.rstrip("/").rpartition("/")
        if follow or name in ("", ".", ".."):
            head, name = path, "."
        parent = self._open(head or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            yield parent, name
        finally:
            os.close(parent)

    # Files

    def read_via_stream(self, offset: int) -> InputStream:
        with os_errors():
            return FileInput(os.dup(self._fd), offset, owned=True)

    def write_via_stream(self, offset: int) -> OutputStream:
        self._writable()
        with os_errors():
            return FileOutput(os.dup(self._fd), offset, owned=True)

    def append_via_stream(self) -> OutputStream:
        self._writable()
        with os_errors():
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return FileOutput(fd, owned=True)

    def read(self, length: int, offset: int) -> tuple[bytes, bool]:
        with os_errors():
            data = os.pread(self._fd, min(length, 1 << 20), offset)
        return data, not data and length > 0

    def write(self, data: bytes, offset: int) -> int:
        self._writable()
        with os_errors():
            return os.pwrite(self._fd, data, offset)

    def set_size(self, size: int) -> None:
        self._writable()
        with os_errors():
            os.ftruncate(self._fd, size)

    def sync(self) -> None:
        with os_errors():
            os.fsync(self._fd)

    def sync_data(self) -> None:
        with os_errors():
            os.fdatasync(self._fd)

    def advise(self, _offset: int, _length: int, _advice: str) -> None:
        """Do nothing: advice may be ignored."""

    def get_flags(self) -> set[str]:
        return self._flags

    def get_type(self) -> str:
        with os_errors():
            return _type(os.fstat(self._fd).st_mode)

    def stat(self) -> dict[str, Any]:
        with os_errors():
            return _stat(os.fstat(self._fd))

    def set_times(self, access: Case, modification: Case) -> None:
        with os_errors():
            os.utime(self._fd, ns=_times(os.fstat(self._fd), access, modification))

    def is_same_object(self, other: "Descriptor") -> bool:
        return os.path.samestat(os.fstat(self._fd), os.fstat(other._fd))

    def metadata_hash(self) -> dict[str, int]:
        with os_errors():
            return _hash(os.fstat(self._fd))

    # Directories

    def read_directory(self) -> DirectoryEntries:
        with os_errors(), os.scandir(self._fd) as entries:
            return DirectoryEntries([{"type": _entry_type(entry), "name": entry.name} for entry in entries])

    def create_directory_at(self, path: str) -> None:
        self._mutable()
        with os_errors(), self._beneath(path) as (parent, name):
            os.mkdir(name, dir_fd=parent)

    def stat_at(self, flags: frozenset[str], path: str) -> dict[str, Any]:
        with os_errors():
            return _stat(self._stat_at(flags, path))

    def _stat_at(self, flags: frozenset[str], path: str) -> os.stat_result:
        no_follow = 0 if "symlink-follow" in flags else os.O_NOFOLLOW
        fd = self._open(path, os.O_PATH | no_follow)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def metadata_hash_at(self, flags: frozenset[str], path: str) -> dict[str, int]:
        with os_errors():
            return _hash(self._stat_at(flags, path))

    def set_times_at(self, flags: frozenset[str], path: str, access: Case, modification: Case) -> None:
        self._mutable()
        with os_errors():
            if "symlink-follow" in flags:
                fd = self._open(path, os.O_RDONLY)
                try:
                    os.utime(fd, ns=_times(os.fstat(fd), access, modification))
                finally:
                    os.close(fd)
                return
            with self._beneath(path) as (parent, name):
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                os.utime(name, ns=_times(found, access, modification), dir_fd=parent, follow_symlinks=False)

    def open_at(
        self, path_flags: frozenset[str], path: str, open_flags: frozenset[str], flags: frozenset[str]
    ) -> "Descriptor":
        if flags & {_WRITE, _MUTATE} or open_flags & {"create", "truncate"}:
            self._mutable()
        mode = {frozenset(): os.O_RDONLY, frozenset({_WRITE}): os.O_WRONLY}.get(flags & {_READ, _WRITE}, os.O_RDWR)
        if flags & {_READ, _WRITE} == {_READ}:
            mode = os.O_RDONLY
        for name, bit in (("create", os.O_CREAT), ("exclusive", os.O_EXCL), ("truncate", os.O_TRUNC)):
            mode |= bit if name in open_flags else 0
        mode |= os.O_DIRECTORY if "directory" in open_flags else 0
        mode |= 0 if "symlink-follow" in path_flags else os.O_NOFOLLOW
        with os_errors():
            fd = self._open(path, mode | os.O_NONBLOCK)
            os.set_blocking(fd, True)
        granted = set(flags & {_READ, _WRITE}) | (self._flags & {_MUTATE} if flags & {_MUTATE} else set())
        return Descriptor(fd, granted, self._contained)

    def readlink_at(self, path: str) -> str:
        with os_errors(), self._beneath(path) as (parent, name):
            target = os.readlink(name, dir_fd=parent)
        if target.startswith("/"):
            raise Err("not-permitted")
        return target

    def remove_directory_at(self, path: str) -> None:
        self._mutable()
        with os_errors(), self._beneath(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def unlink_file_at(self, path: str) -> None:
        self._mutable()
        with os_errors(), self._beneath(path) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def symlink_at(self, target: str, path: str) -> None:
        self._mutable()
        if target.startswith("/"):
            raise Err("not-permitted")
        with os_errors(), self._beneath(path) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def link_at(self, _flags: frozenset[str], path: str, other: "Descriptor", new_path: str) -> None:
        self._mutable()
        other._mutable()
        with os_errors(), self._beneath(path) as (old, name), other._beneath(new_path) as (new, new_name):
            os.link(name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def rename_at(self, path: str, other: "Descriptor", new_path: str) -> None:
        self._mutable()
        other._mutable()
        with os_errors(), self._beneath(path) as (old, name), other._beneath(new_path) as (new, new_name):
            os.rename(name, new_name, src_dir_fd=old, dst_dir_fd=new)


def open_beneath(directory: int | str, path: str, flags: int, contained: bool = False) -> int:
    """Open what does not lead out of a directory, which is open itself or named.

    :param contained: links may lead out of it, only the path's own words may not
    """
    if isinstance(directory, str):
        with Descriptor(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), set()) as opened:
            return open_beneath(opened._fd, path, flags, contained)
    mode = 0o666 if flags & os.O_CREAT else 0
    try:
        return libc.open_beneath(directory, path, flags, mode)
    except OSError as error:
        if error.errno != errno.EXDEV or not contained or leads_out(path):
            raise
    return libc.open_by_links(directory, path, flags, mode)


def leads_out(path: str) -> bool:
    """Returns whether a path leaves the directory that it is relative to by its own words, whatever links are on it."""
    depth = 0
    for part in path.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            return True
    return path.startswith("/")


def _type(mode: int) -> str:
    return _TYPES.get(stat.S_IFMT(mode), "unknown")


def _entry_type(entry: "os.DirEntry[str]") -> str:
    with suppress(OSError):
        return _type(entry.stat(follow_symlinks=False).st_mode)
    return "unknown"


def _stat(found: os.stat_result) -> dict[str, Any]:
    return {
        "type": _type(found.st_mode),
        "link-count": found.st_nlink,
        "size": found.st_size,
        "data-access-timestamp": datetime(found.st_atime_ns),
        "data-modification-timestamp": datetime(found.st_mtime_ns),
        "status-change-timestamp": datetime(found.st_ctime_ns),
    }


def _times(found: os.stat_result, access: Case, modification: Case) -> tuple[int, int]:
    """Convert two ``new-timestamp`` (no change, now, or an instant) to nanoseconds since the epoch."""
    return _time(access, found.st_atime_ns), _time(modification, found.st_mtime_ns)


def _time(wanted: Case, present: int) -> int:
    match wanted.tag:
        case "no-change":
            return present
        case "now":
            return time.time_ns()
        case _:
            return int(wanted.payload["seconds"]) * 1_000_000_000 + int(wanted.payload["nanoseconds"])


def _hash(found: os.stat_result) -> dict[str, int]:
    mask = (1 << 64) - 1
    return {
        "lower": hash((found.st_dev, found.st_ino)) & mask,
        "upper": hash((found.st_mtime_ns, found.st_size)) & mask,
    }
