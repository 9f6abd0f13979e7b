"""Values as people read them: names, times and sizes."""

from datetime import UTC, datetime

_UNITS = (("year", 31536000), ("month", 2592000), ("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60))


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
