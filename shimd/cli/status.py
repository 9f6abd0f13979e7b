"""``shimd status``: the daemon at a glance, as ``systemctl status`` shows a unit."""

from dataclasses import asdict
from typing import NamedTuple

import anyio
from rich.console import Console
from rich.text import Text

from shimd import release
from shimd.api.shimd.status.v1 import Compilation, DaemonResponse, Engine
from shimd.cli import render, words
from shimd.cli.plain import document, plain
from shimd.node.old import Old, old
from shimd.status_client import connected


def main(as_json: bool) -> None:
    daemon = anyio.run(_ask)
    found = old(daemon)
    if as_json:
        document({**plain(daemon), "installed": release.installed(), "old": [asdict(one) for one in found]})
    else:
        _show(render.console(), daemon, found)


async def _ask() -> DaemonResponse:
    async with connected() as stub:
        return await stub.daemon()


def _show(out: Console, daemon: DaemonResponse, found: list[Old]) -> None:
    out.print(Text.assemble(("● ", "green"), (f"shimd {daemon.version}", "bold"), f", pid {daemon.pid}"))
    for one in found:
        out.print(Text.assemble(("! ", "yellow"), f"{one}; {release.installed()} is installed"))
        out.print(Text(f"    → {one.remedy}", "dim"))
    for name, value in _facts(daemon):
        out.print(Text.assemble((f"{name:>9}: ", "dim"), words.printable(value)))
    for section in (_engines(daemon), _fork_servers(daemon), _endpoints(daemon)):
        if section.rows:
            out.print()
            render.show(out, render.table(section.heads, section.rows))


def _facts(daemon: DaemonResponse) -> list[tuple[str, str]]:
    return [
        ("Release", daemon.release),
        ("Started", f"{words.stamp(daemon.started_at)} ({words.ago(daemon.started_at)})"),
        ("Memory", f"{words.size(daemon.memory)} (the daemon alone)"),
        ("Tasks", _counts(daemon)),
        ("Runtime", daemon.runtime_dir),
        ("State", daemon.state_dir),
        ("Cache", f"{daemon.cache_dir} ({_cache(daemon)})"),
        *(("Compiling", _compilation(item)) for item in daemon.compiling),
    ]


def _compilation(item: Compilation) -> str:
    state = "in the queue" if item.queued else "compiling"
    wanted = ", ".join(item.containers) or "nobody any more"
    program = f"{item.program} for {item.engine} ({words.size(item.size)})"
    return f"{program}, {state} for {words.since(item.started_at)}, awaited by {wanted}"


def _counts(daemon: DaemonResponse) -> str:
    names = ("running", "created", "paused", "stopped")
    counts = [(getattr(daemon.tasks, name), name) for name in names]
    return ", ".join(f"{count} {name}" for count, name in counts if count) or "none"


def _cache(daemon: DaemonResponse) -> str:
    if daemon.cache is None or not daemon.cache.modules:
        return "empty"
    return f"{words.plural(daemon.cache.modules, 'module')}, {words.size(daemon.cache.size)}"


class Section(NamedTuple):
    heads: list[str]
    rows: list[list[str | Text]]


def _engines(daemon: DaemonResponse) -> Section:
    rows: list[list[str | Text]] = [[e.name, e.version or "–", _fork_server(e)] for e in daemon.engines]
    return Section(["ENGINE", "VERSION", "FORK SERVER"], rows)


def _fork_server(engine: Engine) -> str | Text:
    if engine.error:
        return Text(words.printable(engine.error), "red")
    return f"pid {engine.fork_server_pid}" if engine.fork_server_pid else Text("not started", "dim")


def _fork_servers(daemon: DaemonResponse) -> Section:
    rows: list[list[str | Text]] = [
        [
            one.engine,
            str(one.pid),
            one.version or "–",
            str(one.workers),
            Text("leaves with its last app", "yellow") if one.retiring else "takes new apps",
        ]
        for one in daemon.fork_servers
    ]
    return Section(["FORK SERVER OF", "PID", "VERSION", "WORKERS", "STATE"], rows)


def _endpoints(daemon: DaemonResponse) -> Section:
    queued = {item.events_address: item.events_queued for item in daemon.containerds}
    rows: list[list[str | Text]] = [
        [e.events_address or "–", e.namespace, e.engine, str(e.tasks), _queued(queued.get(e.events_address, 0))]
        for e in daemon.endpoints
    ]
    return Section(["CONTAINERD", "NAMESPACE", "ENGINE", "TASKS", "EVENTS WAITING"], rows)


def _queued(count: int) -> Text:
    """Show a number of events that wait for containerd: there are some while it is away."""
    return Text(str(count), "yellow" if count else "")
