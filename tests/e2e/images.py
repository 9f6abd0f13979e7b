"""OCI images made in memory, in the layout that ``ctr image import`` reads: no builder, no registry.

(https://github.com/opencontainers/image-spec/blob/main/image-layout.md; the raw Wasm kind:
https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/)
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
TITLE = "org.opencontainers.image.title"

LINUX = {"os": "linux", "architecture": "amd64"}
WASI_WASM = {"os": "wasi", "architecture": "wasm"}


@dataclass(frozen=True)
class Blob:
    media_type: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    def descriptor(self, **more: Any) -> dict[str, Any]:
        annotations = {"annotations": dict(self.annotations)} if self.annotations else {}
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **annotations, **more}


@dataclass(frozen=True)
class Image:
    name: str
    platform: Mapping[str, str]
    config: Blob
    layers: Sequence[Blob]

    @property
    def manifest(self) -> Blob:
        layers = [layer.descriptor() for layer in self.layers]
        return _json(MANIFEST, {"schemaVersion": 2, "config": self.config.descriptor(), "layers": layers})

    def blobs(self) -> Iterable[Blob]:
        return (self.config, *self.layers, self.manifest)

    def entry(self) -> dict[str, Any]:
        """Its place in the index of the layout."""
        name = {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name}
        return self.manifest.descriptor(platform=self.platform, annotations=name)


def _json(media_type: str, value: Any) -> Blob:
    return Blob(media_type, json.dumps(value).encode())


def layer(
    files: Mapping[str, bytes],
    directories: Iterable[str] = (),
    links: Mapping[str, str] | None = None,
    setuid: Iterable[str] = (),
    modes: Mapping[str, int] | None = None,
) -> Blob:
    """A layer of executable files, directories that everyone may write, and symbolic links, by absolute paths.

    :param modes: of files and directories that have others
    """
    own = {**dict.fromkeys(setuid, 0o4755), **(modes or {})}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in directories:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, own.get(path, 0o777)
            tar.addfile(entry)
        for path, data in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), own.get(path, 0o755)
            tar.addfile(entry, io.BytesIO(data))
        for path, target in (links or {}).items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return Blob(LAYER, buffer.getvalue())


def image(name: str, layers: Sequence[Blob], process: Mapping[str, Any], platform: Mapping[str, str] = LINUX) -> Image:
    """An ordinary image. ``process``: ``Entrypoint``, ``Cmd``, ``Env``, ``WorkingDir``, ``User``."""
    rootfs = {"type": "layers", "diff_ids": [blob.digest for blob in layers]}
    return Image(name, platform, _json(CONFIG, {**platform, "config": dict(process), "rootfs": rootfs}), layers)


def artifact(name: str, wasm: bytes, layer_type: str, title: str = "app.wasm") -> Image:
    """An OCI Wasm artifact: its one layer is the module itself."""
    module = Blob(layer_type, wasm, {TITLE: title})
    config = {**WASI_WASM, "created": "1970-01-01T00:00:00Z", "layerDigests": [module.digest]}
    return Image(name, WASI_WASM, _json(WASM_CONFIG, config), [module])


def bare(name: str, wasm: bytes, layer_type: str, process: Mapping[str, Any]) -> Image:
    """An image for wasi/wasm whose one layer is the module itself."""
    rootfs = {"type": "layers", "diff_ids": []}  # none of its layers is a file system's
    config = _json(CONFIG, {**WASI_WASM, "config": dict(process), "rootfs": rootfs})
    return Image(name, WASI_WASM, config, [Blob(layer_type, wasm)])


def save(path: Path, images: Sequence[Image]) -> None:
    """Write an OCI image layout, as a tar file."""
    blobs = {blob.digest: blob.data for each in images for blob in each.blobs()}
    files = {f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.items()}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [each.entry() for each in images]}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps(index).encode()
    path.write_bytes(layer(files).data)
