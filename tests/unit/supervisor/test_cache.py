"""The module cache: compiled once, published whole, bounded."""

import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from shimd.errors import DataLoss, InvalidArgument, ResourceExhausted, ShimdError, Unavailable
from shimd.linux import libc
from shimd.supervisor.modules import integrity
from shimd.supervisor.modules.cache import Cache, Make
from shimd.supervisor.modules.source import Source, sha256, source
from shimd.supervisor.modules.views import Views
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 1 << 20)


@pytest.fixture
def wasm(tmp_path: Path) -> Iterator[int]:
    yield from _file(tmp_path / "module.wasm", b"\0asm")


def _file(path: Path, data: bytes) -> Iterator[int]:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def counted(calls: list[Path], size: int = 10) -> Make:
    async def compile(_wasm: Source, artifact: Path) -> None:
        calls.append(artifact)
        await anyio.sleep(0.01)
        artifact.write_bytes(b"x" * size)

    return compile


async def test_fifty_at_once_compile_once(cache: Cache, wasm: int) -> None:
    calls: list[Path] = []
    found: set[Path] = set()

    async def ask() -> None:
        found.add(await cache.artifact("engine", "1", await source("app.wasm", wasm), counted(calls)))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ask)
    assert len(calls) == 1
    (artifact,) = found
    assert artifact.read_bytes() == b"x" * 10
    assert artifact == cache.directory / "engine/1" / await sha256(wasm) / "artifact"


async def test_engine_and_version_are_part_of_the_key(cache: Cache, wasm: int) -> None:
    calls: list[Path] = []
    for engine, version in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")):
        await cache.artifact(engine, version, await source("app.wasm", wasm), counted(calls))
    assert len(calls) == 3


async def test_an_error_is_everybodys_and_the_next_one_tries_again(cache: Cache, wasm: int) -> None:
    errors: list[ShimdError] = []

    async def fail(_wasm: Source, artifact: Path) -> None:
        artifact.write_bytes(b"half")
        await anyio.sleep(0.01)
        raise InvalidArgument("not valid")

    async def ask() -> None:
        try:
            await cache.artifact("engine", "1", await source("app.wasm", wasm), fail)
        except ShimdError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert [str(error) for error in errors] == ["not valid"] * 5
    assert list(cache.directory.rglob("*artifact*")) == []
    calls: list[Path] = []
    await cache.artifact("engine", "1", await source("app.wasm", wasm), counted(calls))
    assert len(calls) == 1


async def test_who_waits_for_a_cancelled_compilation_takes_it_over(cache: Cache, wasm: int) -> None:
    """That one client went away is no error of the others'."""
    started, calls, found = anyio.Event(), list[Path](), list[Path]()

    async def slow(_wasm: Source, artifact: Path) -> None:
        artifact.write_bytes(b"half")
        started.set()
        await anyio.sleep_forever()

    async def first(scope: anyio.CancelScope) -> None:
        with scope:
            await cache.artifact("engine", "1", await source("app.wasm", wasm), slow)

    async def other() -> None:
        found.append(await cache.artifact("engine", "1", await source("app.wasm", wasm), counted(calls)))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()
            tasks.start_soon(first, scope)
            await started.wait()
            for _ in range(5):
                tasks.start_soon(other)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert len(calls) == 1
    assert [path.read_bytes() for path in found] == [b"x" * 10] * 5
    assert len(list(cache.directory.glob("*/*/*"))) == 1


async def test_a_cancelled_compilation_leaves_nothing(cache: Cache, wasm: int) -> None:
    async def slow(_wasm: Source, artifact: Path) -> None:
        artifact.write_bytes(b"half")
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01) as scope:
        await cache.artifact("engine", "1", await source("app.wasm", wasm), slow)
    assert scope.cancelled_caught
    assert list(cache.directory.glob("*/*/*")) == []


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("leave", [_link, os.mkfifo], ids=["link", "fifo"])
@pytest.mark.parametrize("name", ["artifact", "artifact/below", "beside"])
async def test_only_files_and_directories_are_taken_from_a_compile_worker(
    cache: Cache, wasm: int, name: str, leave: Callable[[Path], None]
) -> None:
    """A link leads elsewhere; who opens a FIFO waits for ever."""

    async def compile(_wasm: Source, artifact: Path) -> None:
        path = artifact.parent / name
        path.parent.mkdir(exist_ok=True)
        leave(path)

    with anyio.fail_after(20), pytest.raises(ShimdError, match=f"left {os.path.basename(name)}, which is neither"):
        await cache.artifact("engine", "1", await source("app.wasm", wasm), compile)
    assert list(cache.directory.glob("*/*/*")) == []


async def test_an_entry_that_cannot_be_published_is_an_error_once(cache: Cache, wasm: int) -> None:
    """And not compiled again and again."""
    if os.geteuid() != 0:
        pytest.skip("mounts, so that a rename fails")
    calls: list[Path] = []

    async def compile(_wasm: Source, artifact: Path) -> None:
        calls.append(artifact)
        libc.mount("tmpfs", str(artifact.parent), "tmpfs", 0)
        artifact.write_bytes(b"x")

    try:
        with anyio.fail_after(20), pytest.raises(ShimdError, match="busy"):
            await cache.artifact("engine", "1", await source("app.wasm", wasm), compile)
        assert len(calls) == 1
    finally:
        for artifact in calls:
            libc.umount(str(artifact.parent))


async def test_another_daemon_that_was_first_is_as_good(cache: Cache, wasm: int) -> None:
    async def compile(_wasm: Source, artifact: Path) -> None:
        await Cache(cache.directory).artifact("engine", "1", await source("app.wasm", wasm), counted([], size=7))
        artifact.write_bytes(b"late")

    assert (await cache.artifact("engine", "1", await source("app.wasm", wasm), compile)).read_bytes() == b"x" * 7
    assert len(list(cache.directory.glob("*/*/*"))) == 1


async def test_what_a_worker_wrote_is_roots_and_nobody_elses_to_write(cache: Cache, wasm: int) -> None:
    async def open_to_all(_wasm: Source, artifact: Path) -> None:
        artifact.write_bytes(b"x")
        artifact.chmod(0o4777)
        if os.geteuid() == 0:
            os.chown(artifact, 65534, 65534)

    artifact = await cache.artifact("engine", "1", await source("app.wasm", wasm), open_to_all)
    status = artifact.stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (os.geteuid(), 0o644)


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 150)  # two artefacts of 10 bytes, with digests of 64
    paths = []
    for number in range(3):
        fd = os.memfd_create("wasm")
        os.pwrite(fd, bytes([number]), 0)
        paths.append(await cache.artifact("engine", "1", await source("app.wasm", fd), counted([])))
        os.utime(paths[-1].parent, (number, number))
        os.close(fd)
    assert [path.exists() for path in paths] == [False, True, True]


async def test_what_an_app_has_locked_stays(tmp_path: Path) -> None:
    """Files that it opens as it needs them; the lock goes with the process."""
    cache = Cache(tmp_path / "cache", 15)
    paths = []
    for number in range(3):
        fd = os.memfd_create("wasm")
        os.pwrite(fd, bytes([number]), 0)
        paths.append(await cache.artifact("files", "1", await source("app.wasm", fd), counted([]), is_code=False))
        os.close(fd)
        if number == 0:
            locked = os.open(paths[0], os.O_RDONLY)
            fcntl.flock(locked, fcntl.LOCK_SH)
    assert [path.exists() for path in paths] == [True, False, True]
    os.close(locked)
    cache.prune()
    assert [path.exists() for path in paths] == [False, False, True]


async def test_what_goes_away_while_it_is_looked_at_is_no_error(cache: Cache, wasm: int) -> None:
    """Two compilations that end at once look at each other's directories."""
    directory = cache.directory / "engine/1"
    directory.mkdir(parents=True)
    for name in ("gone", "tmp.gone"):
        (directory / name).symlink_to("nowhere")  # listed, and not there
    artifact = await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))
    assert cache.used() == artifact.stat().st_size + artifact.with_name("digest").stat().st_size


async def test_what_is_too_big_for_the_cache_may_still_run(tmp_path: Path, wasm: int) -> None:
    cache = Cache(tmp_path / "cache", 5)
    assert (await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))).exists()


async def test_what_a_crash_left_is_no_entry_and_goes_in_time(cache: Cache, wasm: int) -> None:
    old, new = (cache.directory / "engine/1" / name for name in ("tmp.old", "tmp.new"))
    for directory in (old, new):
        directory.mkdir(parents=True)
        (directory / "artifact").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))
    assert not old.exists()
    assert new.exists()  # another daemon's, perhaps


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small file system")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


async def test_a_full_disk(small: Path, wasm: int) -> None:
    with pytest.raises(ResourceExhausted, match="no space left"):
        await Cache(small, 1 << 30).artifact("engine", "1", await source("app.wasm", wasm), counted([], size=1 << 20))
    assert list(small.glob("*/*/*")) == []


def remount(directory: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", directory], check=True)


async def test_a_read_only_disk_has_what_is_there(small: Path, wasm: int) -> None:
    cache, calls = Cache(small, 1 << 30), list[Path]()
    there = await source("app.wasm", wasm)
    artifact = await cache.artifact("engine", "1", there, counted(calls))
    remount(small, "ro")
    assert await cache.artifact("engine", "1", there, counted(calls)) == artifact
    assert len(calls) == 1
    with pytest.raises(ShimdError, match=f"^{small}/engine/2: read-only file system"):
        await cache.artifact("engine", "2", there, counted(calls))
    remount(small, "rw")
    await cache.artifact("engine", "2", there, counted(calls))


async def test_what_cannot_be_made_room_for_is_there_nevertheless(
    cache: Cache, wasm: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(cache, "prune", fails)
    assert (await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))).is_file()
    assert "the module cache may be too large: [Errno 24]" in caplog.text


async def test_discarded_entries_are_made_again(cache: Cache, wasm: int) -> None:
    calls: list[Path] = []
    artifact = await cache.artifact("engine", "1", await source("app.wasm", wasm), counted(calls))
    await cache.discard(artifact)
    assert not artifact.exists()
    await cache.artifact("engine", "1", await source("app.wasm", wasm), counted(calls))
    assert len(calls) == 2


@pytest.mark.parametrize("spoil", [lambda entry: None, Path.touch, Path.mkdir], ids=["gone", "file", "empty"])
async def test_whatever_became_of_an_entry_can_be_discarded(
    cache: Cache, wasm: int, spoil: Callable[[Path], None]
) -> None:
    artifact = await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))
    shutil.rmtree(artifact.parent)
    spoil(artifact.parent)
    await cache.discard(artifact)
    assert (await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))).read_bytes() == b"x" * 10


async def test_the_digest_of_a_big_file_whatever_its_offset(tmp_path: Path) -> None:
    for fd in _file(tmp_path / "big", b"a" * (3 << 20)):
        os.lseek(fd, 5, os.SEEK_SET)
        said = await anyio.run_process(["sha256sum", tmp_path / "big"])
        assert await sha256(fd) == said.stdout.split()[0].decode()


async def test_what_is_given_up_is_made_anew_for_who_asks_meanwhile(tmp_path: Path, wasm: int) -> None:
    """The last who waited has left, and what makes it has not heard of that yet."""
    starts: list[Path] = []
    key = await source("app.wasm", wasm)

    async def make(_wasm: Source, artifact: Path) -> None:
        starts.append(artifact)
        if len(starts) == 1:
            await anyio.sleep_forever()
        artifact.write_bytes(b"made")

    async with anyio.create_task_group() as tasks:
        cache = Cache(tmp_path / "cache", tasks=tasks)
        async with anyio.create_task_group() as first:
            first.start_soon(cache.artifact, "engine", "1", key, make, "", lambda: True)
            await anyio.wait_all_tasks_blocked()
            (job,) = cache._jobs.values()
            job.scope.cancel()
            with anyio.fail_after(10):
                assert (await cache.artifact("engine", "1", key, make)).read_bytes() == b"made"
    assert len(starts) == 2
    assert not list((tmp_path / "cache").glob("*/*/tmp.*"))


@pytest.mark.parametrize("given_up", [True, False])
async def test_the_last_who_leaves_asks_whether_it_is_given_up(tmp_path: Path, wasm: int, given_up: bool) -> None:
    key, goes_on = await source("app.wasm", wasm), anyio.Event()

    async def make(_wasm: Source, artifact: Path) -> None:
        await goes_on.wait()
        artifact.write_bytes(b"made")

    async with anyio.create_task_group() as tasks:
        cache = Cache(tmp_path / "cache", tasks=tasks)
        async with anyio.create_task_group() as last:
            last.start_soon(cache.artifact, "engine", "1", key, make, "", lambda: given_up)
            async with anyio.create_task_group() as other:
                other.start_soon(cache.artifact, "engine", "1", key, make)
                await anyio.wait_all_tasks_blocked()
                other.cancel_scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert cache._jobs
            last.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert bool(cache._jobs) is not given_up
        goes_on.set()


@pytest.fixture
async def kept(cache: Cache, wasm: int) -> Path:
    return await cache.artifact("engine", "1", await source("app.wasm", wasm), counted([]))


async def asked_again(cache: Cache, wasm: int) -> int:
    """How often it is made when it is asked for again."""
    calls: list[Path] = []
    artifact = await cache.artifact("engine", "1", await source("app.wasm", wasm), counted(calls))
    assert artifact.read_bytes() == b"x" * 10
    return len(calls)


def changed(artifact: Path) -> None:
    artifact.write_bytes(b"y" * 10)


def changed_in_secret(artifact: Path) -> None:
    status = artifact.stat()
    artifact.write_bytes(b"y" * 10)
    os.utime(artifact, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(artifact: Path) -> None:
    artifact.with_name("other").write_bytes(b"y" * 10)
    artifact.with_name("other").rename(artifact)


def without_digest(artifact: Path) -> None:
    artifact.with_name("digest").unlink()


def with_more(artifact: Path) -> None:
    artifact.with_name("runner").write_text("another")


def open_to_others(artifact: Path) -> None:
    artifact.chmod(0o666)


def a_link(artifact: Path) -> None:
    artifact.rename(artifact.parents[3] / "away")
    artifact.symlink_to(artifact.parents[3] / "away")


CHANGES = [changed, changed_in_secret, replaced, without_digest, with_more, open_to_others, a_link]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_what_is_not_what_was_put_there_is_made_anew(
    cache: Cache, wasm: int, kept: Path, change: Callable[[Path], None]
) -> None:
    """For the next daemon, too."""
    change(kept)
    assert await asked_again(Cache(cache.directory, 1 << 20), wasm) == 1
    assert await asked_again(Cache(cache.directory, 1 << 20), wasm) == 0


@pytest.mark.parametrize("change", [changed, changed_in_secret, replaced, without_digest, open_to_others, a_link])
async def test_this_daemon_sees_it_by_its_times(
    cache: Cache, wasm: int, kept: Path, change: Callable[[Path], None]
) -> None:
    assert await asked_again(cache, wasm) == 0
    change(kept)
    assert await asked_again(cache, wasm) == 1


async def test_it_is_read_once(cache: Cache, wasm: int, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def examined(entry: Path) -> integrity.Record | None:
        read.append(entry)
        return original(entry)

    original = integrity.examined
    monkeypatch.setattr(integrity, "examined", examined)
    assert await asked_again(cache, wasm) == 0
    assert read == []  # it was made by this one
    other = Cache(cache.directory, 1 << 20)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(asked_again, other, wasm)
    assert read == [kept.parent]


async def test_a_digest_that_the_compiler_left_is_none(cache: Cache, wasm: int) -> None:
    async def sly(_wasm: Source, artifact: Path) -> None:
        artifact.write_bytes(b"x")
        artifact.with_name("digest").write_text("of something else")

    with pytest.raises(ShimdError, match="file exists"):
        await cache.artifact("engine", "1", await source("app.wasm", wasm), sly)


async def test_a_shortage_says_nothing_of_what_is_there(cache: Cache, wasm: int, kept: Path) -> None:
    """It is neither thrown away nor believed."""
    other, wanted = Cache(cache.directory, 1 << 20), await source("app.wasm", wasm)
    calls: list[Path] = []
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        await other.artifact("engine", "1", wanted, counted(calls))
    assert await other.artifact("engine", "1", wanted, counted(calls)) == kept
    assert calls == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
async def test_a_directory_of_another_users_is_refused(cache: Cache, wasm: int, kept: Path) -> None:
    os.chown(kept.parents[1], 65534, 65534)
    with pytest.raises(Unavailable, match="engine/1 is not root's alone, as the cache has to be: remove it"):
        await asked_again(Cache(cache.directory, 1 << 20), wasm)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
async def test_a_worker_cannot_write_to_what_it_is_given(cache: Cache, kept: Path) -> None:
    view = cache.view(kept)
    file = os.open(kept.name, os.O_RDONLY, dir_fd=view)
    try:
        for how in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(f"/proc/self/fd/{file}", how)
        with pytest.raises(OSError, match="Read-only file system"):
            os.fchmod(file, 0o666)
        above = os.open("../../..", os.O_RDONLY, dir_fd=view)
        assert sorted(os.listdir(above)) == ["artifact", "digest"]
        os.close(above)
        assert os.fstat(file).st_ino == kept.stat().st_ino  # its pages are everybody's
    finally:
        os.close(file)
        os.close(view)


async def test_a_view_of_what_was_removed_and_made_anew(cache: Cache, wasm: int, kept: Path) -> None:
    os.close(cache.view(kept))
    shutil.rmtree(kept.parent)
    with pytest.raises(DataLoss, match="is in the cache no more"):
        cache.view(kept)
    assert await asked_again(cache, wasm) == 1
    view = cache.view(kept)
    assert os.listdir(view_path(view)) != []
    os.close(view)


def view_path(view: int) -> str:
    return f"/proc/self/fd/{view}"


def test_views_are_few(tmp_path: Path) -> None:
    views = Views(most=2)
    before = len(os.listdir("/proc/self/fd"))
    for name in "abc":
        (tmp_path / name).mkdir()
        os.close(views.open(tmp_path / name))
        os.close(views.open(tmp_path / name))
    assert len(os.listdir("/proc/self/fd")) == before + 2
    views.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_cannot(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Apps start all the same; it is told once."""

    def no(_path: str) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(libc, "clone_readonly", no)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    views = Views()
    for name in "ab":
        (tmp_path / name).mkdir()
        os.close(views.open(tmp_path / name))
    assert caplog.text.count("cannot be mounted read-only") == 1
