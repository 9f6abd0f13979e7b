"""A share of the processors' time like a container's, for what is measured beside containers.

In the root cgroup each thread has as much as a container has altogether; and more, if its nice value is below 0.
"""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_numbers = itertools.count()


@contextmanager
def share() -> Iterator[Sequence[str]]:
    """What goes before a command line that is to have its own; its processes end with the block."""
    version_1 = _CGROUPS / "cpu"
    directory = (version_1 if version_1.is_dir() else _CGROUPS) / f"bench-share-{os.getpid()}-{next(_numbers)}"
    directory.mkdir()
    try:
        yield ("/bin/sh", "-c", f'echo $$ > {directory}/cgroup.procs && exec "$@"', "sh")
    finally:
        for _ in range(100):
            with suppress(OSError):  # the last process is not quite gone
                directory.rmdir()
                break
            time.sleep(0.01)
