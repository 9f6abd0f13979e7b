"""What a supervisor recorded is what the next one reads; what is none costs the one container that it is of."""

import errno
import json
import os
import random
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shimd.errors import ResourceExhausted
from shimd.linux.libc import mount, umount
from shimd.protocol.codec import encode
from shimd.protocol.journal import (
    VERSION,
    DeletedExec,
    EndpointRecord,
    ProcessRecord,
    Published,
    TaskRecord,
    name_of,
)
from shimd.supervisor.recovery import journal as module
from shimd.supervisor.recovery.journal import Journal

ENDPOINT = EndpointRecord("wasmtime", "default", "unix:///containerd.sock.ttrpc", "/containerd.sock")
TASK = TaskRecord(
    *("wasmtime", "default", "unix:///containerd.sock.ttrpc", "/containerd.sock", "app", "/bundle"),
    rootfs=[{"type": "overlay", "options": ["lowerdir=/a"]}],
    processes=[
        ProcessRecord("", "running", key="k", pid=7, start=9, handled=[15], logger=[4, 5]),
        ProcessRecord("sh", "added", spec={"args": ["/bin/sh"]}, handled=[], logger=[]),
    ],
    deleted=[DeletedExec("ls", 8, 3, 1234)],
    published=[Published(17, "TaskStart", "AAAA", 1234)],
)


@pytest.fixture(autouse=True)
def small_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files whose every byte a test may read."""
    monkeypatch.setattr(module, "_PLACE", 1 << 18)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def read(directory: Path) -> list[object]:
    return list(Journal(directory).read())


def test_what_was_recorded_last_is_read(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(ENDPOINT)
    for number in range(5):
        journal.write(replace(TASK, killed=number))
        assert read(directory) == [ENDPOINT, replace(TASK, killed=number)]


def test_it_goes_on_where_another_has_ended(directory: Path) -> None:
    for number in range(5):
        journal = Journal(directory)
        list(journal.read())
        journal.write(replace(TASK, killed=number))
        assert read(directory) == [replace(TASK, killed=number)]


def test_another_of_the_same_name_comes_after_it(directory: Path) -> None:
    """Also where nobody has read the file before."""
    for number in range(4):
        Journal(directory).write(replace(TASK, killed=number))
    journal = Journal(directory)
    journal.remove(TASK)
    journal.write(replace(TASK, killed=9))
    assert read(directory) == [replace(TASK, killed=9)]


def test_a_shorter_record_replaces_a_longer_one(directory: Path) -> None:
    journal = Journal(directory)
    for task in (replace(TASK, bundle="/b" * 50_000), TASK, replace(TASK, bundle="/c" * 9), TASK):
        journal.write(task)
        assert read(directory) == [task]


def test_removed(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(TASK)
    journal.remove(TASK)
    journal.remove(TASK)
    assert read(directory) == []
    assert list(directory.iterdir()) == []


def path_of(directory: Path, record: TaskRecord) -> Path:
    return directory / name_of(record)


def test_a_write_that_was_cut_short_costs_the_last_change(directory: Path) -> None:
    journal = Journal(directory)
    written = [replace(TASK, killed=number, bundle="/bundle" * 2000) for number in (1, 2)]
    for task in written:
        journal.write(task)
    file = path_of(directory, TASK)
    whole = file.read_bytes()
    for cut in (0, 5, 23, 24, 100, 4095, 4096, 10_000):
        file.write_bytes(whole)
        with file.open("r+b") as place:  # of the second write, in the first place
            place.seek(cut)
            place.write(bytes(20_000))
        assert read(directory) == [written[0]], cut


def break_all(file: Path) -> None:
    file.write_bytes(b"nonsense" * 10)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_a_later_version(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for at in (0, module._PLACE):
        if data[at : at + 6] == module._MAGIC:
            data[at + 6 : at + 8] = (VERSION + 1).to_bytes(2, "little")
    file.write_bytes(data)


def a_directory(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def of_another(file: Path) -> None:
    os.rename(file, file.with_name("task-0"))


@pytest.mark.parametrize("broken", [break_all, empty, of_a_later_version, a_directory, of_another])
def test_one_that_is_no_record_costs_its_container(
    directory: Path, broken: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(directory)
    other = replace(TASK, id="other")
    for task in (TASK, other, ENDPOINT):
        journal.write(task)
    broken(path_of(directory, TASK))
    assert read(directory) == [ENDPOINT, other]
    assert "is no record, and its container is given up" in caplog.text
    assert len(list(directory.iterdir())) == 2, "it is gone"


def test_what_cannot_be_removed_costs_nothing(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(TASK)
    (directory / "a").mkdir()
    assert read(directory) == [TASK]


def test_one_that_cannot_be_read_is_left_there(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's error is not the end of what it tells of."""
    journal = Journal(directory)
    for task in (TASK, ENDPOINT):
        journal.write(task)
    whole, fails = os.pread, [errno.EIO]

    def pread(fd: int, size: int, offset: int) -> bytes:
        if fails:
            raise OSError(fails.pop(), "input/output error")
        return whole(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert list(journal.read()) == [TASK]
    assert not journal.is_whole
    assert list(journal.read()) == [ENDPOINT, TASK]
    assert journal.is_whole


@contextmanager
def no_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 20, before[1]))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)


def test_there_is_always_a_descriptor_for_it(directory: Path) -> None:
    """What happens is recorded, and what was is read, whatever others have used up."""
    journal = Journal(directory)
    journal.write(TASK)
    with no_descriptors():
        for number in range(3):
            journal.write(replace(TASK, killed=number))
            journal.write(replace(TASK, id=f"other {number}"))
        assert len(list(journal.read())) == 4
    assert replace(TASK, killed=2) in read(directory)


def test_what_there_is_no_descriptor_for_is_read_later(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory)
    journal.write(TASK)
    monkeypatch.setattr(module, "_spare", None)
    with no_descriptors():
        other = Journal(directory)
        with pytest.raises(OSError, match="Too many open files"):
            list(other.read())
    assert list(other.read()) == [TASK]


def test_one_can_go_back_to_an_earlier_release(directory: Path) -> None:
    """Which ignores what it does not know."""

    @dataclass
    class Later(ProcessRecord):
        temperature: int = 0

    journal = Journal(directory)
    for record in (TASK, ENDPOINT):
        added = type(type(record).__name__, (), {})()
        vars(added).update({**vars(record), "colour": "red"})
        if record is TASK:
            added.processes = [Later(**vars(one), temperature=3) for one in TASK.processes]
        data = encode(added)
        journal.write(record)
        file = directory / name_of(record)
        file.write_bytes(module._HEAD.pack(module._MAGIC, VERSION, 9, len(data), zlib.crc32(data)) + data)
    assert read(directory) == [ENDPOINT, TASK]


def test_an_earlier_version_is_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(directory).write(TASK)
    monkeypatch.setattr(module, "VERSION", VERSION + 1)
    assert read(directory) == [TASK]


def test_whatever_a_disk_makes_of_it(directory: Path) -> None:
    """Bits that turn: each file is read as it was, or not at all."""
    chance = random.Random(13)
    for _ in range(300):
        Journal(directory).write(TASK)
        file = path_of(directory, TASK)
        data = bytearray(file.read_bytes())
        for _turned in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        assert read(directory) in ([TASK], [])
        file.unlink(missing_ok=True)


def test_one_that_is_too_large(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PLACE", 1000)
    with pytest.raises(ResourceExhausted, match="bytes is too large"):
        Journal(directory).write(replace(TASK, bundle="/b" * 1000))
    assert read(directory) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_an_error_of_who_begins(tmp_path: Path) -> None:
    """What there is a record of can be recorded to its end."""
    mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=64k")
    try:
        directory = tmp_path / "journal"
        journal = Journal(directory)
        journal.write(TASK)
        with (tmp_path / "filling").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        for number in range(4):
            task = replace(TASK, killed=number, bundle="/b" * 300 * number)
            journal.write(task)
            assert read(directory) == [task]
        with pytest.raises(OSError, match="No space left"):
            journal.write(ENDPOINT)
        assert read(directory) == [task]
        assert [path.name for path in directory.iterdir()] == [name_of(TASK)]
    finally:
        umount(str(tmp_path))


@pytest.mark.parametrize("change", [{"killed": "7"}, {"killed": True}, {"rootfs": 7}, {"deleted": [{"pid": 1}]}])
def test_a_record_with_fields_of_another_type_costs_its_own_container(
    directory: Path, change: dict[str, object]
) -> None:
    """Whatever another version means by it."""
    Journal(directory).write(ENDPOINT)
    data = json.dumps({**json.loads(encode(TASK)), **change}).encode()
    head = struct.pack("<6sHQII", b"shimd\0", VERSION, 1, len(data), zlib.crc32(data))
    (directory / name_of(TASK)).write_bytes(head + data)
    assert read(directory) == [ENDPOINT]
