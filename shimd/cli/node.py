"""``shimd install``, ``uninstall`` and ``doctor``."""

from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from shimd.cli import render
from shimd.cli.plain import document
from shimd.errors import FailedPrecondition
from shimd.node import changes, doctor
from shimd.node.changes import Change
from shimd.node.install import Node, disable, enable, install, reload, restart_service, service, uninstall

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def do_install(node: Node, dry_run: bool, restart: bool) -> None:
    todo = changes.needed(install(node))
    if dry_run:
        _show(todo)
        return
    _apply(todo)
    if node.has_systemd:
        enable()
        if restart:
            restart_service(service(node))
    else:
        _refuse_restart(restart)
        _say("no systemd here: the first launcher starts the daemon")
    if todo and not restart:
        _say("containerd takes its new configuration when it is restarted")


def do_uninstall(node: Node, dry_run: bool, restart: bool) -> None:
    todo = changes.needed(uninstall(node))
    if dry_run:
        _show(todo)
        return
    if node.has_systemd and any(change.path.name == "shimd.socket" for change in todo):
        disable()
    _apply(todo)
    if node.has_systemd:
        reload()
        if restart:
            restart_service(service(node))
    else:
        _refuse_restart(restart)


def _refuse_restart(restart: bool) -> None:
    if restart:
        raise FailedPrecondition("no systemd here that could restart containerd: do it yourself")


def _apply(todo: list[Change]) -> None:
    for change in todo:
        change.apply()
        verb = "removed" if change.text is None and change.link is None else "wrote"
        _say(f"{verb} {change.path}")
    if not todo:
        _say("nothing to do")


def _show(todo: list[Change]) -> None:
    click.echo("".join(change.diff() for change in todo) or "nothing to do", nl=not todo)


def _say(text: str) -> None:
    click.echo(text)


def do_doctor(as_json: bool) -> int:
    """The exit code: 1 if there is a problem."""
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
