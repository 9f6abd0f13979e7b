"""``shimd logs``: what an app wrote where shimd can see it, and the daemon's own log."""

import sys
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import anyio
from rich.text import Text

from shimd.api.shimd.status.v1 import (
    EventsRequest,
    LogRecord,
    LogsRequest,
    Process,
    State,
    StatusStub,
    Task,
    TasksRequest,
)
from shimd.cli import render, words
from shimd.cli.plain import line, plain
from shimd.errors import InvalidArgument, NotFound, from_os
from shimd.status_client import connected, streamed

#: Seconds between looks at a file that is followed.
_PAUSE = 0.2


class LogsOptions(NamedTuple):
    follow: bool
    tail: int
    as_json: bool


def main(id: str, follow: bool, tail: int, namespace: str, as_json: bool) -> None:
    anyio.run(_show, id, namespace, LogsOptions(follow, tail, as_json))


async def _show(id: str, namespace: str, options: LogsOptions) -> None:
    async with connected() as stub:
        task = await find(stub, id, namespace) if id else None
        outputs = _files(task) if task else []
        if task and outputs:
            await _show_app(stub, task, outputs, options)
            return
        if task:
            _say_where(task)
        shown = await _show_daemon(stub, task.id if task else id, options)
        if id and not task and not shown:
            raise NotFound(f"no task is called {id}, and the daemon's log does not name it")


async def find(stub: StatusStub, id: str, namespace: str) -> Task | None:
    """Find the task whose id is ``id``, or else begins with it.

    :raises InvalidArgument: several do
    """
    tasks = (await stub.tasks(TasksRequest(id=id, namespace=namespace))).tasks
    found = [task for task in tasks if task.id == id] or tasks
    if len(found) > 1:
        names = ", ".join(f"{task.namespace}/{task.id}" for task in found)
        raise InvalidArgument(f"{id} is not unique: {names}; give more of it, or --namespace")
    return found[0] if found else None


# The app's output


class Output(NamedTuple):
    stream: str
    path: Path


def _files(task: Task) -> list[Output]:
    """Returns a task's ``file://`` logs; standard error only if it is not in the same file."""
    init = task.init or Process()
    named = {name: stream for stream, name in (("stderr", init.stderr), ("stdout", init.stdout))}
    files = [Output(stream, Path(urlsplit(name).path)) for name, stream in named.items() if name.startswith("file:")]
    return sorted(files, key=lambda output: output.stream, reverse=True)


def _say_where(task: Task) -> None:
    """Print where the output is, and how to see it, if it went somewhere that is not ours to read."""
    init = task.init or Process()
    scheme = urlsplit(init.stdout).scheme
    if not init.stdout:
        where = "is not kept: whoever created it named no output"
    elif scheme == "binary":
        where = f"goes to its logging program, {urlsplit(init.stdout).path}"
    elif task.pod:
        pod = task.pod
        where = f"is with containerd: crictl logs {task.id[:12]}, or kubectl logs -n {pod.namespace} {pod.name}"
        where += f" -c {pod.container}" if pod.container else ""
    else:
        where = f"is with whoever ran it; to join: ctr -n {task.namespace} tasks attach {task.id}"
    text = f"the output of {task.id} {where}\nWhat the daemon logged about it:"
    render.console(stderr=True).print(Text(words.printable_lines(text), "dim"))


async def _show_app(stub: StatusStub, task: Task, outputs: list[Output], options: LogsOptions) -> None:
    ended = anyio.Event()
    with ExitStack() as stack:
        files = [(output.stream, _open(output.path, stack)) for output in outputs]
        for stream, file in files:
            _print_app(stream, deque(file, options.tail) if options.tail else file, options)
        if not options.follow or task.init is None or task.init.state == State.STOPPED:
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_wait_exit, stub, task, ended)
            await _follow(files, ended, options)
            tasks.cancel_scope.cancel()


def _open(path: Path, stack: ExitStack) -> BinaryIO:
    try:
        return stack.enter_context(open(path, "rb"))
    except OSError as error:
        raise from_os(error) from None


async def _follow(files: list[tuple[str, BinaryIO]], ended: anyio.Event, options: LogsOptions) -> None:
    while True:
        last = ended.is_set()  # what was written before the exit is still to be read
        for stream, file in files:
            _print_app(stream, file, options)
        if last:
            return
        await anyio.sleep(_PAUSE)


def _print_app(stream: str, lines: Iterable[bytes], options: LogsOptions) -> None:
    """Print an app's output as it is, like ``cat``: it was meant for a terminal."""
    target = sys.stderr.buffer if stream == "stderr" else sys.stdout.buffer
    for text in lines:
        if options.as_json:
            line(_record(stream, text.decode(errors="replace").rstrip("\n")))
        else:
            target.write(text)
    target.flush()


async def _wait_exit(stub: StatusStub, task: Task, ended: anyio.Event) -> None:
    """Set ``ended`` when the task's init has exited; also if it did before this was called."""
    assert task.init is not None and task.init.created_at is not None
    request = EventsRequest(container_id=task.id, namespace=task.namespace, follow=True)
    async with streamed(stub.events(request)) as events:
        async for event in events:
            ours = event.time is not None and event.time >= task.init.created_at  # not an earlier one's of that name
            if event.topic == "/tasks/exit" and not event.exec_id and ours:
                ended.set()
                return


# The daemon's


async def _show_daemon(stub: StatusStub, container: str, options: LogsOptions) -> int:
    """Print the daemon's lines (about a container, or all); returns how many there were."""
    request = LogsRequest(container_id=container, follow=options.follow, last=options.tail)
    out, count = render.console(), 0
    async with streamed(stub.logs(request)) as records:
        async for record in records:
            count += 1
            if options.as_json:
                line({**_record("daemon", record.message), **plain(record)})
            else:
                out.print(_words(record))
    return count


def _record(source: str, message: str) -> dict[str, object]:
    return {"source": source, "time": None, "level": None, "message": message, "lost": 0}


def _words(record: LogRecord) -> Text:
    lost = f"… {words.plural(record.lost, 'line')} lost …\n" if record.lost else ""
    return Text.assemble(
        (lost, "yellow"),
        (words.stamp(record.time), "dim"),
        (f" {record.level:<7} ", render.LEVELS.get(record.level, "")),
        words.printable_lines(record.message),
    )
