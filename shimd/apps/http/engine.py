"""wasi-http: components that export ``wasi:http/incoming-handler``, served on wasmtime with our own WASI 0.2 host.

Artefacts are wasmtime's (``family``), which recognises such a component and hands it over. A fork server of its own
keeps the HTTP libraries out of every command's worker.
"""

import signal
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from shimd.engine import Invocation, Preopen, UnsupportedFeature
from shimd.engines.core import top_preopens
from shimd.engines.loading import load, load_if_there
from shimd.engines.wasmtime import CompiledByWasmtime
from shimd.engines.wasmtime_artifact import load_server, make_engine

if TYPE_CHECKING:
    import wasmtime

    from shimd.component.host import Host
    from shimd.engines.http_settings import HttpSettings
    from shimd.wasi.trust import BuiltIn

#: Loaded in the fork server: in a container the files are out of sight, and each app would pay anew.
LOADED = (
    "concurrent.futures.thread",
    "encodings.idna",
    "httpcore._backends.anyio",
    "shimd.apps.http.handler",
    "shimd.apps.http.server",
    "shimd.wasi.http.outgoing",
    "shimd.wasi.versions",
    "shimd.wasi.world",
)
#: Modules that those look for at first use, and do without.
OPTIONAL = ("sniffio",)


@dataclass
class HttpProgram:
    """A compiled component that serves HTTP, and the host that provides its imports."""

    program: Any
    host: "Host | None" = None
    outgoing: Any = None
    settings: "HttpSettings | None" = None


class WasiHttpEngine(CompiledByWasmtime):
    name: ClassVar[str] = "wasi-http"

    def __init__(self) -> None:
        self._engine: wasmtime.Engine
        self._built_in: BuiltIn

    def warm(self) -> None:
        import anyio

        from shimd.wasi.trust import BuiltIn

        load(LOADED)
        load_if_there(OPTIONAL)
        anyio.run(rehearse)
        self._engine = make_engine(parallel=False, epochs=True)
        self._built_in = BuiltIn()

    def load(self, artifact: Path) -> HttpProgram:
        return HttpProgram(load_server(self._engine, artifact))

    def check(self, module: HttpProgram, invocation: Invocation) -> None:
        from shimd.apps.http.handler import INTERFACE
        from shimd.component.host import Host
        from shimd.engines.http_settings import HttpSettings
        from shimd.wasi.http.outgoing import OutgoingHandler, anything, nothing
        from shimd.wasi.trust import Trust
        from shimd.wasi.versions import unversioned
        from shimd.wasi.world import providers

        if invocation.entry != "_start":
            raise UnsupportedFeature(f"a component that serves HTTP has no function {invocation.entry}")
        module.settings = HttpSettings.of(invocation.env)
        allowed = anything if invocation.network else nothing
        module.outgoing = OutgoingHandler(Trust(self._built_in, invocation.env), allowed)
        provided = providers(_seen_by_guests(invocation), module.outgoing)
        module.host = Host(self._engine, module.program, provided, unversioned)
        if module.host.export(INTERFACE) is None:
            raise UnsupportedFeature("the component serves no HTTP, but another of Spin's triggers: run it with spin")

    def signals(self, module: HttpProgram) -> Collection[int]:
        from shimd.apps.serving import SIGNALS

        return SIGNALS

    def run(self, module: HttpProgram, invocation: Invocation) -> int:
        from shimd.apps.http.epoch_clock import EpochClock
        from shimd.apps.http.handler import Handler
        from shimd.apps.http.server import serve

        settings = module.settings
        assert module.host is not None and settings is not None
        clock = EpochClock(self._engine)
        handler = Handler(
            module.host,
            clock,
            pool=settings.pool,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
        )
        return serve(handler, settings, [module.outgoing, clock, handler])


async def rehearse() -> None:
    """Use libraries once, so that they have loaded all that they load at first use."""
    import anyio

    from shimd.apps.http import server
    from shimd.engines.http_settings import HttpSettings

    server.configuration(None, HttpSettings())

    with anyio.open_signal_receiver(signal.SIGUSR1):
        await anyio.lowlevel.checkpoint()


def _seen_by_guests(invocation: Invocation) -> Invocation:
    from shimd.engines.http_settings import for_guest

    preopens = [Preopen(*item) for item in top_preopens(invocation)]
    return replace(invocation, env=for_guest(invocation.env), preopens=preopens)
