"""What components write to their stdout and stderr, line by line, for who is told of it, too."""

from collections.abc import Callable
from typing import Any

from shimd.wasi.io import FileOutput

Tell = Callable[[str, str], None]
"""Is told a stream's name, and a line without its end."""
#: Bytes of a line that are kept until its end comes; what is longer is told in parts.
_LONGEST = 16 << 10


class LineOutput(FileOutput):
    """Our stdout or stderr, for one instance. A line that it does not end is told when it ends itself."""

    def __init__(self, fd: int, stream: str, tell: Tell) -> None:
        super().__init__(fd)
        self._stream, self._tell = stream, tell
        self._begun = b""

    def write(self, data: bytes) -> None:
        super().write(data)
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._told(line)
        while len(self._begun) >= _LONGEST:
            part, self._begun = self._begun[:_LONGEST], self._begun[_LONGEST:]
            self._told(part)

    def close(self) -> None:
        super().close()
        begun, self._begun = self._begun, b""
        self._told(begun)

    def _told(self, line: bytes) -> None:
        if line:
            self._tell(self._stream, line.decode(errors="replace"))


def streams(tell: Tell) -> dict[str, Any]:
    """Returns the providers of both, by interface."""
    return {"wasi:cli/stdout": _Stdout(tell), "wasi:cli/stderr": _Stderr(tell)}


class _Stdout:
    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def get_stdout(self) -> LineOutput:
        return LineOutput(1, "stdout", self._tell)


class _Stderr:
    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def get_stderr(self) -> LineOutput:
        return LineOutput(2, "stderr", self._tell)
