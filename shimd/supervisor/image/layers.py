"""The layers of one container's image, for an application that is an OCI artifact: read, compiled, laid out as files.

Whatever a container asks for is looked up among its own image's layers: content is shared by all of a node's images,
and no image may name another's.
"""

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from shimd.engine import Layer
from shimd.errors import InvalidArgument, NotFound, ResourceExhausted
from shimd.linux.memory_file import memory_file
from shimd.protocol.worker import decode_files
from shimd.supervisor.image.content import ContentStore
from shimd.supervisor.modules.compilations import Waiter
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.modules.source import Source, source
from shimd.supervisor.threads import in_thread
from shimd.supervisor.workers.programs import Program

#: Files of an application: one a layer, or many in an archive (Spin's ``crates/oci``).
DATA = "application/vnd.wasm.content.layer.v1+data"
ARCHIVE = "application/vnd.wasm.content.bundle.v1.tar+gzip"
#: Largest layer that is read as a whole, bytes: a description, or a module.
_MAX_READ = 512 << 20
#: Most that an archive may hold, bytes.
_MAX_UNPACKED = 4 << 30
#: Bumped when what is made of the same layers changes.
_VERSION = "1"
_CHUNK = 1 << 20
#: Seconds for an archive to be unpacked.
_UNPACKING = 600.0


class ImageLayers:
    """The layers of one container's image; ``layers`` are descriptors, as its manifest has them."""

    def __init__(self, waiter: Waiter, content: ContentStore, modules: Modules, layers: list[dict[str, Any]]) -> None:
        self._waiter = waiter
        self._content = content
        self._modules = modules
        self._layers = {layer["digest"]: layer for layer in layers}

    @property
    def layers(self) -> list[Layer]:
        """All layers, as engines know them."""
        return [
            Layer(digest, layer.get("mediaType", ""), layer.get("size", 0)) for digest, layer in self._layers.items()
        ]

    async def read(self, digest: str) -> int:
        """A layer, in a file without a name; the caller closes it.

        :raises NotFound: the image has no such layer
        """
        layer = self._layer(digest)
        if layer.get("size", 0) > _MAX_READ:
            raise ResourceExhausted(f"the layer {digest} is larger than {_MAX_READ >> 20} MiB")
        return await self._content.file(layer)

    async def program(self, name: str, digest: str) -> Program:
        """The compiled form of a layer."""
        fd = await self.read(digest)
        try:
            return await self._modules.compiled(self._waiter, name, fd)
        finally:
            os.close(fd)

    async def files(self, table: bytes) -> Path:
        """The directory of a ``FileTable``, from the cache or made now.

        :raises NotFound: a file is in no layer
        :raises InvalidArgument: an archive is broken
        """
        files = decode_files(table).files
        ours = [digest for digest, layer in self._layers.items() if layer.get("mediaType") in (DATA, ARCHIVE)]
        # With the layers in its name nobody gets from the cache what is not in their own image.
        key = memory_file("shimd-files", json.dumps([files, sorted(ours)], sort_keys=True).encode())

        async def make(_key: Source, directory: Path) -> None:
            await self._lay_out(files, directory)

        try:
            listed = await source("the list of files", key)
            return await self._modules.cache.artifact("files", _VERSION, listed, make, is_code=False)
        finally:
            os.close(key)

    async def _lay_out(self, files: dict[str, dict[str, str]], directory: Path) -> None:
        wanted: dict[str, list[Path]] = {}
        directory.mkdir()
        for name, content in files.items():
            path = directory / name
            if ".." in path.parts or not path.is_relative_to(directory):
                raise InvalidArgument(f"a file of the application is {name}, which leads out of it")
            path.parent.mkdir(parents=True, exist_ok=True)
            if "digest" in content:
                wanted.setdefault(content["digest"], []).append(path)
            else:
                path.write_bytes(base64.b64decode(content["data"]))
        for digest in [digest for digest in wanted if self._layers.get(digest, {}).get("mediaType") == DATA]:
            await _copy(self._content.blob(self._layer(digest)), wanted.pop(digest))
        for digest in self._archives() if wanted else ():
            archive = directory.parent / "archive"
            await _copy(self._content.blob(self._layer(digest)), [archive])
            await in_thread(partial(_take_out, archive, digest, wanted), f"unpacking {digest}", limit=_UNPACKING)
            archive.unlink()
        if wanted:
            path = next(iter(wanted.values()))[0]
            raise NotFound(f"the image has no layer with the file {path.relative_to(directory)}")

    def _archives(self) -> list[str]:
        return [digest for digest, layer in self._layers.items() if layer.get("mediaType") == ARCHIVE]

    def _layer(self, digest: str) -> dict[str, Any]:
        if digest not in self._layers:
            raise NotFound(f"the image has no layer {digest}")
        return self._layers[digest]


async def _copy(parts: AsyncGenerator[bytes, None], paths: list[Path]) -> None:
    with paths[0].open("wb") as file:
        async with aclosing(parts):
            async for part in parts:
                file.write(part)
    _link(paths)


def _link(paths: list[Path]) -> None:
    """One content at all its paths."""
    for path in paths[1:]:
        os.link(paths[0], path)


def _take_out(archive: Path, name: str, wanted: dict[str, list[Path]]) -> None:
    """Out of a tar archive, by their digests, what is wanted; its names mean nothing here."""
    import tarfile  # with each of its compressions: few nodes have such a layer

    try:
        with tarfile.open(archive, "r:gz") as tar:
            left = _MAX_UNPACKED
            for member in tar:
                left -= member.size
                if left < 0:
                    raise ResourceExhausted(f"the archive {name} holds more than {_MAX_UNPACKED >> 30} GiB")
                if member.isfile() and (file := tar.extractfile(member)) is not None:
                    _keep(file, archive.with_name("file"), wanted)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidArgument(f"the layer {name} is no archive (tar, gzip): {error}") from None


def _keep(file: Any, temporary: Path, wanted: dict[str, list[Path]]) -> None:
    with temporary.open("wb") as copy:
        digest = _copied(file, copy)
    paths = wanted.pop(f"sha256:{digest}", [])
    if paths:
        os.rename(temporary, paths[0])
        _link(paths)
    else:
        temporary.unlink()


def _copied(source: Any, target: BinaryIO) -> str:
    """Copy all of it; returns its SHA-256."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
