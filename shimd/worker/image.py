"""An application that is an OCI artifact: the worker asks the supervisor for what no file of the container's holds."""

import base64
import fcntl
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shimd.engine import Composed, Content, Layer, RunsArtifacts
from shimd.errors import NotFound
from shimd.linux.memory_file import memory_file, read_file
from shimd.protocol.codec import encode
from shimd.protocol.packets import send
from shimd.protocol.worker import (
    AskFiles,
    AskImage,
    AskLayer,
    AskProgram,
    FileTable,
    Question,
    decode_layers,
)
from shimd.worker import composed
from shimd.worker.main import ProgramDirectories, answered, compiled


def load(
    engine: RunsArtifacts[object],
    control: socket.socket,
    directories: ProgramDirectories,
    read: Callable[[str], bytes | None],
    env: Mapping[str, str],
) -> object | None:
    """Load what the engine makes of the container's image; ``None``: that is no application."""
    try:
        image = Image(control, directories)
    except NotFound:  # made without an image: then its program is missing, and that is what is to be said
        return None
    programs = engine.artifact(image, read, env)
    if programs is None:
        return None
    return engine.load_all({name: image.program(name, program) for name, program in programs.items()})


class Image:
    """:class:`shimd.engine.Image`, by the supervisor's help."""

    def __init__(self, control: socket.socket, directories: ProgramDirectories) -> None:
        """:raises NotFound: the container has none"""
        self._control, self._directories = control, directories
        self.layers: Sequence[Layer] = decode_layers(self._ask_file(AskImage())).layers

    def read(self, layer: Layer) -> bytes:
        return self._ask_file(AskLayer(layer.digest))

    def program(self, name: str, program: Layer | Composed[Layer]) -> Path:
        """The compiled form of a layer, or of several."""
        if isinstance(program, Composed):
            return composed.fetch(program, self._open, self._control, self._directories)
        send(self._control, AskProgram(name, layer=program.digest))
        return compiled(self._control, self._directories)

    def files(self, contents: Mapping[str, Content]) -> int:
        """The lock keeps the directory in the cache for as long as the app lives (``supervisor/modules/cache.py``)."""
        table = {path: _told(content) for path, content in contents.items()}
        fd = memory_file("shimd-files", encode(FileTable(table)))
        try:
            send(self._control, AskFiles(), [fd])
            directory = compiled(self._control, self._directories)
        finally:
            os.close(fd)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(opened, fcntl.LOCK_SH)
        return opened

    def _open(self, layer: Layer) -> int:
        return self._ask(AskLayer(layer.digest))

    def _ask(self, question: Question) -> int:
        send(self._control, question)
        (fd,) = answered(self._control)[1]
        return fd

    def _ask_file(self, question: Question) -> bytes:
        fd = self._ask(question)
        try:
            return read_file(fd)
        finally:
            os.close(fd)


def _told(content: Content) -> dict[str, str]:
    return {"digest": content.digest} if content.digest else {"data": base64.b64encode(content.data).decode()}
