"""The command trigger: a component's ``wasi:cli/run``, once; its end is the application's."""

from anyio import to_thread

from shimd.apps.calls import UNLIMITED, closing_guest, report_error
from shimd.apps.serving import StopScope
from shimd.apps.spin.telemetry import Telemetry
from shimd.component.host import Host
from shimd.component.results import Err, GuestExit
from shimd.engine import EXIT_TRAP

INTERFACE = "wasi:cli/run"


class CommandService:
    """A service (:class:`shimd.apps.serving.Service`) that runs a command once."""

    def __init__(self, host: Host, name: str, telemetry: Telemetry) -> None:
        self._host = host
        self._name = name
        self._work = StopScope()
        self._call = telemetry.call("command", name, "", self._called)

    async def run(self) -> int:
        """Run the command; returns its exit code. If it is stopped its thread is left behind, and ends with the
        process."""
        with self._work.waiting():
            code: int = await self._call()
            return code
        return 0

    def stop(self) -> None:
        self._work.stop()

    async def _called(self) -> int:
        return await to_thread.run_sync(self._run, abandon_on_cancel=True, limiter=UNLIMITED)

    def _run(self) -> int:
        try:
            guest = self._host.instantiate()
            with closing_guest(guest):
                result = self._host.call(guest, self._host.export(INTERFACE) or INTERFACE, "run")
        except GuestExit as exit:
            return exit.code
        except Exception as error:
            report_error(self._name, str(error))
            return EXIT_TRAP
        return 1 if isinstance(result, Err) else 0
