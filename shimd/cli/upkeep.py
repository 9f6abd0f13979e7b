"""``shimd upgrade`` and ``shimd stop``."""

import click

from shimd import release
from shimd.api.shimd.status.v1 import DaemonResponse
from shimd.cli import words
from shimd.node import stop, upgrade
from shimd.node.install import Node
from shimd.node.old import old


def do_upgrade(node: Node, dry_run: bool, force: bool) -> None:
    """Bring what runs to the installed release, and say what was old, is new, and goes on.

    :raises ShimdError: it failed, and what ran before runs
    """
    plan = upgrade.plan(node, force=force)
    if dry_run:
        _show(plan)
        return
    before = plan.daemon
    after = upgrade.upgrade(plan)
    for change in plan.changes:
        click.echo(f"wrote {change.path}")
    if after is None:
        click.echo(f"no daemon runs, and none is needed; the next one is of {release.installed()}")
        return
    if not plan.restart:
        click.echo(f"the daemon, pid {after.pid}, is of {after.release}, as is installed")
    else:
        was = f"was of {before.release or before.version}, pid {before.pid}" if before is not None else "did not run"
        click.echo(f"the daemon {was}; now it is of {after.release}, pid {after.pid}")
        click.echo(f"tasks that go on: {_count(after)}")
    for one in old(after):
        click.echo(f"{one}: {one.remedy}")


def _count(daemon: DaemonResponse) -> int:
    return sum(endpoint.tasks for endpoint in daemon.endpoints)


def _show(plan: upgrade.UpgradePlan) -> None:
    text = "".join(change.diff() for change in plan.changes)
    text += "".join(f"{one}: {one.remedy}\n" for one in plan.old)
    text += f"the daemon would be replaced by one of {release.installed()}\n" if plan.restart else ""
    click.echo(text or "nothing to do", nl=not text)


def do_stop(node: Node, force: bool) -> None:
    """End all of shimd that runs.

    :raises ShimdError: there are tasks, or a process does not end
    """
    if not force:
        stop.refuse_tasks("shimd stop")
    said = stop.stop(node.programs)
    for line in said:
        click.echo(words.printable(line))
    if not said:
        click.echo("nothing of shimd runs")
