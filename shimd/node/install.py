"""``shimd install`` and ``uninstall``: launchers on containerd's PATH, runtimes in its configuration, systemd units."""

import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import shimd
from shimd.engines.registry import engine_names
from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.launcher.build import ENGINES
from shimd.launcher.names import shim_names
from shimd.node import check, containerd, systemd
from shimd.node.changes import Change, read
from shimd.node.distributions import PATH, PLAIN, Distribution
from shimd.node.systemd import UNITS, is_, systemctl

UNIT_DIRECTORY = "etc/systemd/system"
#: What systemd takes for a program (``string_is_safe`` in its src/basic/string-util.c).
_EXECUTABLE = re.compile(r"""[^\x00-\x1f\x7f"'\\]+""")
_SERVES = re.compile(r"ExecStart=.*/shimd\"? serve\b")
_LISTENS = re.compile(r"ListenStream=\S*/launch\.sock")
_EXEC = "ExecStart=/usr/local/bin/shimd serve"


@dataclass(frozen=True)
class Node:
    """A node to set up: the machine below ``root``, for the programs in ``programs``."""

    root: Path = Path("/")
    bin_dir: Path = Path("/usr/local/bin")
    """The directory where containerd looks for shims, as seen on the node."""
    config: Path | None = None
    """containerd's configuration, if it is not where it usually is."""
    runtimes: Sequence[str] = field(default_factory=engine_names)
    programs: Path = Path(sys.argv[0]).resolve().parent
    """The directory where shimd and its launchers are installed; not where a link to it is, which may be ours."""

    @property
    def is_this_machine(self) -> bool:
        return self.root == Path("/")

    @property
    def has_systemd(self) -> bool:
        """Returns whether there is a systemd that can be told of units."""
        return self.is_this_machine and systemd.is_there()


@dataclass(frozen=True)
class NodePlan:
    """The changes to a node, and notes on it for the operator."""

    node: Node
    config: containerd.ContainerdConfig
    changes: list[Change]
    configuration: list[Change]
    """The changes of containerd's configuration."""
    notes: list[str] = field(default_factory=list)

    def verify_configuration(self) -> str | None:
        """Have the node's containerd read its configuration, once all is changed.

        :returns: a sentence, if there is no containerd to ask
        :raises FailedPrecondition: it refuses
        """
        return check.verify_configuration(self.config, self.node.root, self.node.runtimes)

    def restart(self) -> None:
        """Restart the unit that containerd runs in.

        :raises FailedPrecondition: systemd cannot
        """
        systemctl("restart", self.unit)

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """Wrap changes and a restart: if they fail, and the changes are undone, what ran before is started again.

        :raises FailedPrecondition: what the block raises; and if it does not start again either, that, too
        """
        ran = is_("is-active", self.unit)
        try:
            yield
        except BaseException as error:
            systemctl("daemon-reload")
            if ran and not is_("is-active", self.unit):
                self._start_again(error)
            raise

    def _start_again(self, error: BaseException) -> None:
        try:
            systemctl("reset-failed", self.unit)  # its attempts to start are counted, and limited
            self.restart()
        except FailedPrecondition as again:
            raise FailedPrecondition(f"{error}; but nor does it start so: {again}") from None

    @cached_property
    def unit(self) -> str:
        """The one that containerd runs in, or would."""
        return _unit_of(self.config.distribution.services)


def install(node: Node) -> NodePlan:
    """Returns the plan that sets a node up.

    :raises ShimdError: something of it cannot be had; nothing was changed
    """
    _check_programs(node)
    config = _config(node)
    _check_free(links := _links(node))
    _check_units(units := _units(node, config))
    changes = [*links, *units]
    configuration = containerd.install_changes(config, node.runtimes)
    return NodePlan(node, config, changes, configuration, containerd.notes(config, node.runtimes))


def uninstall(node: Node) -> NodePlan:
    """Returns the plan that removes all that :func:`install` has made."""
    config = _config(node)
    links = [change for change in _links(node) if _is_ours(change)]
    units = [change for change in _units(node, config) if _is_a_shimds(change.path)]
    gone = [Change(change.path) for change in (*links, *units)]
    return NodePlan(node, config, gone, containerd.uninstall_changes(config))


def renewals(node: Node) -> list[Change]:
    """Returns the changes that make links and units, where an installation of shimd has left some, those of this one.

    :raises FailedPrecondition: the program is not installed
    """
    _check_programs(node)
    links = [change for change in _links(node) if change.needed and _is_of_a_shimd(change.path)]
    directory = node.root / UNIT_DIRECTORY
    ours = [name for name in UNITS if _is_a_shimds(directory / name)]
    units = _units(node, _config(node)) if ours else []
    return [*links, *(change for change in units if change.needed and change.path.name in ours)]


def _config(node: Node) -> containerd.ContainerdConfig:
    try:
        return containerd.find(node.root, node.config)
    except OSError as error:
        raise FailedPrecondition(f"{error.filename}: {error.strerror}") from None


def _check_programs(node: Node) -> None:
    for program in (node.programs / "shimd", *(_program(node, name) for name in _launchers(node))):
        if not os.access(program, os.X_OK):
            raise FailedPrecondition(f"there is no {program}: install the package first")


def _launchers(node: Node) -> list[str]:
    unknown = set(node.runtimes) - set(engine_names())
    if unknown:
        raise InvalidArgument(f"there is no runtime {sorted(unknown)[0]} (there are {', '.join(engine_names())})")
    return [shim for name in node.runtimes for shim in shim_names(name)]


def _links(node: Node) -> list[Change]:
    """Returns the links to launchers. They lead to the programs' own directory, where a launcher finds what is beside
    it."""
    if node.programs == node.bin_dir:
        return []
    directory = node.root / node.bin_dir.relative_to("/")
    return [Change(directory / name, link=str(_program(node, name))) for name in (*_launchers(node), "shimd")]


def _check_free(links: Sequence[Change]) -> None:
    """:raises FailedPrecondition: a program of that name is somebody else's"""
    for change in links:
        if change.needed and os.path.lexists(change.path) and not _is_of_a_shimd(change.path):
            raise FailedPrecondition(
                f"{change.path} is there, and not shimd's: move it away, or name another directory by --bin-dir"
            )


def _check_units(units: Sequence[Change]) -> None:
    """:raises FailedPrecondition: a unit of that name is somebody else's, or masked"""
    for change in units:
        if os.path.lexists(change.path) and not _is_a_shimds(change.path):
            raise FailedPrecondition(f"{change.path} is there, and not shimd's: move it away")


def _is_a_shimds(unit: Path) -> bool:
    """Returns whether it says so, of whatever version: that it runs ``shimd serve``, or listens where launchers ask.
    A link that leads nowhere is nobody's."""
    if unit.is_symlink() and not unit.exists():
        return True
    lines = (read(unit) or "").splitlines()
    return any(_SERVES.match(line) or _LISTENS.fullmatch(line) for line in lines)


def _is_of_a_shimd(path: Path) -> bool:
    """Returns whether a link is one that an installation of shimd has left, wherever that is or was."""
    return path.is_symlink() and (
        not os.path.exists(path) or os.path.exists(path.resolve().with_name("shimd-launcher"))
    )


def others_links(node: Node) -> list[Path]:
    """Returns the links of our names that lead to another installation."""
    return [each.path for each in _links(node) if each.needed and _is_of_a_shimd(each.path) and each.path.exists()]


def _program(node: Node, name: str) -> Path:
    """Returns the target of a launcher's link. It serves the engine by whose name it is called, so others need none."""
    own = ["shimd", *(shim for engine in ENGINES for shim in shim_names(engine))]
    return node.programs / (name if name in own else shim_names(ENGINES[0])[0])


def _is_ours(change: Change) -> bool:
    return change.link is not None and not change.needed


def _units(node: Node, config: containerd.ContainerdConfig) -> list[Change]:
    directory = node.root / UNIT_DIRECTORY
    if not directory.parent.is_dir():  # a node without systemd: the first launcher starts the daemon
        return []
    return [Change(directory / name, _unit(node, name, config)) for name in UNITS]


def _unit(node: Node, name: str, config: containerd.ContainerdConfig) -> str:
    places = (Path(sysconfig.get_path("data"), "lib/systemd/system"), Path(shimd.__file__).parents[1] / "systemd")
    for place in places:
        if (place / name).is_file():
            return _fitted((place / name).read_text(), node, config.distribution)
    raise FailedPrecondition(f"{name} is not among the installed files: install the package anew")


def _fitted(unit: str, node: Node, distribution: Distribution) -> str:
    """Returns a unit with the paths of this installation, and those of a distribution that brings its own runc."""
    own = f"\nEnvironment=PATH={PATH}:{distribution.programs}" if distribution != PLAIN else ""
    before = "".join(f"Before={service}.service\n" for service in distribution.services)
    unit = unit.replace("Before=containerd.service\n", before)
    return unit.replace(_EXEC, f"ExecStart={_quoted(node.programs / 'shimd')} serve{own}")


def _quoted(program: Path) -> str:
    """Returns a text as one word of a unit (systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers").

    :raises FailedPrecondition: systemd executes nothing at such a path
    """
    if not _EXECUTABLE.fullmatch(str(program)):
        raise FailedPrecondition(
            f"systemd executes no {program}: it takes no quotes, backslashes or control characters"
        )
    word = str(program).replace("%", "%%")
    return f'"{word}"' if " " in word else word


def _unit_of(services: Sequence[str]) -> str:
    """Returns the unit that runs, or else one that is enabled; the first if there is none."""
    for question in ("is-active", "is-enabled"):
        for name in services:
            if is_(question, name):
                return name
    return services[0]
