"""An application of ``shimd run``: described by a file of this machine, with its own beside it."""

import os
import socket

from shimd.engine import Engine, RunsLocally
from shimd.errors import InvalidArgument, NotFound, from_os
from shimd.protocol.invocation import environment
from shimd.protocol.plans import HostApp
from shimd.worker.main import ProgramDirectories, fetch


def load(engine: Engine[object], plan: HostApp, control: socket.socket, directories: ProgramDirectories) -> object:
    """:raises ShimdError: something is not there
    :raises EngineError: something is wrong with the description
    """
    if not isinstance(engine, RunsLocally):
        raise InvalidArgument(f"{plan.application} is an application, and this engine runs none")
    engine.take(plan.application)
    programs = engine.programs(_read, environment(plan.process))
    if programs is None:
        raise NotFound(f"{plan.application}: no such file or directory")
    return engine.load_all({name: fetch(_open, path, control, directories) for name, path in programs.items()})


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise from_os(error) from None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory") from None
    except OSError as error:
        raise from_os(error) from None
