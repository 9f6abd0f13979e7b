"""Human output: aligned tables, colours on a terminal only (and not with NO_COLOR), times as people say them."""

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shimd.api.shimd.status import v1 as api

STYLES = {
    api.State.RUNNING: "green",
    api.State.CREATED: "cyan",
    api.State.CREATING: "magenta",
    api.State.PAUSED: "yellow",
    api.State.STOPPED: "dim",
    api.State.ADDED: "dim",
}
LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}
_UNITS = (("year", 31536000), ("month", 2592000), ("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60))
#: Wide enough for any table: in a pipe nothing is cut.
_UNLIMITED = 100_000


def console(*, stderr: bool = False) -> Console:
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not found.is_terminal:
        found.width = _UNLIMITED
    return found


def printable(text: str) -> str:
    """Escape control characters: what apps and images name may not move an operator's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def duration(seconds: float) -> str:
    """Returns a time span in the largest unit that fits: ``3 minutes``."""
    whole = max(0, int(seconds))
    if whole < 1:
        return "less than a second"
    name, size = next(((name, size) for name, size in _UNITS if whole >= size), ("second", 1))
    count = whole // size
    return f"{count} {name}{'s' if count != 1 else ''}"


def since(moment: datetime | None) -> str:
    return duration((datetime.now(UTC) - moment).total_seconds()) if moment else "?"


def ago(moment: datetime | None) -> str:
    return f"{since(moment)} ago"


def stamp(moment: datetime | None) -> str:
    """Returns a stream's timestamp: the local time, to the millisecond, with its offset."""
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds") if moment else "?"


def size(count: int) -> str:
    """Returns a number of bytes as people read it: ``1.5 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Lay a table out as ``docker ps`` does; of a terminal's width the widest columns give way."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        found.add_column(head, no_wrap=True, overflow="ellipsis")
    for row in rows:
        found.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return found


def show(out: Console, item: Table | Text) -> None:
    width = shutil.get_terminal_size().columns if out.is_terminal else _UNLIMITED
    out.print(item, width=width, soft_wrap=False)
