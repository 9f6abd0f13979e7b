"""What a worker asks while it is set up: for compiled programs, and for the layers of its container's image."""

import json
import os

from shimd.errors import ShimdError, from_os
from shimd.formats.magic import NativeProgram
from shimd.linux.memory_file import memory_file, read_file
from shimd.protocol.messages import Message
from shimd.supervisor.task.context import Context, Image
from shimd.supervisor.workers.fork_client import Worker


class Questions:
    """Of one worker."""

    def __init__(self, context: Context, container: str) -> None:
        self._context = context
        self._container = container
        self._image: Image | None = None

    async def answer(self, worker: Worker, message: Message, fds: list[int]) -> str | None:
        """Answer one, well or badly; returns the compiled program that was given, if any.

        :raises NativeProgram: a program is none for an engine
        """
        given: int | None = None
        try:
            reply, given = await self._answer(message, fds)
        except NativeProgram:
            raise
        except (ShimdError, OSError) as error:
            plain = from_os(error) if isinstance(error, OSError) else error
            reply = {"op": "fail", "code": int(plain.code), "message": message.get("missing") or str(plain)}
        try:
            worker.send(reply, [given] if given is not None else None)
        finally:
            if given is not None:
                os.close(given)
        return reply.get("artifact") if message["ev"] == "entry" else None

    async def _answer(self, message: Message, fds: list[int]) -> tuple[Message, int | None]:
        match message["ev"]:
            case "image":
                image = await self._images()
                return {"op": "image"}, memory_file("shimd-image", json.dumps(image.told()).encode())
            case "layer":
                return {"op": "layer"}, await (await self._images()).read(message["digest"])
            case "files":
                path = await (await self._images()).files(read_file(fds[0]))
            case _ if "layer" in message:
                path = await (await self._images()).program(message["name"], message["layer"])
            case _:
                path = await self._context.program(self._container, message["name"], fds[0] if fds else None)
        return {"op": "load", "artifact": str(path)}, None

    async def _images(self) -> Image:
        if self._image is None:
            self._image = await self._context.image(self._container)
        return self._image
