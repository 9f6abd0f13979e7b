"""``shimd ps``: the tasks, as ``docker ps`` shows containers."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio
from rich.text import Text

from shimd.api.shimd.status.v1 import Process, State, Task, TasksRequest
from shimd.cli import render, words
from shimd.cli.plain import document, plain
from shimd.status_client import connected

#: Kubernetes' ids; docker shows as much of them.
_LONG_ID = re.compile(r"[0-9a-f]{64}")
_SHORT = 12


class PsOptions(NamedTuple):
    everything: bool
    quiet: bool
    usage: bool
    no_trunc: bool
    namespace: str
    as_json: bool


def main(options: PsOptions) -> None:
    found = anyio.run(_ask, options)
    tasks = [task for task in found if options.everything or not _stopped(task)]
    if options.as_json:
        document([plain(task) for task in tasks])
    elif options.quiet:
        print("".join(f"{_id(task, options.no_trunc)}\n" for task in tasks), end="")
    elif not tasks:
        _nothing(len(found))
    else:
        out = render.console()
        columns = _columns(tasks, options)
        rows = [[column.cell(task) for column in columns] for task in tasks]
        render.show(out, render.table([column.head for column in columns], rows))


async def _ask(options: PsOptions) -> list[Task]:
    async with connected() as stub:
        response = await stub.tasks(TasksRequest(namespace=options.namespace, usage=options.usage))
    return response.tasks


def _nothing(hidden: int) -> None:
    more = f" ({words.plural(hidden, 'task')} exited: shimd ps --all)" if hidden else ""
    render.console(stderr=True).print(f"no tasks are running{more}")


class Column(NamedTuple):
    head: str
    cell: Callable[[Task], str | Text]


def _columns(tasks: Sequence[Task], options: PsOptions) -> list[Column]:
    """Returns the columns that have something to show: pods and images if containerd names any, execs if there are
    any."""
    columns: list[tuple[object, Column]] = [
        (True, Column("ID", lambda task: _id(task, options.no_trunc))),
        (True, Column("NAMESPACE", lambda task: task.namespace)),
        (any(task.pod for task in tasks), Column("POD", _pod)),
        (any(task.image for task in tasks), Column("IMAGE", lambda task: task.image)),
        (True, Column("ENGINE", lambda task: task.engine)),
        (True, Column("PROGRAM", lambda task: _init(task).args[0] if _init(task).args else "")),
        (True, Column("STATUS", lambda task: _status(_init(task)))),
        (True, Column("PID", lambda task: "–" if _stopped(task) else str(_init(task).pid or "–"))),
        (any(task.execs for task in tasks), Column("EXECS", lambda task: str(len(task.execs)))),
        (options.usage, Column("MEMORY", _memory)),
        (options.usage, Column("CPU", _cpu)),
    ]
    return [column for shown, column in columns if shown]


def _init(task: Task) -> Process:
    return task.init or Process()


def _stopped(task: Task) -> bool:
    return _init(task).state == State.STOPPED


def _id(task: Task, whole: bool) -> str:
    return task.id if whole or not _LONG_ID.fullmatch(task.id) else task.id[:_SHORT]


def _pod(task: Task) -> str:
    return f"{task.pod.namespace}/{task.pod.name}/{task.pod.container}".rstrip("/") if task.pod else ""


def _status(process: Process) -> Text:
    return Text(_status_words(process), render.STYLES.get(process.state, ""))


def _status_words(process: Process) -> str:
    match process.state:
        case State.RUNNING:
            return f"Up {words.since(process.started_at)}"
        case State.PAUSED:
            return f"Up {words.since(process.started_at)} (paused)"
        case State.STOPPED:
            return f"Exited ({process.exit_status}) {words.ago(process.exited_at)}"
        case State.CREATING:
            return f"Compiling for {words.since(process.created_at)}"
        case _:
            return f"Created {words.ago(process.created_at)}"


def _memory(task: Task) -> str:
    usage = task.usage
    if usage is None:
        return "–"
    limit = f" / {words.size(usage.memory_limit)}" if usage.memory_limit else ""
    return f"{words.size(usage.working_set)}{limit}"


def _cpu(task: Task) -> str:
    return f"{task.usage.cpu_time / 1e9:.2f} s" if task.usage else "–"
