"""Human output: aligned tables, colours on a terminal only (and not with NO_COLOR)."""

import shutil
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shimd.api.shimd.status import v1 as api
from shimd.cli.words import printable

STYLES = {
    api.State.RUNNING: "green",
    api.State.CREATED: "cyan",
    api.State.CREATING: "magenta",
    api.State.PAUSED: "yellow",
    api.State.STOPPED: "dim",
    api.State.ADDED: "dim",
}
LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}
#: Wide enough for any table: in a pipe nothing is cut.
_UNLIMITED = 100_000


def console(*, stderr: bool = False) -> Console:
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not found.is_terminal:
        found.width = _UNLIMITED
    return found


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
