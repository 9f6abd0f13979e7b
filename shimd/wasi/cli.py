"""``wasi:cli``: arguments, environment, standard streams, exit."""

import os
from collections.abc import Mapping, Sequence

from shimd.component.guest import current
from shimd.component.results import Err, GuestExit, Ok
from shimd.wasi.io import FileInput, FileOutput, InputStream, OutputStream


class Environment:
    """``wasi:cli/environment``; a guest may have variables of its own besides (``guest.environment``)."""

    def __init__(self, environment: Mapping[str, str], arguments: Sequence[str] = (), cwd: str | None = None) -> None:
        self._environment = dict(environment)
        self._arguments = list(arguments)
        self._cwd = cwd

    def get_environment(self) -> list[tuple[str, str]]:
        return list({**self._environment, **current().environment}.items())

    def get_arguments(self) -> list[str]:
        return self._arguments

    def initial_cwd(self) -> str | None:
        return self._cwd


class ExitInterface:
    """``wasi:cli/exit``."""

    def exit(self, status: Ok | Err) -> None:
        raise GuestExit(0 if isinstance(status, Ok) else 1)

    def exit_with_code(self, code: int) -> None:
        raise GuestExit(code)


class Stdin:
    def __init__(self, fd: int = 0) -> None:
        self._fd = fd

    def get_stdin(self) -> InputStream:
        return FileInput(self._fd)


class Stdout:
    def __init__(self, fd: int = 1) -> None:
        self._fd = fd

    def get_stdout(self) -> OutputStream:
        return FileOutput(self._fd)


class Stderr:
    def __init__(self, fd: int = 2) -> None:
        self._fd = fd

    def get_stderr(self) -> OutputStream:
        return FileOutput(self._fd)


class Terminal:
    """``wasi:cli/terminal-stdin`` and its like: whether a stream is a terminal is all that 0.2 tells of it."""

    class Handle:
        """``terminal-input``, ``terminal-output``: nothing can be done with one."""

    def get_terminal_stdin(self) -> "Terminal.Handle | None":
        return _terminal(0)

    def get_terminal_stdout(self) -> "Terminal.Handle | None":
        return _terminal(1)

    def get_terminal_stderr(self) -> "Terminal.Handle | None":
        return _terminal(2)


def _terminal(fd: int) -> Terminal.Handle | None:
    return Terminal.Handle() if os.isatty(fd) else None
