"""A container's scope: a transient unit, whose cgroup is ours to use (systemd.scope(5), "Delegate=")."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

from shimd.cgroup.systemd.connection import Manager, SystemdError
from shimd.cgroup.systemd.properties import properties
from shimd.errors import AlreadyExists, FailedPrecondition
from shimd.log import logger

_ERROR = "org.freedesktop.systemd1."
_manager = Manager()
_log = logger(__name__)
#: Seconds for the stand-in to end; and until systemd is asked again.
_STAND_IN, _AGAIN = 5.0, 10.0
#: Units that could not be stopped.
_left: list[str] = []
_left_lock = Lock()


class Scope:
    """A scope. systemd makes none without a process, and ends one without: a stand-in keeps it until the
    container's."""

    def __init__(self, unit: str, version: int) -> None:
        self.unit = unit
        self._version = version
        self._stand_in: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, path: Sequence[str], resources: dict[str, Any], version: int) -> "Scope":
        """Start a scope; returns when its cgroup is there.

        :param path: the names of its cgroup's directories, slices and then the unit
        :raises AlreadyExists: there is such a unit
        :raises FailedPrecondition: no systemd answers
        """
        self = cls(path[-1], version)
        self._stand_in = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # ends with us
        try:
            self._start(path[-2] if len(path) > 1 else "-.slice", resources)
        except BaseException:
            self.release()
            raise
        return self

    def _start(self, slice: str, resources: dict[str, Any]) -> None:
        assert self._stand_in is not None
        wanted = [
            ("Description", ("s", f"shimd container {self.unit}")),
            ("Slice", ("s", slice)),
            ("Delegate", ("b", True)),
            ("DefaultDependencies", ("b", False)),
            ("CollectMode", ("s", "inactive-or-failed")),
            ("PIDs", ("au", [self._stand_in.pid])),
            *((f"{name}Accounting", ("b", True)) for name in ("CPU", "Memory", "Tasks", "IO")),
            ("TasksMax", ("t", (1 << 64) - 1)),  # unless limited below: systemd's default is a part of all
            *properties(resources, self._version),
        ]
        try:
            _manager.run("StartTransientUnit", "ssa(sv)a(sa(sv))", self.unit, "fail", wanted, [])
        except SystemdError as error:
            if error.name == _ERROR + "UnitExists":
                raise AlreadyExists(f"systemd has a unit {self.unit} already") from None
            raise

    def update(self, resources: dict[str, Any]) -> None:
        if wanted := properties(resources, self._version):
            _manager.call("SetUnitProperties", "sba(sv)", self.unit, True, wanted)

    def release(self) -> None:
        """End the stand-in: the container's own processes are there, or nobody needs the scope."""
        stand_in, self._stand_in = self._stand_in, None
        if stand_in is None:
            return
        assert stand_in.stdin is not None
        stand_in.stdin.close()
        try:
            stand_in.wait(_STAND_IN)
        except subprocess.TimeoutExpired:  # somebody has frozen the cgroup: it dies with that
            stand_in.kill()

    def stop(self) -> None:
        """Stop the unit; quietly, if it has ended by itself, as it does when its last process has.

        A systemd that does not answer is asked again until it does.
        """
        self.release()
        try:
            _stop(self.unit)
        except FailedPrecondition as error:
            _log.warning("%s is to be stopped: %s", self.unit, error)
            _stop_later(self.unit)


def _stop(unit: str) -> None:
    with suppress(SystemdError):
        _manager.run("StopUnit", "ss", unit, "replace")


def _stop_later(unit: str) -> None:
    with _left_lock:
        _left.append(unit)
        if len(_left) == 1:
            Thread(target=_stop_left, name="shimd: units to be stopped", daemon=True).start()


def _stop_left() -> None:
    while True:
        time.sleep(_AGAIN)
        with suppress(FailedPrecondition):
            _stop(_left[0])
            with _left_lock:
                del _left[0]
                if not _left:
                    return
