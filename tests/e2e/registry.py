"""A registry of images that were made in memory: as much of the OCI distribution specification as a pull needs.

``python -m tests.e2e.registry FILE PORT`` serves an archive of :func:`tests.e2e.images.save` on the loopback, each
image by its name without the host, as containerd asks a mirror for it.
"""

import json
import re
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.images import MANIFEST

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/?]+)")


class Handler(BaseHTTPRequestHandler):
    blobs: ClassVar[dict[str, bytes]] = {}
    tags: ClassVar[dict[str, str]] = {}
    """``NAME:TAG`` → digest of the manifest."""

    def do_GET(self) -> None:
        found = _PATH.match(self.path)
        if found is None:
            self._answer(200 if self.path.startswith("/v2/") else 404, b"{}")
            return
        reference = found["reference"]
        digest = self.tags.get(f"{found['name']}:{reference}", reference)
        data = self.blobs.get(digest)
        if data is None:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        else:
            self._answer(200, data, digest, MANIFEST if found["kind"] == "manifests" else "application/octet-stream")

    do_HEAD = do_GET

    def _answer(self, status: int, data: bytes, digest: str = "", kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


def load(archive: Path) -> None:
    """Fill the handler with an OCI layout's blobs."""
    with tarfile.open(archive) as tar:
        contents = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        data = {name: file.read() for name, file in contents.items() if file is not None}
    prefix = "blobs/sha256/"
    Handler.blobs = {f"sha256:{name.removeprefix(prefix)}": blob for name, blob in data.items() if prefix in name}
    for entry in json.loads(data["index.json"])["manifests"]:
        name = entry["annotations"]["io.containerd.image.name"].partition("/")[2]
        Handler.tags[name if ":" in name else f"{name}:latest"] = entry["digest"]


if __name__ == "__main__":
    load(Path(sys.argv[1]))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
