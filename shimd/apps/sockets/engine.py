"""wasi-sockets: components that are commands and open sockets, on wasmtime with our own WASI 0.2 host.

wasmtime's own host refuses sockets since its version 48 unless TCP and UDP are allowed one by one, for which its C API
has no function. Artefacts are wasmtime's (``family``), which recognises such a component and hands it over; commands
without sockets stay on its host, which is faster.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from shimd.engine import GuestTrap, Invocation, Preopen, UnsupportedFeature
from shimd.engines.core import top_preopens
from shimd.engines.loading import load
from shimd.engines.wasmtime import CompiledByWasmtime
from shimd.engines.wasmtime_artifact import SOCKETS, load_component, make_engine

if TYPE_CHECKING:
    import wasmtime

    from shimd.component.host import Host

_RUN = "wasi:cli/run"
#: Loaded in the fork server: in a container the files are out of sight, and each app would pay anew.
_LOADED = (
    "concurrent.futures.thread",
    "encodings.idna",
    "shimd.component.host",
    "shimd.wasi.net",
    "shimd.wasi.versions",
    "shimd.wasi.world",
)


@dataclass
class SocketsProgram:
    """A compiled component, and the host that provides its imports."""

    program: Any
    host: "Host | None" = None


class WasiSocketsEngine(CompiledByWasmtime):
    name: ClassVar[str] = "wasi-sockets"

    def __init__(self) -> None:
        self._engine: wasmtime.Engine

    def warm(self) -> None:
        import anyio

        load(_LOADED)
        anyio.run(anyio.sleep, 0)  # has it load what it loads at first use
        self._engine = make_engine(parallel=False, epochs=True)

    def load(self, artifact: Path) -> SocketsProgram:
        return SocketsProgram(load_component(self._engine, artifact, SOCKETS))

    def check(self, module: SocketsProgram, invocation: Invocation) -> None:
        from shimd.component.host import Host
        from shimd.wasi import net, versions, world

        if invocation.entry != "_start":
            raise UnsupportedFeature(f"a component is run by its {_RUN} export, not by {invocation.entry}")
        preopens = [Preopen(*item) for item in top_preopens(invocation)]
        given = dict(world.providers(replace(invocation, preopens=preopens), None))
        if invocation.network:
            given["wasi:sockets/tcp-create-socket"] = net.TcpCreateSocket()
            given["wasi:sockets/udp-create-socket"] = net.UdpCreateSocket()
            given["wasi:sockets/ip-name-lookup"] = net.NameLookup()
        module.host = Host(self._engine, module.program, given, versions.unversioned)

    def run(self, module: SocketsProgram, invocation: Invocation) -> int:
        import anyio

        assert module.host is not None
        return anyio.run(_run, module.host)


async def _run(host: "Host") -> int:
    """Run the guest on a thread of its own; its waits are in this thread's event loop (:mod:`shimd.wasi.waiting`)."""
    from anyio import to_thread

    return await to_thread.run_sync(_command, host)


def _command(host: "Host") -> int:
    import wasmtime

    from shimd.component.results import Err, GuestExit

    guest = host.instantiate()
    try:
        result = host.call(guest, host.export(_RUN) or _RUN, "run")
    except GuestExit as exit:
        return exit.code
    except wasmtime.WasmtimeError as trap:
        raise GuestTrap(str(trap)) from None
    finally:
        with guest.entered():
            guest.close()
    return 1 if isinstance(result, Err) else 0
