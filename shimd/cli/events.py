"""``shimd events``: what was published to containerd, in its order."""

import anyio
from rich.text import Text

from shimd.api.shimd.status.v1 import Event, EventsRequest
from shimd.cli import render, words
from shimd.cli.plain import line, plain
from shimd.status_client import connected, streamed


def main(container: str, follow: bool, tail: int, namespace: str, as_json: bool) -> None:
    request = EventsRequest(container_id=container, follow=follow, last=tail, namespace=namespace)
    if not anyio.run(_show, request, as_json) and not as_json:
        render.console(stderr=True).print("no events yet")


async def _show(request: EventsRequest, as_json: bool) -> int:
    """Print each event as it comes; returns how many came."""
    out, count = render.console(), 0
    async with connected() as stub, streamed(stub.events(request)) as events:
        async for event in events:
            count += 1
            if as_json:
                line(plain(event))
            else:
                out.print(_words(event))
    return count


def _words(event: Event) -> Text:
    more = {
        "exec": event.exec_id,
        "pid": str(event.pid or ""),
        "exit_status": "" if event.exit_status is None else str(event.exit_status),
        "lost_before": str(event.lost or ""),
    }
    details = " ".join(f"{name}={words.printable(value)}" for name, value in more.items() if value)
    return Text.assemble(
        (words.stamp(event.time), "dim"),
        f" {words.printable(event.namespace)} ",
        (f"{event.topic:<20}", "cyan"),
        f" {words.printable(event.container_id)} ",
        (details, "dim"),
    )
