"""Files of applications that are OCI artifacts: laid out once, of the image's own layers only."""

import gzip
import hashlib
import os
import resource
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from shimd.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted, ShimdError
from shimd.linux.memory_file import read_file
from shimd.protocol.codec import encode
from shimd.protocol.worker import FileTable
from shimd.supervisor.image import layers as image_layers
from shimd.supervisor.image.content import ContentStore
from shimd.supervisor.image.layers import ARCHIVE, DATA, ImageLayers
from shimd.supervisor.modules.cache import Cache
from shimd.supervisor.modules.compilations import Waiter
from shimd.supervisor.modules.modules import Modules
from tests.e2e import images

FILES = {"a.txt": b"one", "deep/b.txt": b"two", "deep/same.txt": b"one"}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Stored(ContentStore):
    """What a containerd has stored: blobs, of whatever image."""

    def __init__(self) -> None:
        super().__init__("", "test")
        self.blobs: dict[str, bytes] = {}
        self.read: list[str] = []

    async def stream(self, digest: str) -> AsyncGenerator[bytes, None]:
        self.read.append(digest)
        data = self.blobs[digest]
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    def image(self, cache: Cache, **layers: str) -> ImageLayers:
        """:param layers: media types by the names of blobs"""
        modules = Modules.__new__(Modules)
        modules.cache = cache
        described = [
            {"digest": found, "mediaType": kind, "size": len(self.blobs[found])}
            for name, kind in layers.items()
            for found in [self.named[name]]
        ]
        return ImageLayers(Waiter("test", "app", "spin"), self, modules, described)

    @property
    def named(self) -> dict[str, str]:
        return {name: digest(data) for name, data in BLOBS.items()}


ARCHIVED = gzip.compress(images.layer({f"/{path}": data for path, data in FILES.items()}, ["deep"]).data)
BLOBS = {"one": b"one", "two": b"two", "archive": ARCHIVED, "broken": b"no archive", "short": ARCHIVED[:60]}


@pytest.fixture
def stored() -> Stored:
    found = Stored()
    found.blobs = {digest(data): data for data in BLOBS.values()}
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("SHIMD_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return Cache(tmp_path / "cache")


def table(**more: dict[str, str]) -> bytes:
    return encode(FileTable({**{path: {"digest": digest(data)} for path, data in FILES.items()}, **more}))


def read_all(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_layer_each(stored: Stored, cache: Cache) -> None:
    path = anyio.run(stored.image(cache, one=DATA, two=DATA).files, table(c={"data": "dGhyZWU="}))
    assert read_all(path) == {**FILES, "c": b"three"}
    assert len(stored.read) == 2, "one of them is at two places"
    again = anyio.run(stored.image(cache, one=DATA, two=DATA).files, table(c={"data": "dGhyZWU="}))
    assert (again, len(stored.read)) == (path, 2)


def test_an_archive(stored: Stored, cache: Cache) -> None:
    path = anyio.run(stored.image(cache, archive=ARCHIVE).files, table())
    assert read_all(path) == FILES
    assert {entry.name for entry in path.parent.iterdir()} == {"artifact"}


def test_no_layer_of_another_image(stored: Stored, cache: Cache) -> None:
    """Not even if it is stored, and was laid out for that one."""
    anyio.run(stored.image(cache, one=DATA, two=DATA).files, table())
    image = stored.image(cache, one=DATA)
    with pytest.raises(NotFound, match=r"no layer with the file deep/b\.txt"):
        anyio.run(image.files, table())
    with pytest.raises(NotFound, match="the image has no layer"):
        anyio.run(image.read, digest(b"two"))
    with pytest.raises(NotFound):
        anyio.run(image.program, "main", digest(b"two"))


def test_a_layer_is_read(stored: Stored, cache: Cache) -> None:
    fd = anyio.run(stored.image(cache, archive=ARCHIVE).read, digest(ARCHIVED))
    assert read_file(fd) == ARCHIVED
    assert os.readlink(f"/proc/self/fd/{fd}").startswith(f"{cache.directory}/"), "on disk, not in memory"
    os.close(fd)
    assert not list(cache.directory.iterdir())


@pytest.mark.parametrize(
    ("kept", "error", "why"),
    [
        (b"one, and more", InvalidArgument, "is longer than the image's manifest says"),
        (b"on", DataLoss, "is something else: pull the image again"),
        (b"two", DataLoss, "is something else: pull the image again"),
    ],
)
def test_a_layer_is_what_its_name_says(
    stored: Stored, cache: Cache, kept: bytes, error: type[ShimdError], why: str
) -> None:
    """Wherever it goes, and before anybody has it."""
    image = stored.image(cache, one=DATA)
    stored.blobs[digest(b"one")] = kept
    with pytest.raises(error, match=why):
        anyio.run(image.read, digest(b"one"))
    with pytest.raises(error, match=why):
        anyio.run(image.files, encode(FileTable({"a": {"digest": digest(b"one")}})))
    assert not list(cache.directory.glob("*/*/*")), "nothing is left"


def test_a_disk_that_is_full(stored: Stored, cache: Cache) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limit[1]))
    try:
        with pytest.raises(ShimdError, match="file too large"):
            anyio.run(stored.image(cache, one=DATA).read, digest(b"one"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("name", ["broken", "short"])
def test_archives_that_are_broken(stored: Stored, cache: Cache, name: str) -> None:
    with pytest.raises(InvalidArgument, match="is no archive"):
        anyio.run(stored.image(cache, **{name: ARCHIVE}).files, table())
    assert not list(cache.directory.glob("*/*/*")), "nothing is left"


def test_an_archive_that_is_too_large(stored: Stored, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layers, "_MAX_UNPACKED", 5)
    with pytest.raises(ResourceExhausted, match="holds more than"):
        anyio.run(stored.image(cache, archive=ARCHIVE).files, table())


@pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../../out"])
def test_paths_that_lead_out(stored: Stored, cache: Cache, path: str) -> None:
    with pytest.raises(InvalidArgument, match="leads out"):
        anyio.run(stored.image(cache).files, encode(FileTable({path: {"data": ""}})))


def test_a_file_below_a_file(stored: Stored, cache: Cache) -> None:
    with pytest.raises(ShimdError):
        anyio.run(stored.image(cache).files, encode(FileTable({"a": {"data": ""}, "a/b": {"data": ""}})))
