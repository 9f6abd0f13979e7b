"""What a container asks of the daemon around it: the one place where the task layer's needs are listed."""

from pathlib import Path
from typing import Any, Protocol

from betterproto2 import Message

from shimd.protocol.messages import Plan
from shimd.supervisor.workers.fork_client import Forks
from shimd.supervisor.workers.jailers import Jail, Meanwhile, Tasks


class Image(Protocol):
    """The layers of a container's image; no other content can be had by it."""

    def told(self) -> list[dict[str, Any]]:
        """What ``image`` is answered (``protocol/messages.py``)."""
        ...

    async def read(self, digest: str) -> int:
        """A layer in memory; the caller closes it.

        :raises NotFound: the image has no such layer
        """
        ...

    async def program(self, name: str, digest: str) -> Path:
        """The compiled form of a layer.

        :raises ShimdError: as :meth:`Context.program`
        """
        ...

    async def files(self, table: bytes) -> Path:
        """A directory of files, of layers or parts of them.

        :raises ShimdError: it cannot be made
        """
        ...


class Context(Protocol):
    """Shared by the containers of one engine, containerd and containerd namespace."""

    engine: str
    namespace: str

    @property
    def tasks(self) -> Tasks:
        """For what must go on after a request has been answered."""
        ...

    async def forks(self, engine: str | None = None) -> Forks:
        """The fork server of our engine, or of the one named, started if need be.

        :raises Unavailable: it does not start
        """
        ...

    async def jail(self, plan: Plan, terminal: int | None, meanwhile: Meanwhile) -> Jail:
        """What the worker of a plan will live in (:meth:`shimd.supervisor.workers.jailers.Jailers.make`)."""
        ...

    async def program(self, container: str, name: str, fd: int | None) -> Path:
        """The compiled module of a program: of the file ``fd``, or without one of the image's Wasm layer.

        :raises ShimdError: it is not WebAssembly, does not compile, or the image has no such layer
        """
        ...

    async def image(self, container: str) -> Image:
        """What its image has for layers.

        :raises NotFound: it has no image
        :raises Unavailable: containerd does not answer
        """
        ...

    async def discard(self, artifact: Path) -> None:
        """Throw away a compiled module that does not load."""
        ...

    def publish(self, event: Message) -> None:
        """Queue an event for containerd, after all that were queued before."""
        ...
