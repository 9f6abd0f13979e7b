"""The suite's guard: a process that is sealed (``shimd/seal.py``) neither imports nor looks for files of ours.

Every interpreter of the tests' environment loads it (by a ``.pth`` file, which :func:`install` writes); it is at work
where ``SHIMD_TEST_AUDIT`` names a file. That file is mapped when the interpreter starts, so that a process reaches it
wherever it goes: no descriptor, no path and no privilege is needed to note what was done too late.

It imports nothing of ours, as it must not change what is loaded.
"""

import mmap
import os
import sys
from pathlib import Path

NAME = "SHIMD_TEST_AUDIT"
#: This environment, its interpreter's library and the project's tree: what a sealed process has no business with.
_OURS = (sys.prefix + "/", os.path.dirname(os.__file__) + "/", __file__.removesuffix("tests/e2e/audit.py"))
_SLOT = 512
_SLOTS = 128


def prepare(path: Path) -> None:
    """An empty record."""
    path.write_bytes(bytes(_SLOT * _SLOTS))


def noted(path: Path) -> list[str]:
    """What sealed processes have done that they must not."""
    data = path.read_bytes()
    slots = (data[at : at + _SLOT].rstrip(b"\0") for at in range(0, len(data), _SLOT))
    return [slot.decode(errors="replace") for slot in slots if slot]


def check(path: Path) -> None:
    """:raises AssertionError: with what was noted"""
    if found := noted(path):
        raise AssertionError("done by a process that is sealed:\n" + "\n".join(found))


def install() -> None:
    """Have the interpreters of this environment load this module."""
    import sysconfig

    names = {"__name__": "audit", "__file__": __file__}
    run = f"exec(compile(open({__file__!r}).read(), {__file__!r}, 'exec'), {names!r})"
    line = f"import os; {NAME!r} in os.environ and {run}\n"
    path = Path(sysconfig.get_path("purelib"), "shimd_test_audit.pth")
    if not path.exists() or path.read_text() != line:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(line)
        unfinished.replace(path)


class _Guard:
    def __init__(self, record: mmap.mmap) -> None:
        self._record = record
        self._stage = ""

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "shimd.seal":
            self._stage = str(arguments[0])
        elif self._stage and (what := _too_late(event, arguments)):
            self._note(f"after {self._stage}, pid {os.getpid()}: {event} {what}")
            raise RuntimeError(f"{event} {what} after {self._stage}")

    def _note(self, text: str) -> None:
        """One slot a process, the first free one from its own on: processes may note at the same time."""
        data = text.encode()[:_SLOT]
        for offset in range(_SLOTS):
            at = (os.getpid() + offset) % _SLOTS * _SLOT
            if not self._record[at]:
                self._record[at : at + len(data)] = data
                return


def _too_late(event: str, arguments: tuple[object, ...]) -> str:
    if event == "import":
        name = str(arguments[0])
        return "" if name in sys.modules else name  # there as None: it is known to be missing
    if event in ("open", "os.listdir", "os.scandir", "ctypes.dlopen"):
        path = arguments[0]
        if isinstance(path, str | bytes) and f"{os.fsdecode(path)}/".startswith(_OURS):
            return os.fsdecode(path)
    return ""


if __name__ == "audit" and os.environ.get(NAME):
    try:
        with open(os.environ[NAME], "r+b") as file:
            sys.addaudithook(_Guard(mmap.mmap(file.fileno(), _SLOT * _SLOTS)))
    except OSError:  # it has ended, and the test with it
        pass
