"""What we ask of containerd over its own gRPC API: the Wasm layer of a container's image.

An OCI Wasm artifact has raw WebAssembly for layers, which no snapshotter unpacks, so the module comes from the content
store. (https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/)
"""

import json
from collections.abc import Iterator
from typing import Any

import anyio
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from shimd.api.containerd.services.containers.v1 import ContainersStub, GetContainerRequest
from shimd.api.containerd.services.content.v1 import ContentStub, ReadContentRequest
from shimd.api.containerd.services.images.v1 import GetImageRequest, ImagesStub
from shimd.errors import InvalidArgument, NotFound, Unavailable

WASM_LAYERS = frozenset(
    {
        "application/wasm",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    }
)
#: Largest manifest or index that we read, bytes (the distribution specification's limit for clients).
_MAX_MANIFEST = 4 << 20
#: Seconds in which containerd must answer.
_PATIENCE = 10


class Images:
    """The images of one containerd namespace; ``address`` is containerd's gRPC socket."""

    def __init__(self, address: str, namespace: str, more_layers: frozenset[str] = frozenset()) -> None:
        self._types = WASM_LAYERS | more_layers
        self._address = address.removeprefix("unix://")
        self._metadata = {"containerd-namespace": namespace}

    async def wasm_layer(self, container: str, name: str) -> bytes:
        """The module in the image of a container; of several the one whose title is ``name``, else the first.

        :raises NotFound: the container has no image, or the image no such layer
        :raises Unavailable: containerd does not answer
        """
        if not self._address:
            raise NotFound("containerd's address is not known, so its images cannot be read")
        channel = Channel(path=self._address)
        try:
            with anyio.fail_after(_PATIENCE):
                return await self._wasm_layer(channel, container, name)
        except GRPCError as error:
            raise NotFound(f"containerd: {error.message}") from error
        except (OSError, StreamTerminatedError, TimeoutError) as error:
            raise Unavailable(f"containerd at {self._address} does not answer: {error}") from error
        finally:
            channel.close()

    async def _wasm_layer(self, channel: Channel, container: str, name: str) -> bytes:
        answer = await ContainersStub(channel, metadata=self._metadata).get(GetContainerRequest(id=container))
        image = answer.container.image if answer.container else ""
        if not image:
            raise NotFound(f"container {container} was made without an image")
        found = await ImagesStub(channel, metadata=self._metadata).get(GetImageRequest(name=image))
        if found.image is None or found.image.target is None:
            raise NotFound(f"image {image} does not exist")
        layers = [layer async for layer in self._layers(channel, found.image.target.digest)]
        if not layers:
            raise NotFound(f"image {image} has no WebAssembly layer")
        return await self._read(channel, choose(layers, name)["digest"])

    async def _layers(self, channel: Channel, digest: str) -> Any:
        """All Wasm layers below a manifest or index."""
        document = await self._manifest(channel, digest)
        for layer in wasm_layers(document, self._types):
            yield layer
        for manifest in document.get("manifests", []):
            try:
                async for layer in self._layers(channel, manifest["digest"]):
                    yield layer
            except GRPCError:  # another platform's, not in the store
                continue

    async def _manifest(self, channel: Channel, digest: str) -> dict[str, Any]:
        try:
            document = json.loads(await self._read(channel, digest, _MAX_MANIFEST))
        except ValueError as error:
            raise InvalidArgument(f"manifest {digest} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidArgument(f"manifest {digest} is not a JSON object")
        return document

    async def _read(self, channel: Channel, digest: str, size: int = 0) -> bytes:
        stub = ContentStub(channel, metadata=self._metadata)
        return b"".join([part.data async for part in stub.read(ReadContentRequest(digest=digest, size=size))])


def wasm_layers(manifest: dict[str, Any], types: frozenset[str] = WASM_LAYERS) -> Iterator[dict[str, Any]]:
    return (layer for layer in manifest.get("layers", []) if layer.get("mediaType") in types)


def choose(layers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The layer titled ``name`` (``org.opencontainers.image.title``), else the first."""
    titles = {layer.get("annotations", {}).get("org.opencontainers.image.title"): layer for layer in reversed(layers)}
    return titles.get(name.lstrip("/")) or layers[0]
