"""Results as tables in Markdown and bars in SVG."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REFERENCE = "runc"
SOAK = [
    "`make soak`: 10,000 tasks, four at a time, beside 1,000 idle apps; the first point is before the idle apps, the",
    "last after them.",
    "",
    "![soak](soak.svg)",
    "",
]
_BAR, _LEFT, _ROW = 380, 90, 24


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def table(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Made by `make bench`; ratios are against runc in the same run, interleaved: trust them, not the times.",
            f"Kernel {machine['kernel']}, Python {machine['python']}, {machine['processor']}.",
            "",
            *_rates(found["tasks_per_second"]),
            "",
            *_memory(found["pss_mib_per_app"]),
            "",
            "All processes count: supervisor, fork server and workers; for runc and crun their shims and the apps. "
            "Spin's app is a hello in Rust, Slight's one in C: servers, which have no place in the other tables.",
            "",
            *_latency(found["ctr_run_ms"], found["containerd"]),
            *(f"\nLeft out: {name}, which says: {reason}" for name, reason in found["left_out"].items()),
            "",
            "![results](results.svg)",
            "",
            *SOAK,
        ]
    )


def _rates(rates: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| Task API: create + start + wait + delete | 1 at a time, tasks/s | × runc | 8 at a time, tasks/s | × runc |",
        "|---|---|---|---|---|",
    ]
    for name, each in rates.items():
        cells = [f"{each[p]:.1f} | {each[p] / rates[REFERENCE][p]:.1f}" for p in each]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _memory(memory: dict[str, dict[str, float]]) -> list[str]:
    sizes = list(memory[REFERENCE])
    lines = [
        f"| PSS per idle app, MiB | {' | '.join(f'{size} apps' for size in sizes)} |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    return lines + [f"| {name} | {' | '.join(f'{each[s]:.2f}' for s in sizes)} |" for name, each in memory.items()]


def _latency(runs: dict[str, list[float]], containerd: str) -> list[str]:
    reference = statistics.median(runs[REFERENCE])
    lines = [f"| `ctr run --rm` ({containerd}), ms | fastest | median | runc's median / this |", "|---|---|---|---|"]
    for name, values in runs.items():
        median = statistics.median(values)
        lines.append(f"| {name} | {values[0]:.0f} | {median:.0f} | {reference / median:.2f} |")
    return lines


def plot(found: dict[str, Any]) -> str:
    """Horizontal bars, a group for each thing measured."""
    rates, memory, runs = found["tasks_per_second"], found["pss_mib_per_app"], found["ctr_run_ms"]
    most = max(memory[REFERENCE], key=int)
    groups = [
        ("tasks a second, 1 at a time (more is better)", {name: each["1"] for name, each in rates.items()}),
        ("tasks a second, 8 at a time (more is better)", {name: each["8"] for name, each in rates.items()}),
        (f"MiB per idle app, {most} apps (less is better)", {name: each[most] for name, each in memory.items()}),
        ("ctr run --rm, median ms (less is better)", {name: statistics.median(v) for name, v in runs.items()}),
    ]
    return picture(groups, ours=lambda name: name not in (REFERENCE, "crun"))


def picture(groups: Sequence[tuple[str, dict[str, float]]], ours: Callable[[str], bool]) -> str:
    """Bars under titles; those of others are grey."""
    y, parts = 10, []
    left = max(_LEFT, max((8 * len(name) for _title, values in groups for name in values), default=0))
    for title, values in groups:
        parts += _group(title, values, y, left, ours)
        y += (len(values) + 2) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" font-family="sans-serif" font-size="13">'
        f'<rect width="640" height="{y}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _group(title: str, values: dict[str, float], top: int, left: int, ours: Callable[[str], bool]) -> list[str]:
    longest = max(values.values())
    parts = [f'<text x="10" y="{top + 16}" font-weight="bold">{title}</text>']
    for row, (name, value) in enumerate(values.items(), 1):
        y, width = top + row * _ROW, _BAR * value / longest
        colour = "#4a7ebb" if ours(name) else "#999999"
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.0f}" height="{_ROW - 5}" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 8:.0f}" y="{y + 15}">{value:,.1f}</text>')
    return parts
