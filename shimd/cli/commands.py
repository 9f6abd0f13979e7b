"""The commands and their options. What they do stands in modules of their own, imported when one runs."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import shimd
from shimd import paths
from shimd.errors import FailedPrecondition, NoDaemon, in_go
from shimd.remedies import cause, told

#: Exit codes: docs/commands.md.
FAILED, WRONG_ARGUMENTS, NO_DAEMON, INTERRUPTED = 1, 2, 3, 130


class Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are written here

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # the way to end what follows
            ctx.exit(INTERRUPTED)


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code. Whatever it fails with is one line on stderr, and is so here."""
    try:
        code = cli.main(list(arguments), prog_name="shimd", standalone_mode=False)
        sys.stdout.flush()  # a disk that is full is told of as all else is
        return code or 0
    except click.UsageError as error:
        help = f"{error.ctx.command_path if error.ctx else 'shimd'} --help"
        return _failed(f"{in_go(error.format_message()).rstrip('.')}; try: {help}", WRONG_ARGUMENTS)
    except click.Abort:
        return INTERRUPTED
    except Exception as error:
        said = told(error, " ".join(arguments[:1]))
        if said is None:  # a bug of ours: where it is tells more than a sentence
            raise
        _give_up_output()
        return _failed(said, NO_DAEMON if isinstance(cause(error), NoDaemon) else FAILED)


def _give_up_output() -> None:
    """What cannot be written is not tried again at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(said: str, code: int) -> int:
    click.echo(f"shimd: {' '.join(said.split())}", err=True)
    return code


@click.group(cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(shimd.__version__, message="shimd %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """WebAssembly apps under containerd."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(WRONG_ARGUMENTS)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
json_lines_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
namespace_option = click.option("-n", "--namespace", default="", help="Only this containerd namespace.")
follow_option = click.option("-f", "--follow", is_flag=True, help="Go on with what is to come, until Ctrl-C.")


@cli.command()
def serve() -> None:
    """Run the daemon, until TERM or INT.

    It serves the tasks of every containerd on this node that calls its launchers. They start it when it does not run;
    so does systemd with shimd.socket. Apps go on when it ends.

    SHIMD_RUNTIME_DIR, SHIMD_STATE_DIR and SHIMD_CACHE_DIR say where it keeps its files, SHIMD_LOG how much it tells
    (debug, info, warning, error).
    """
    from shimd.supervisor.serve import main

    raise SystemExit(main())


@cli.command()
@json_option
def status(as_json: bool) -> None:
    """Show the daemon: engines, containerds, task counts, module cache.

    Exits with 3 if no daemon runs.
    """
    from shimd.cli import status

    status.main(as_json)


@cli.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have exited and are not deleted yet.")
@click.option("-q", "--quiet", is_flag=True, help="Print only ids.")
@click.option("-u", "--usage", is_flag=True, help="Measure memory and processor time.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten ids.")
@namespace_option
@json_option
def ps(everything: bool, quiet: bool, usage: bool, no_trunc: bool, namespace: str, as_json: bool) -> None:
    """List tasks."""
    from shimd.cli import ps

    ps.main(ps.PsOptions(everything, quiet, usage, no_trunc, namespace, as_json))


@cli.command()
@click.argument("id", required=False, default="")
@follow_option
@click.option("--tail", type=click.IntRange(min=0), default=0, help="At most so many of those kept; 0 for all.")
@namespace_option
@json_lines_option
def events(id: str, follow: bool, tail: int, namespace: str, as_json: bool) -> None:
    """Show what was published to containerd, of one container or all.

    The daemon keeps the last few hundred events.
    """
    from shimd.cli import events

    events.main(id, follow, tail, namespace, as_json)


@cli.command()
@click.argument("id", required=False, default="")
@follow_option
@click.option("--tail", type=click.IntRange(min=0), default=0, help="At most so many of the last lines; 0 for all.")
@namespace_option
@json_lines_option
def logs(id: str, follow: bool, tail: int, namespace: str, as_json: bool) -> None:
    """Show what an app wrote, or, without ID, the daemon's own log.

    ID may be shortened. If the app's output goes to containerd and not to a file, this says how to see it, and shows
    the daemon's log lines about the container.
    """
    from shimd.cli import logs

    logs.main(id, follow, tail, namespace, as_json)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--engine", default="wasmtime", show_default=True, help="The engine to run it with.")
@click.option("--dir", "directories", multiple=True, metavar="HOST[::GUEST][:ro]", help="Let it open a directory.")
@click.option("--env", "environment", multiple=True, metavar="NAME[=VALUE]", help="Set a variable, or hand ours on.")
@click.option("--cwd", default="/", show_default=True, metavar="GUEST", help="Its working directory.")
@click.option("--network", is_flag=True, help="Let it use this machine's network, where the engine has sockets.")
@click.option(
    "-p",
    "--listen",
    multiple=True,
    metavar="[tcp:][ADDRESS:]PORT",
    help="Give a module a listening socket, an application its address.",
)
@click.option("--watch", is_flag=True, help="Start an application anew when one of its files has changed.")
@click.option("--invoke", default="", metavar="FUNC", help="Call this exported function instead of _start.")
@click.option("--json", "as_json", is_flag=True, help="At the end, print how it went as JSON on stderr.")
@click.argument("program", type=click.Path())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    engine: str,
    directories: tuple[str, ...],
    environment: tuple[str, ...],
    cwd: str,
    network: bool,
    listen: tuple[str, ...],
    watch: bool,
    invoke: str,
    as_json: bool,
    program: str,
    args: tuple[str, ...],
) -> None:
    """Run a WebAssembly program or an application, without containerd and without the daemon.

    An application is a spin.toml, a slightfile.toml, or the directory of one; paths in it are relative to it, and what
    it keeps is in .spin beside it. TERM and INT end it, and the exit code is 0.

    A program sees its arguments, the variables of --env and the directories of --dir, and nothing else of this machine.
    Exits with the program's exit code, 128 + n if signal n ended it; 127 if there is no such program, 126 if it is not
    WebAssembly or does not compile, 125 if anything else failed.
    """
    from shimd.cli import run

    raise SystemExit(
        run.main(
            run.RunOptions(engine, directories, environment, cwd, network, invoke, program, args, listen, watch),
            as_json,
        )
    )


_NODE_OPTIONS = (
    click.option(
        "--root", type=click.Path(exists=True, file_okay=False), default="/", help="The node's files are below it."
    ),
    click.option("--bin-dir", default="/usr/local/bin", show_default=True, help="A directory of containerd's PATH."),
    click.option("--config", type=click.Path(dir_okay=False), help="containerd's configuration, if in another place."),
    click.option("--runtime", "runtimes", multiple=True, help="Only this runtime; may be repeated."),
    click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing."),
    click.option(
        "--restart-containerd", "restart", is_flag=True, help="Restart its unit at the end; containers go on."
    ),
)


def node_options(command: Any) -> Any:
    """Add the options of ``install`` and ``uninstall``."""
    for option in reversed(_NODE_OPTIONS):
        command = option(command)
    return command


def _node(root: str, bin_dir: str, config: str | None, runtimes: tuple[str, ...]) -> Any:
    from shimd.node.install import Node

    node = Node(root=Path(root), bin_dir=Path(bin_dir), config=Path(config) if config else None)
    return replace(node, runtimes=runtimes) if runtimes else node


def _refuse_others(own: Path | None = None) -> None:
    """:raises FailedPrecondition: this user is neither root nor the owner of that directory"""
    if os.geteuid() != 0 and not (own is not None and own.exists() and own.stat().st_uid == os.geteuid()):
        name = click.get_current_context().info_name
        raise FailedPrecondition(f"only root may do that; try: sudo shimd {name}")


@cli.command()
@node_options
def install(
    root: str, bin_dir: str, config: str | None, runtimes: tuple[str, ...], dry_run: bool, restart: bool
) -> None:
    """Set this node up: launchers on containerd's PATH, runtimes in its configuration, systemd's units.

    May be repeated: it does what is missing. The configuration that was there is kept beside it, as NAME.before-shimd.
    """
    from shimd.cli.node import do_install

    if root == "/" and not dry_run:
        _refuse_others()
    do_install(_node(root, bin_dir, config, runtimes), dry_run, restart)


@cli.command()
@click.option("--force", is_flag=True, help="End the daemon even if it is the installed one, or apps end with it.")
@click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing.")
@click.option("--bin-dir", default="/usr/local/bin", show_default=True, help="Where install has put links.")
@click.option("--config", type=click.Path(dir_okay=False), help="containerd's configuration, if in another place.")
def upgrade(force: bool, dry_run: bool, bin_dir: str, config: str | None) -> None:
    """Have what runs be what is installed, after `pip install -U shimd`. Apps go on.

    The daemon is replaced, by systemd if that runs it; launchers' links and units that install has made are made anew
    where they differ; the keeper is replaced if its program is another. Fork servers with apps serve those to the end;
    new apps have new ones. Call it by the installation that is to run.

    Exits with 0 if the installed release runs now, or nothing needs to run; with 1 if it failed, and what ran before
    goes on.
    """
    from shimd.cli.upkeep import do_upgrade

    _refuse_others()
    do_upgrade(_node("/", bin_dir, config, ()), dry_run, force)


@cli.command()
@click.option("--force", is_flag=True, help="End tasks, too.")
def stop(force: bool) -> None:
    """End the daemon, its keeper, and all else of shimd, until a launcher or systemd starts it again.

    Refused, with exit code 1, while there are tasks. (A daemon that is ended by a signal then is started again.)
    """
    from shimd.cli.upkeep import do_stop

    _refuse_others(paths.runtime_dir())
    do_stop(_node("/", "/usr/local/bin", None, ()), force)


@cli.command()
@node_options
@click.option("--force", is_flag=True, help="End tasks, too.")
@click.option("--purge", is_flag=True, help="Remove what else there is of shimd: compiled modules, copies, drop-ins.")
def uninstall(
    root: str,
    bin_dir: str,
    config: str | None,
    runtimes: tuple[str, ...],
    dry_run: bool,
    restart: bool,
    force: bool,
    purge: bool,
) -> None:
    """Undo what install has done, and end all of shimd that runs. What is left is named.

    Refused while there are tasks: delete their pods first.
    """
    from shimd.cli.node import do_uninstall

    if root == "/" and not dry_run:
        _refuse_others()
    do_uninstall(_node(root, bin_dir, config, runtimes), dry_run, restart, force, purge)


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look for what may keep apps from running on this node, and say what to do about it.

    Exits with 1 if something does.
    """
    from shimd.cli.node import do_doctor

    raise SystemExit(do_doctor(as_json))
