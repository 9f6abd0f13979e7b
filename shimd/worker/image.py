"""An application that is an OCI artifact: the worker asks the supervisor for what no file of the container's holds."""

import base64
import fcntl
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shimd.engine import Content, Layer, RunsArtifacts
from shimd.errors import NotFound
from shimd.linux.memory_file import memory_file, read_file
from shimd.protocol.codec import encode
from shimd.protocol.packets import send
from shimd.protocol.worker import (
    Artifact,
    AskFiles,
    AskImage,
    AskLayer,
    AskProgram,
    FileTable,
    Question,
    decode_layers,
)
from shimd.worker.main import answered


def load(
    engine: RunsArtifacts[object],
    control: socket.socket,
    read: Callable[[str], bytes | None],
    env: Mapping[str, str],
) -> object | None:
    """Load what the engine makes of the container's image; ``None``: that is no application."""
    try:
        image = Image(control)
    except NotFound:  # made without an image: then its program is missing, and that is what is to be said
        return None
    programs = engine.artifact(image, read, env)
    if programs is None:
        return None
    return engine.load_all({name: Path(image.program(name, layer)) for name, layer in programs.items()})


class Image:
    """:class:`shimd.engine.Image`, by the supervisor's help."""

    def __init__(self, control: socket.socket) -> None:
        """:raises NotFound: the container has none"""
        self._control = control
        self.layers: Sequence[Layer] = decode_layers(self._ask_file(AskImage())).layers

    def read(self, layer: Layer) -> bytes:
        return self._ask_file(AskLayer(layer.digest))

    def program(self, name: str, layer: Layer) -> str:
        """The compiled form of a layer."""
        return self._ask_path(AskProgram(name, layer=layer.digest))

    def files(self, contents: Mapping[str, Content]) -> int:
        """The lock keeps the directory in the cache for as long as the app lives (``supervisor/modules/cache.py``)."""
        table = {path: _told(content) for path, content in contents.items()}
        fd = memory_file("shimd-files", encode(FileTable(table)))
        try:
            directory = self._ask_path(AskFiles(), [fd])
        finally:
            os.close(fd)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(opened, fcntl.LOCK_SH)
        return opened

    def _ask_path(self, question: Question, fds: Sequence[int] = ()) -> str:
        send(self._control, question, fds)
        answer, _fds = answered(self._control)
        assert isinstance(answer, Artifact)
        return answer.path

    def _ask_file(self, question: Question) -> bytes:
        send(self._control, question)
        (fd,) = answered(self._control)[1]
        try:
            return read_file(fd)
        finally:
            os.close(fd)


def _told(content: Content) -> dict[str, str]:
    return {"digest": content.digest} if content.digest else {"data": base64.b64encode(content.data).decode()}
