"""This process, short of something."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_descriptors(left: int = 0) -> Iterator[None]:
    """With no more than so many that can be opened: all that are open stay so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(2) for _ in range(left)]
    lowest = os.dup(2)
    for fd in (*taken, lowest):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
