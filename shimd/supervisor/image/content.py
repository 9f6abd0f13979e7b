"""Reads the Wasm layer of a container's image from containerd, over its gRPC API.

An OCI Wasm artifact has raw WebAssembly for layers, which no snapshotter unpacks, so the module comes from the content
store. (https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/)
"""

import fcntl
import hashlib
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from shimd import paths
from shimd.api.containerd.services.containers.v1 import ContainersStub, GetContainerRequest
from shimd.api.containerd.services.content.v1 import ContentStub, ReadContentRequest
from shimd.api.containerd.services.images.v1 import GetImageRequest, ImagesStub
from shimd.errors import DataLoss, InvalidArgument, NotFound, Unavailable, from_os
from shimd.supervisor.modules.source import check_size

WASM_LAYERS = frozenset(
    {
        "application/wasm",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    }
)
#: Largest manifest or index that we read, bytes (the distribution specification's limit for clients).
_MAX_MANIFEST = 4 << 20
#: Of digests (image specification, "Descriptors", and what containerd knows beside).
_ALGORITHMS = ("sha256", "sha384", "sha512")
_TITLE = "org.opencontainers.image.title"
#: Seconds in which containerd must answer.
_PATIENCE = 10


class ContentStore:
    """The content that one containerd namespace has stored; ``address`` is containerd's gRPC socket."""

    def __init__(self, address: str, namespace: str) -> None:
        self._address = address.removeprefix("unix://")
        self._metadata = {"containerd-namespace": namespace}

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Channel]:
        if not self._address:
            raise NotFound("containerd's address is not known, so its images cannot be read")
        channel = Channel(path=self._address)
        try:
            yield channel
        except GRPCError as error:
            raise NotFound(f"containerd: {error.message}") from error
        except (OSError, StreamTerminatedError, TimeoutError) as error:
            raise Unavailable(f"containerd at {self._address} does not answer: {error}") from error
        finally:
            channel.close()

    async def layers(self, container: str) -> list[dict[str, Any]]:
        """The descriptors of the layers of a container's image, of all its platforms that are there.

        :raises NotFound: the container has no image
        :raises Unavailable: containerd does not answer
        """
        async with self._channel() as channel:
            with anyio.fail_after(_PATIENCE):
                digest = await self._image(channel, container)
                return [layer async for layer in self._layers(channel, digest)]

    async def file(self, layer: dict[str, Any]) -> int:
        """A layer in a file without a name, in the cache's file system: it may be large. The caller closes it.

        :raises ShimdError: as :meth:`blob`, or the disk's
        """
        try:
            with tempfile.TemporaryFile(dir=paths.cache_dir(), buffering=0) as file:
                async with aclosing(self.blob(layer)) as parts:
                    async for part in parts:
                        view = memoryview(part)
                        while view:
                            view = view[file.write(view) :]
                return fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC)
        except OSError as error:
            raise from_os(error) from error

    async def blob(self, layer: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The blob that a descriptor names, part by part. It is right only if the last part has come without an error.

        :raises InvalidArgument: it is longer than the descriptor says, which is what limits are applied to
        :raises DataLoss: it is another than the descriptor says
        :raises NotFound: it is not there
        :raises Unavailable: containerd does not answer
        """
        digest, left = layer["digest"], layer.get("size", 0)
        algorithm, _, expected = digest.partition(":")
        if algorithm not in _ALGORITHMS:
            raise InvalidArgument(f"the layer {digest} is named by an algorithm that the image specification lacks")
        found = hashlib.new(algorithm)
        async with aclosing(self.stream(digest)) as parts:
            async for part in parts:
                left -= len(part)
                if left < 0:
                    raise InvalidArgument(f"the layer {digest} is longer than the image's manifest says")
                found.update(part)
                yield part
        if left or found.hexdigest() != expected:
            raise DataLoss(f"what containerd has stored as the layer {digest} is something else: pull the image again")

    async def stream(self, digest: str) -> AsyncGenerator[bytes, None]:
        """A blob, part by part.

        :raises NotFound: it is not there
        :raises Unavailable: containerd does not answer
        """
        async with self._channel() as channel:
            parts = ContentStub(channel, metadata=self._metadata).read(ReadContentRequest(digest=digest))
            while True:
                with anyio.fail_after(_PATIENCE):
                    part = await anext(parts, None)
                if part is None:
                    return
                yield part.data

    async def _image(self, channel: Channel, container: str) -> str:
        answer = await ContainersStub(channel, metadata=self._metadata).get(GetContainerRequest(id=container))
        image = answer.container.image if answer.container else ""
        if not image:
            raise NotFound(f"container {container} was made without an image")
        found = await ImagesStub(channel, metadata=self._metadata).get(GetImageRequest(name=image))
        if found.image is None or found.image.target is None:
            raise NotFound(f"image {image} does not exist")
        return found.image.target.digest

    async def _layers(self, channel: Channel, digest: str) -> Any:
        """Returns all layers below a manifest or index."""
        document = await self._manifest(channel, digest)
        for layer in descriptors(document, "layers"):
            yield layer
        for manifest in descriptors(document, "manifests"):
            try:
                async for layer in self._layers(channel, manifest["digest"]):
                    yield layer
            except GRPCError:  # another platform's, not in the store
                continue

    async def _manifest(self, channel: Channel, digest: str) -> dict[str, Any]:
        stub = ContentStub(channel, metadata=self._metadata)
        request = ReadContentRequest(digest=digest, size=_MAX_MANIFEST)
        try:
            document = json.loads(b"".join([part.data async for part in stub.read(request)]))
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"manifest {digest} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidArgument(f"manifest {digest} is not a JSON object")
        return document


def descriptors(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A manifest's layers, or an index's manifests (image specification, "Descriptors").

    :raises InvalidArgument: they are something else
    """
    found = document.get(name) or []
    if not isinstance(found, list) or not all(map(_is_descriptor, found)):
        raise InvalidArgument(f"the image's manifest is none: {name} is not a list of descriptors")
    return found


def _is_descriptor(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    annotations = value.get("annotations") or {}
    return (
        isinstance(value.get("digest"), str)
        and isinstance(value.get("mediaType", ""), str)
        and isinstance(value.get("size", 0), int)
        and isinstance(annotations, dict)
        and all(isinstance(text, str) for text in annotations.values())
    )


async def wasm_layer(content: ContentStore, container: str, name: str, more_types: frozenset[str] = frozenset()) -> int:
    """The module in the image of a container; of several the one whose title is ``name``, else the first.

    :returns: a file without a name; the caller closes it

    :raises NotFound: the container has no image, or the image no such layer
    :raises ResourceExhausted: it is too large
    :raises ShimdError: as :meth:`Content.file`
    """
    layers = [layer for layer in await content.layers(container) if layer.get("mediaType") in WASM_LAYERS | more_types]
    if not layers:
        raise NotFound(f"the image of container {container} has no WebAssembly layer")
    chosen = choose(layers, name)
    check_size(name, chosen.get("size", 0))
    return await content.file(chosen)


def choose(layers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The layer titled ``name`` (``org.opencontainers.image.title``), else the first."""
    titles = {(layer.get("annotations") or {}).get(_TITLE): layer for layer in reversed(layers)}
    return titles.get(name.lstrip("/")) or layers[0]
