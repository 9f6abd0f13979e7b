"""A worker's questions while it is set up: for compiled programs, and for the layers of its container's image."""

import os
from pathlib import Path
from typing import assert_never

from shimd.errors import ShimdError, from_os
from shimd.formats.magic import NativeProgram
from shimd.linux.memory_file import memory_file, read_file
from shimd.protocol.codec import encode
from shimd.protocol.worker import (
    Answer,
    Artifact,
    AskFiles,
    AskImage,
    AskLayer,
    AskProgram,
    Content,
    Layers,
    Question,
    Refusal,
)
from shimd.supervisor.workers.fork_client import Worker
from shimd.supervisor.workers.programs import Image, Program, Programs


class Questions:
    """The questions of one worker."""

    def __init__(self, programs: Programs, container: str, engine: str) -> None:
        """:param engine: the worker's"""
        self._programs = programs
        self._container, self._engine = container, engine
        self._image: Image | None = None
        self.given: list[Program] = []
        """The compiled programs that were given, the latest last."""

    async def answer(self, worker: Worker, question: Question, fds: list[int]) -> None:
        """Answer one, well or badly.

        :raises NativeProgram: a program is none for an engine
        :raises Unavailable: the worker is gone
        """
        given: int | None = None
        answer: Answer
        try:
            answer, given = await self._answer(question, fds)
        except NativeProgram:
            raise
        except (ShimdError, OSError) as error:
            plain = from_os(error) if isinstance(error, OSError) else error
            missing = question.missing if isinstance(question, AskProgram) else ""
            answer = Refusal(int(plain.code), missing or str(plain))
        try:
            worker.send(answer, [given] if given is not None else ())
        finally:
            if given is not None:
                os.close(given)

    async def _answer(self, question: Question, fds: list[int]) -> tuple[Answer, int | None]:
        match question:
            case AskImage():
                layers = Layers((await self._layers()).layers)
                return Content(), memory_file("shimd-image", encode(layers))
            case AskLayer():
                return Content(), await (await self._layers()).read(question.digest)
            case AskFiles():
                return self._artifact(await (await self._layers()).files(read_file(fds[0])))
            case AskProgram():
                program = await self._program(question, fds[0] if fds else None)
                self.given.append(program)
                return self._artifact(program.artifact)
            case _:
                assert_never(question)

    def _artifact(self, artifact: Path) -> tuple[Artifact, int]:
        return Artifact(artifact.name), self._programs.view(artifact)

    async def _program(self, question: AskProgram, fd: int | None) -> Program:
        if question.layer:
            return await (await self._layers()).program(question.name, question.layer)
        return await self._programs.program(self._container, question.name, fd, engine=self._engine)

    async def _layers(self) -> Image:
        if self._image is None:
            self._image = await self._programs.image(self._container, self._engine)
        return self._image
