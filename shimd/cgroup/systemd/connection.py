"""Calls systemd's manager (org.freedesktop.systemd1(5)): over the system bus, or where there is none its own socket.

Blocking, for threads; messages are jeepney's.
"""

import threading
import time
from contextlib import suppress
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.bus_messages import MatchRule, message_bus
from jeepney.io.blocking import prep_socket
from jeepney.wrappers import unwrap_msg

from shimd.errors import FailedPrecondition, Internal

_BUS, _PRIVATE = "/run/dbus/system_bus_socket", "/run/systemd/private"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_JOBS = MatchRule(type="signal", interface=_MANAGER.interface, member="JobRemoved", path=_MANAGER.object_path)
#: Seconds for systemd to do what it is asked for, with the wait for those who were first.
_PATIENCE = 20.0


class SystemdError(Internal):
    """An error that systemd answers with; ``name`` is the D-Bus error's."""

    def __init__(self, call: str, name: str, message: str) -> None:
        super().__init__(f"systemd: {call}: {message}")
        self.name = name


class Manager:
    """One connection, made when it is needed, and again when systemd has closed it. Methods may be called on any
    thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: _BusConnection | None = None

    def call(self, method: str, signature: str, *arguments: Any) -> tuple[Any, ...]:
        """Call a method; returns the answer.

        :raises SystemdError: its own
        :raises FailedPrecondition: it does not answer
        """
        found: tuple[Any, ...] = self._attempt(lambda connection: connection.call(method, signature, *arguments))
        return found

    def run(self, method: str, signature: str, *arguments: Any) -> None:
        """Make a call that starts a job, and wait for the job's end (20 s at most).

        :raises SystemdError: its own, or the job failed
        """
        result = self._attempt(lambda connection: connection.run(method, signature, *arguments))
        if result not in ("done", "skipped"):
            raise SystemdError(method, "", f"{arguments[0]}: the job's result is {result}")

    def _attempt(self, action: Any) -> Any:
        until = time.monotonic() + _PATIENCE
        if not self._lock.acquire(timeout=_PATIENCE):
            raise _no_answer(f"others have waited for {_PATIENCE:g} s")
        try:
            return self._attempt_until(until, action)
        except OSError as error:
            self._connection = None
            raise _no_answer(error.strerror or str(error)) from None
        finally:
            self._lock.release()

    def _attempt_until(self, until: float, action: Any) -> Any:
        if self._connection is not None:
            self._connection.until = until
            with suppress(ConnectionError):  # it was closed; what takes too long is not begun anew
                return action(self._connection)
        self._connection = None  # should the next one not come to be
        self._connection = _BusConnection(until)
        return action(self._connection)


def _no_answer(why: str) -> FailedPrecondition:
    return FailedPrecondition(f"SystemdCgroup is set, and systemd does not answer at {_BUS} or {_PRIVATE}: {why}")


class _BusConnection:
    def __init__(self, until: float) -> None:
        """
        :param until: when there must be an answer (seconds, monotonic), to whatever is asked next
        :raises OSError: there is no systemd
        """
        self._parser, self._serial = Parser(), 0
        self._jobs: dict[str, str] = {}
        self.until = (time.monotonic() + until) / 2  # half of it for the bus, which may hang alone
        try:
            self._sock = prep_socket(_BUS)
            self._ask(message_bus.Hello())
            self._ask(message_bus.AddMatch(_JOBS))
        except OSError:
            self._parser, self._serial = Parser(), 0
            self._sock = prep_socket(_PRIVATE)
        self.until = until
        self.call("Subscribe", "")

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._sock.close()

    def call(self, method: str, signature: str, *arguments: Any) -> tuple[Any, ...]:
        try:
            return self._ask(new_method_call(_MANAGER, method, signature or None, arguments))
        except DBusErrorResponse as error:
            raise SystemdError(method, error.name, str(error.data[0]) if error.data else error.name) from None

    def run(self, method: str, signature: str, *arguments: Any) -> str:
        self._jobs.clear()
        job = self.call(method, signature, *arguments)[0]
        while job not in self._jobs:
            self._receive()
        return self._jobs.pop(job)

    def _ask(self, message: Message) -> tuple[Any, ...]:
        self._serial += 1
        self._limit()
        self._sock.sendall(message.serialise(serial=self._serial))
        while True:
            answer = self._receive()
            if answer.header.fields.get(HeaderFields.reply_serial) == self._serial:
                found: tuple[Any, ...] = unwrap_msg(answer)
                return found

    def _limit(self) -> None:
        """:raises TimeoutError: there is no time left, though systemd talks of other things"""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)

    def _receive(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            self._limit()
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionResetError("systemd has closed the connection")
            self._parser.add_data(data)
        if message.header.message_type is MessageType.signal and len(message.body) == 4:
            _number, job, _unit, result = message.body
            self._jobs[job] = result
        found: Message = message
        return found
