"""Results as a table in Markdown and bars in SVG."""

from pathlib import Path
from typing import Any

REFERENCE = "runc"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def table(found: dict[str, Any]) -> str:
    machine = found["machine"]
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; ratios are against runc in the same run, interleaved. Trust the ratios, not the times.",
        f"Kernel {machine['kernel']}, Python {machine['python']}, {machine['processor']}.",
        "",
        "| Task API: create + start + wait + delete | 1 at a time, tasks/s | × runc | 8 at a time, tasks/s | × runc |",
        "|---|---|---|---|---|",
    ]
    rates, memory = found["tasks_per_second"], found["pss_mib_per_app"]
    for name, each in rates.items():
        cells = [cell for parallel in ("1", "8") for cell in _rate(each[parallel], rates[REFERENCE][parallel])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    sizes = list(memory[REFERENCE])
    lines += [
        "",
        f"| PSS per idle app, MiB | {' | '.join(f'{size} apps' for size in sizes)} |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for name, each in memory.items():
        lines.append(f"| {name} | {' | '.join(f'{each[size]:.2f}' for size in sizes)} |")
    lines += [
        "",
        "All processes are counted: supervisor, fork server, workers; for runc its shims and the app.",
        "",
        "![results](results.svg)",
        "",
    ]
    return "\n".join(lines)


def _rate(value: float, reference: float) -> tuple[str, str]:
    return f"{value:.1f}", f"{value / reference:.1f}"


def plot(found: dict[str, Any]) -> str:
    """Horizontal bars: tasks a second, 8 at a time."""
    rates = {name: each["8"] for name, each in found["tasks_per_second"].items()}
    longest = max(rates.values())
    rows = []
    for row, (name, value) in enumerate(rates.items()):
        y = 40 + row * 30
        rows.append(f'<text x="90" y="{y + 15}" text-anchor="end">{name}</text>')
        rows.append(f'<rect x="100" y="{y}" width="{400 * value / longest:.0f}" height="20" fill="#4a7ebb"/>')
        rows.append(f'<text x="{108 + 400 * value / longest:.0f}" y="{y + 15}">{value:.0f}</text>')
    height = 50 + 30 * len(rates)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{height}" font-family="sans-serif">'
        f'<text x="10" y="20">tasks a second through the Task API, 8 at a time</text>{"".join(rows)}</svg>\n'
    )
