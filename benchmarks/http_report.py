"""What benchmarks.http found, as tables in Markdown and bars in SVG."""

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.report import picture

OURS = "shimd"
_ABOUT = """\
# HTTP apps beside other servers

Made by `python -m benchmarks.http`; the servers of a component take turns in one run, so trust ratios, not times.
Kernel {kernel}, Python {python}, {processor}.
Loopback; the load generator (`wrk`, one thread) shares the machine's processors with all.
Each server, and the generator, has a cgroup with the processors' time of a container: in the root cgroup it would have
more.
Each cell: requests a second, the median of {rounds} rounds of {seconds} s; what shimd's are to that; milliseconds of
the median answer, and of the one of a hundred that takes longest."""


def table(found: dict[str, Any]) -> str:
    about = _ABOUT.format(**found["machine"], rounds=found["rounds"], seconds=found["seconds"])
    return "\n".join(
        [
            about,
            "",
            *_rates(found["points"]),
            *_starts(found["starts"]),
            *_memory(found["memory"]),
            *_left_out(found["left_out"]),
        ]
    )


def _rates(points: list[dict[str, Any]]) -> Iterator[str]:
    for guest in dict.fromkeys(point["guest"] for point in points):
        of_guest = [point for point in points if point["guest"] == guest]
        names = list(dict.fromkeys(point["server"] for point in of_guest))
        yield f"## {guest}"
        yield ""
        yield f"| | connections | {' | '.join(names)} |"
        yield "|---" * (len(names) + 2) + "|"
        for work, connections in dict.fromkeys((point["work"], point["connections"]) for point in of_guest):
            row = {it["server"]: it for it in of_guest if (it["work"], it["connections"]) == (work, connections)}
            cells = [_cell(row.get(name), row.get(OURS)) for name in names]
            yield f"| {work} | {connections} | {' | '.join(cells)} |"
        yield ""


def _cell(point: dict[str, Any] | None, ours: dict[str, Any] | None) -> str:
    if point is None:
        return "–"
    rounds = [load["latencies"] for load in point["loads"]]
    median, _ninety, last = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = f" (× {ours['rate'] / point['rate']:.2f})" if ours and ours is not point else ""
    return f"{point['rate']:,.0f}{ratio}; {median:.2f}, {last:.2f}"


def _starts(starts: dict[str, dict[str, Any]]) -> Iterator[str]:
    if not starts:
        return
    yield "## Start"
    yield ""
    yield "Milliseconds after `ctr run -d`, medians: to the first answer, and to what a command says."
    yield ""
    yield "| | first answer | a command's first words | × |"
    yield "|---|---|---|---|"
    for name, each in starts.items():
        words = each["words"]
        said, ratio = ("–", "–") if words is None else (f"{words:.0f}", f"{each['answer'] / words:.2f}")
        yield f"| {name} | {each['answer']:.0f} | {said} | {ratio} |"
    yield ""


def _memory(memory: dict[str, dict[str, float]]) -> Iterator[str]:
    if not memory:
        return
    yield "## Memory"
    yield ""
    yield "MiB of proportional set size per app, of ten of the first component, and of thirty; all processes counted."
    yield ""
    yield "| | idle, never asked | idle, after a request | after load | of thirty, idle, after a request |"
    yield "|---|---|---|---|---|"
    for name, each in memory.items():
        values = [each[key] for key in ("idle", "answered", "loaded", "of_many")]
        yield f"| {name} | {' | '.join(f'{it:.1f}' for it in values)} |"
    yield ""


def _left_out(left_out: dict[str, str]) -> Iterator[str]:
    if left_out:
        yield "Left out:"
        yield ""
        yield from (f"- {name}: {' '.join(reason.split())[:200]}" for name, reason in left_out.items())
        yield ""
    yield "![requests a second](http.svg)"
    yield ""


def plot(found: dict[str, Any]) -> str:
    """Bars of each component's first work, a group for each number of connections."""
    points = found["points"]
    groups = []
    for guest in dict.fromkeys(point["guest"] for point in points):
        first = next(point["work"] for point in points if point["guest"] == guest)
        of_guest = [point for point in points if (point["guest"], point["work"]) == (guest, first)]
        for connections in dict.fromkeys(point["connections"] for point in of_guest):
            rates = {it["server"]: it["rate"] for it in of_guest if it["connections"] == connections}
            groups.append((f"{guest}, {first}, {connections} connections: requests a second", rates))
    memory = {name: each["answered"] for name, each in found["memory"].items()}
    if memory:
        groups.append(("MiB per idle app, of ten (less is better)", memory))
    return picture(groups, ours=lambda name: name.startswith(OURS))
