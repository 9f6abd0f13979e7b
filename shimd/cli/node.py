"""``shimd install``, ``uninstall`` and ``doctor``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from shimd.cli import render, words
from shimd.cli.plain import document
from shimd.engines.registry import engine_names
from shimd.errors import FailedPrecondition
from shimd.node import changes, doctor, stop, systemd
from shimd.node.changes import Change
from shimd.node.install import Node, NodePlan, install, uninstall
from shimd.node.old import old
from shimd.node.tasks import daemon

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def do_install(node: Node, dry_run: bool, restart: bool) -> None:
    """Set the node up, or show how it would be; restart containerd if that is wanted.

    :raises ShimdError: it failed, and all is as it was
    """
    plan = install(node)
    todo = changes.needed([*plan.changes, *plan.configuration])
    if dry_run:
        _show(todo)
        return
    if node.has_systemd:
        with plan.restarted(), _checked(plan, todo) as unchecked, systemd.enabled():
            if restart:
                plan.restart()
        _tell(todo, *plan.notes, *unchecked)
    else:
        with _checked(plan, todo) as unchecked:
            _tell(todo, *plan.notes, *unchecked)
        _refuse_restart(restart)
        _say("no systemd here: the first launcher starts the daemon")
    if todo and not restart:
        _say("containerd takes its new configuration when it is restarted")
    if node.is_this_machine and any(one.restart for one in old(daemon())):
        _say("what runs of shimd is of another release: shimd upgrade")


def do_uninstall(node: Node, dry_run: bool, restart: bool, force: bool = False) -> None:
    """Undo ``shimd install``: containerd's configuration first, so that nothing new starts. The launchers last, since
    containerd needs them for what is ended.

    :raises ShimdError: there are tasks, and all is as it was; or something cannot be ended
    """
    plan = uninstall(node)
    configuration, rest = changes.needed(plan.configuration), changes.needed(plan.changes)
    whole = node.is_this_machine and set(node.runtimes) >= set(engine_names())
    if whole and not force:
        stop.refuse_tasks("shimd uninstall")
    if dry_run:
        _show([*configuration, *rest])
        return
    with _checked(plan, configuration) as unchecked:
        pass
    if node.has_systemd and any(change.path.name == systemd.SOCKET for change in rest):
        systemd.disable()
    ended = stop.stop(node.programs) if whole else []
    with changes.applied(rest):
        _tell([*configuration, *rest], *unchecked, done=ended)
    if whole:
        stop.clear()
    if node.has_systemd:
        systemd.reload()
        if restart:
            plan.restart()
    else:
        _refuse_restart(restart)


@contextmanager
def _checked(plan: NodePlan, todo: list[Change]) -> Iterator[list[str]]:
    """Make the changes, if the node's containerd can then read its configuration and the block does not fail; else
    nothing."""
    with changes.applied(todo):
        unchecked = plan.verify_configuration()
        yield [unchecked] if unchecked else []


def _tell(todo: list[Change], *notes: str, done: Sequence[str] = ()) -> None:
    for line in done:
        _say(words.printable(line))
    for change in todo:
        _say(f"{'removed' if change.removes else 'wrote'} {change.path}")
    if not todo and not done:
        _say("nothing to do")
    for note in notes:
        click.echo(f"shimd: {note}", err=True)


def _refuse_restart(restart: bool) -> None:
    if restart:
        raise FailedPrecondition("no systemd here that could restart containerd: do it yourself")


def _show(todo: list[Change]) -> None:
    click.echo("".join(change.diff() for change in todo) or "nothing to do", nl=not todo)


def _say(text: str) -> None:
    click.echo(text)


def do_doctor(as_json: bool) -> int:
    """Print all findings; returns the exit code: 1 if there is a problem."""
    findings = doctor.examine()
    if as_json:
        document([asdict(finding) for finding in findings])
    else:
        _print(render.console(), findings)
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def _print(out: Console, findings: list[doctor.Finding]) -> None:
    for finding in findings:
        mark = {"ok": "✓", "warning": "!", "problem": "✗"}[finding.level]
        text = Text.assemble((f"{mark} ", _STYLES[finding.level]), (finding.subject, "bold"), f": {finding.found}")
        out.print(text)
        if finding.remedy:
            out.print(Text(f"    → {finding.remedy}", "dim"))
