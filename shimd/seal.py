"""The seal: from here on this process imports nothing.

A process that gives up its sight of the node's files (a worker, the jailer, a compile worker) has loaded and opened
all that it will use before. An import that comes later depends on what it still happens to see: it fails where shimd
or the interpreter is below a directory that nobody may enter, and in a container it would find files of the image's,
which are not ours to execute. So it is an error everywhere, and names the module.
"""

import sys
from typing import NoReturn

#: Raised for :func:`sys.addaudithook`, with the stage: the suite's guard begins there (``tests/e2e/audit.py``).
EVENT = "shimd.seal"


class _Seal:
    """A finder of modules that finds none."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> NoReturn:
        """:raises ImportError: always"""
        raise ImportError(f"the module {name} is imported after {self._stage}: it has to be loaded before", name=name)


def seal(stage: str) -> None:
    """Let no module be imported any more in this process and those that it forks; what is loaded stays.

    :param stage: what begins now, as a noun, for the error's sentence
    """
    sys.meta_path[:] = [_Seal(stage)]
    sys.audit(EVENT, stage)
