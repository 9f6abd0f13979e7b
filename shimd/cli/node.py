"""``shimd install``, ``uninstall`` and ``doctor``."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from shimd.cli import render, words
from shimd.cli.plain import document
from shimd.engines.registry import engine_names
from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.node import changes, doctor, leftovers, stop, systemd
from shimd.node.changes import Change
from shimd.node.install import Node, NodePlan, install, uninstall
from shimd.node.leftovers import Left
from shimd.node.old import old
from shimd.node.tasks import daemon

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def do_install(node: Node, dry_run: bool, restart: bool) -> None:
    """Set the node up, or show how it would be; restart containerd if that is wanted.

    :raises ShimdError: it failed, and all is as it was
    """
    _refuse_restart(node, restart)
    plan = install(node)
    configuration = changes.needed(plan.configuration)
    todo = [*changes.needed(plan.changes), *configuration]
    if dry_run:
        _show(todo, _would_restart(plan, restart))
        return
    if node.has_systemd:
        with plan.restarted(), _checked(plan, todo) as unchecked, systemd.enabled():
            if restart:
                plan.restart()
        _tell(todo, *plan.notes, *unchecked, then=_restarted(plan, restart))
    else:
        with _checked(plan, todo) as unchecked:
            _tell(todo, *plan.notes, *unchecked)
        _say("no systemd here: the first launcher starts the daemon")
    _tell_of_restart(configuration, restart)
    if node.is_this_machine and any(one.restart for one in old(daemon())):
        _say("what runs of shimd is of another release: shimd upgrade")


def do_uninstall(node: Node, dry_run: bool, restart: bool, force: bool = False, purge: bool = False) -> None:
    """Undo ``shimd install``: containerd's configuration first, so that nothing new starts. The launchers last, since
    containerd needs them for what is ended.

    :param purge: whether what else there is of shimd goes, too; else it is named
    :raises ShimdError: there are tasks, and all is as it was; or something cannot be ended, or purged
    """
    _refuse_restart(node, restart)
    everything = set(node.runtimes) >= set(engine_names())
    if purge and not everything:
        raise InvalidArgument("--purge is of all that there is of shimd: leave --runtime out")
    plan = uninstall(node)
    configuration, rest = changes.needed(plan.configuration), changes.needed(plan.changes)
    whole = node.is_this_machine and everything
    if whole and not force:
        stop.refuse_tasks("shimd uninstall")
    left = leftovers.left(plan, daemon() if whole else None) if everything else []
    if dry_run:
        _show([*configuration, *rest], [*_would_restart(plan, restart), *_would_leave(left, purge)])
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
            _say(*_restarted(plan, restart))
    _tell_of_restart(configuration, restart)
    _tell_of_left(left, purge)
    if whole:
        _say(f"left is the package itself: {sys.executable} -m pip uninstall shimd")


def _would_leave(left: Sequence[Left], purge: bool) -> list[str]:
    return [f"{'remove' if purge and one.remove else 'leave'} {one}" for one in left]


def _tell_of_left(left: Sequence[Left], purge: bool) -> None:
    """And remove it, if that is wanted."""
    for one in left:
        if purge and one.remove is not None:
            one.purge()
            _say(f"removed {one}")
        else:
            _say(f"left {one}")
    if not purge and any(one.remove is not None for one in left):
        _say("shimd uninstall --purge removes what is left")


@contextmanager
def _checked(plan: NodePlan, todo: list[Change]) -> Iterator[list[str]]:
    """Make the changes, if the node's containerd can then read its configuration and the block does not fail; else
    nothing."""
    with changes.applied(todo):
        unchecked = plan.verify_configuration()
        yield [unchecked] if unchecked else []


def _tell(todo: list[Change], *notes: str, done: Sequence[str] = (), then: Sequence[str] = ()) -> None:
    changed = [f"{'removed' if change.removes else 'wrote'} {change.path}" for change in todo]
    _say(*([*map(words.printable, done), *changed, *then] or ["nothing to do"]))
    for note in notes:
        click.echo(f"shimd: {note}", err=True)


def _refuse_restart(node: Node, restart: bool) -> None:
    """:raises FailedPrecondition: it is wanted, and cannot be had; nothing was changed"""
    if restart and not node.has_systemd:
        raise FailedPrecondition(
            "no systemd here that could restart containerd: leave --restart-containerd out, and do it yourself"
        )


def _would_restart(plan: NodePlan, restart: bool) -> list[str]:
    return [f"restart {plan.unit}"] if restart else []


def _restarted(plan: NodePlan, restart: bool) -> list[str]:
    return [f"restarted {plan.unit}"] if restart else []


def _tell_of_restart(configuration: Sequence[Change], restart: bool) -> None:
    if configuration and not restart:
        _say("containerd takes its new configuration when it is restarted")


def _show(todo: list[Change], more: Sequence[str] = ()) -> None:
    """Show what would be done, files as diffs."""
    text = "".join([*(change.diff() for change in todo), *(f"would {line}\n" for line in more)])
    click.echo(text or "nothing to do", nl=not text)


def _say(*lines: str) -> None:
    for line in lines:
        click.echo(line)


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
