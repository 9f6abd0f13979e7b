"""slight: applications of ``/slightfile.toml`` and ``/app.wasm``, core modules of wit-bindgen 0.2, on wasmtime.

Modules are compiled by wasmtime's engine (``family``). A container without a slightfile is an ordinary one: what it
runs is handed over.
"""

import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from shimd.apps.http.engine import LOADED, OPTIONAL, rehearse
from shimd.engine import (
    EngineError,
    GuestTrap,
    InvalidModule,
    InvalidSetting,
    Invocation,
    OtherEngine,
    UnsupportedFeature,
)
from shimd.engines import contained
from shimd.engines.loading import load, load_if_there
from shimd.engines.wasmtime import CompiledByWasmtime, wasi
from shimd.engines.wasmtime_artifact import load_guest, make_engine, sentence

if TYPE_CHECKING:
    import wasmtime

    from shimd.apps.slight.http_server import HttpServerProvider
    from shimd.apps.slight.secrets import SecretStores
    from shimd.apps.slight.slightfile import Slightfile
    from shimd.wasi.trust import BuiltIn
    from shimd.wit.guest import ModuleGuest
    from shimd.wit.host import ModuleHost

_PROGRAM, _INIT = "app.wasm", "on-server-init"
_ADDRESS = "SLIGHT_HTTP_LISTEN_ADDR"
#: What libraries load at first use (redis): in a container it is out of sight.
_LAZY = ("hmac", "secrets")


@dataclass
class SlightApp:
    """An application with its compiled module."""

    engine: "wasmtime.Engine"
    module: "wasmtime.Module"
    slightfile: "Slightfile"
    stores: "SecretStores"
    host: "ModuleHost | None" = None
    server: "HttpServerProvider | None" = None


class SlightEngine(CompiledByWasmtime):
    name: ClassVar[str] = "slight"

    def __init__(self) -> None:
        self._interruptible: wasmtime.Engine
        self._plain: wasmtime.Engine
        self._built_in: BuiltIn
        self._slightfile: Slightfile
        self._stores: SecretStores
        self._manifest = "/slightfile.toml"

    def warm(self) -> None:
        import anyio

        from shimd.apps.slight import resources, world
        from shimd.wasi.trust import BuiltIn

        load((*LOADED, *_LAZY, "shimd.apps.slight.server"))
        load_if_there((*OPTIONAL, *resources.PACKAGES.values()))  # which apps share
        world.load()
        contained.library()
        anyio.run(rehearse)
        self._interruptible, self._plain = make_engine(parallel=False, epochs=True), make_engine(parallel=False)
        self._built_in = BuiltIn()

    def take(self, manifest: str) -> None:
        self._manifest = manifest

    def programs(self, read: Callable[[str], bytes | None], env: Mapping[str, str]) -> Mapping[str, str] | None:
        """The module's path; ``None``: it is no application.

        :raises InvalidSetting: what is wrong with the slightfile
        """
        from shimd.apps.slight import secrets, slightfile

        program = os.path.join(os.path.dirname(self._manifest), _PROGRAM)
        text = read(self._manifest)
        if text is None:
            _refuse_guest(read(program))
            return None
        parsed = slightfile.parse(text)
        self._stores = secrets.SecretStores(parsed, env, read)
        self._slightfile = secrets.resolved(parsed, self._stores)
        return {"app": program}

    def load_all(self, artifacts: Mapping[str, Path]) -> SlightApp:
        """:raises UnsupportedFeature: a library that the slightfile asks for is not installed"""
        from shimd.apps.slight import resources

        for capability in self._slightfile.capabilities:
            package = resources.PACKAGES.get(capability.resource)
            if package is not None and sys.modules.get(package) is None:
                raise UnsupportedFeature(
                    f"/slightfile.toml: {capability.where} is {capability.resource}, for which shimd's node needs the "
                    f"Python package {package.partition('.')[0]} (pip install 'shimd[slight]')"
                )
        engine, module = load_guest(self._interruptible, self._plain, artifacts["app"])
        return SlightApp(engine, module, self._slightfile, self._stores)

    def load(self, artifact: Path) -> NoReturn:
        raise OtherEngine(self.family)

    def check(self, module: SlightApp, invocation: Invocation) -> None:
        from shimd.apps.slight import world
        from shimd.apps.slight.http_server import HttpServerProvider
        from shimd.apps.slight.secrets import directory
        from shimd.engines.http_settings import HttpSettings
        from shimd.wasi.trust import Trust

        exports = {export.name for export in module.module.exports}
        _check_entry(exports, serves=module.slightfile.serves)
        settings = HttpSettings.of({**invocation.env, "WASMTIME_HTTP_PROXY_SOCKET_ADDR": ""})
        module.server = HttpServerProvider(
            replace(settings, processes=1, announced=not invocation.contained), _address(invocation.env), exports
        )
        trust = Trust(self._built_in, invocation.env)
        provided = world.provided(module.slightfile, module.stores, module.server, trust, directory(invocation.env))
        _check_imports(module.module, provided)
        module.host = _linked(module, provided)

    def enter_container(self) -> None:
        contained.enter()

    def signals(self, module: SlightApp) -> Collection[int]:
        return (signal.SIGTERM, signal.SIGINT) if module.slightfile.serves else ()

    def run(self, module: SlightApp, invocation: Invocation) -> int:
        from shimd.component.results import GuestExit

        host = module.host
        assert host is not None
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a backend that goes away is an error that the guest is told

        def make() -> "ModuleGuest":
            return host.instantiate(wasi(_seen_by_guests(invocation)))

        try:
            if module.slightfile.serves:
                return _serve(module, make)
            _entered(lambda: make().invoke("_start"))
            return 0
        except GuestExit as exit:
            return exit.code


def _serve(module: SlightApp, make: Callable[[], "ModuleGuest"]) -> int:
    """Have the guest start a server, and be that."""
    from shimd.apps.http.server import serve
    from shimd.apps.slight import world
    from shimd.apps.slight.routes import RouteTable
    from shimd.apps.slight.server import SlightServer
    from shimd.component.results import Err

    answer = _entered(lambda: make().call(world.init(), _INIT))
    if isinstance(answer, Err):
        raise EngineError(f"{_INIT} failed: {answer.value}")
    assert module.server is not None
    server = module.server.server
    if server is None or server.stopped:
        raise EngineError(f"{_INIT} left no server to run (/slightfile.toml has the capability http)")
    module.server.initialised = True
    table = RouteTable(list(server.routes))
    application = SlightServer(module.engine, make, world.handler(), table, module.server.settings)
    return serve(application, module.server.settings, [application], listener=server.listener)


def _entered(call: Callable[[], Any]) -> Any:
    """:raises GuestTrap: the guest trapped"""
    import wasmtime

    from shimd.wit.memory import Fault

    try:
        return call()
    except (wasmtime.Trap, wasmtime.WasmtimeError, Fault) as trap:
        raise GuestTrap(str(trap)) from None


def _refuse_guest(program: bytes | None) -> None:
    """Slight's module without its slightfile is no ordinary container."""
    if program is not None and b"canonical_abi" in program:
        raise InvalidSetting("there is no /slightfile.toml beside /app.wasm, which is a module of Slight's")


def _check_entry(exports: Collection[str], *, serves: bool) -> None:
    if serves and _INIT not in exports:
        raise InvalidModule(f"the module exports no function {_INIT}, and /slightfile.toml has the capability http")
    if not serves and "_start" not in exports:
        way_out = (
            f" (it exports {_INIT}: for that /slightfile.toml needs the capability http)" if _INIT in exports else ""
        )
        raise InvalidModule(f"the module exports no function _start{way_out}")


def _check_imports(module: "wasmtime.Module", provided: Collection[str]) -> None:
    from shimd.engines.slight_names import BEFORE

    for item in module.imports:
        if item.module in BEFORE:
            raise UnsupportedFeature(
                f"the module imports {item.module}, an interface of Slight before 0.3; now it is {BEFORE[item.module]}"
            )
        if item.module not in (*provided, "canonical_abi", "wasi_snapshot_preview1"):
            raise UnsupportedFeature(
                f"the module imports {item.module}.{item.name}, and Slight has the interfaces {', '.join(provided)}"
            )


def _linked(module: SlightApp, provided: Mapping[str, Any]) -> "ModuleHost":
    import wasmtime

    from shimd.wit.host import ModuleHost

    try:
        return ModuleHost(module.engine, module.module, provided)
    except wasmtime.WasmtimeError as error:
        raise UnsupportedFeature(f"the module does not link: {sentence(error)}") from None


def _address(env: Mapping[str, str]) -> str | None:
    address = env.get(_ADDRESS)
    if address and not address.rpartition(":")[2].isdigit():
        raise InvalidSetting(f"{_ADDRESS}={address} is not HOST:PORT")
    return address or None


def _seen_by_guests(invocation: Invocation) -> Invocation:
    from shimd.engines.http_settings import for_guest

    env = {name: value for name, value in for_guest(invocation.env).items() if name != _ADDRESS}
    return replace(invocation, env=env)
