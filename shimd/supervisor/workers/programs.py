"""The surroundings of a worker: fork servers, compiled programs, the layers of an image. The daemon and ``shimd run``
each have their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shimd.engine import Layer
from shimd.supervisor.workers.fork_client import ForkClient


@dataclass(frozen=True)
class Program:
    """A compiled program."""

    artifact: Path
    engine: str = ""
    """The engine of the compiling one's family that runs it; empty: that one itself."""


class Image(Protocol):
    """The layers of a container's image; no other content can be had by it."""

    @property
    def layers(self) -> Sequence[Layer]: ...

    async def read(self, digest: str) -> int:
        """A layer, in a file without a name; the caller closes it.

        :raises NotFound: the image has no such layer
        """
        ...

    async def program(self, name: str, digest: str) -> Program:
        """The compiled form of a layer.

        :raises ShimdError: as :meth:`Programs.program`
        """
        ...

    async def files(self, table: bytes) -> Path:
        """A directory of files, of layers or parts of them (``protocol.worker.FileTable``), in the cache.

        :raises ShimdError: it cannot be made
        """
        ...


class Programs(Protocol):
    """Fork servers and programs of one engine."""

    engine: str

    async def forks(self, engine: str | None = None) -> ForkClient:
        """The fork server of our engine, or of the one named, started if need be.

        :raises Unavailable: it does not start
        """
        ...

    async def program(self, container: str, name: str, fd: int | None, digest: str = "", engine: str = "") -> Program:
        """The compiled module of a program: of the file ``fd``, or without one of the image's Wasm layer.

        :param digest: the file's SHA-256, hexadecimal, if that is known
        :param engine: that will run it, if it is not ours

        :raises ShimdError: it is not WebAssembly, does not compile, or the image has no such layer
        """
        ...

    async def image(self, container: str, engine: str = "") -> Image:
        """The layers of its image.

        :param engine: that will run what is in them, if it is not ours

        :raises NotFound: it has no image
        :raises Unavailable: containerd does not answer
        """
        ...

    def view(self, artifact: Path) -> int:
        """A descriptor of the directory that a compiled module is in, for a worker to load it by; the caller closes it.

        :raises DataLoss: it is gone
        """
        ...

    async def discard(self, artifact: Path) -> None:
        """Throw away a compiled module that does not load."""
        ...
