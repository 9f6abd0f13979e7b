"""Logging: one line per event on stderr, which systemd's journal or ``shimd.log`` keeps."""

import logging
import os
import sys


def logger(name: str) -> logging.Logger:
    return logging.getLogger(name)


def configure(level: str = "") -> None:
    """Log to stderr at ``level``, or ``SHIMD_LOG``'s, or info. A journal behind it adds timestamps of its own."""
    wanted = (level or os.environ.get("SHIMD_LOG") or "info").upper()
    known = wanted in logging.getLevelNamesMapping()
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(
        stream=sys.stderr,
        level=wanted if known else "INFO",
        format=f"{stamp}%(levelname)s %(message)s",
    )
    if not known:
        logger(__name__).warning("there is no level %s (SHIMD_LOG): debug, info, warning or error; info it is", wanted)
