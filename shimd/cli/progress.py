"""What a terminal shows while something takes long. A module of its own: only who waits for it pays for loading it."""

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shimd.cli.render import console


def progress(what: str) -> Progress:
    """Says on stderr what is done, and for how long, while it is entered."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    found = Progress(*columns, console=console(stderr=True), transient=True)
    found.add_task(what, total=None)
    return found
