"""spin: applications of ``/spin.toml``, with the HTTP trigger, on wasmtime with our own WASI 0.2 host.

A container's program is not a module here but the application; its components are compiled one by one, by wasmtime's
engine (``family``). A container without a manifest is an ordinary one: what it runs is handed over.
"""

import signal
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from shimd.engines.base import InvalidSetting, Invocation, OtherEngine
from shimd.engines.wasi_http import LOADED, rehearse
from shimd.engines.wasmtime import WasmtimeEngine, load_server, make_engine

if TYPE_CHECKING:
    import wasmtime

    from shimd.apps.http.settings import Settings
    from shimd.apps.spin.manifest import Application, Component
    from shimd.apps.spin.outbound import Outbound
    from shimd.apps.spin.runtime import Runtime
    from shimd.apps.spin.variables import Values

_SPIN = ("application", "files", "manifest", "outbound", "runtime", "variables", "world")


@dataclass
class Loaded:
    """An application with its compiled components."""

    application: "Application"
    runtime: "Runtime"
    programs: Mapping[str, Any]
    """By component."""


class SpinEngine:
    name: ClassVar[str] = "spin"
    family: ClassVar[str] = "wasmtime"

    def __init__(self) -> None:
        self._engine: wasmtime.Engine
        self._tls: ssl.SSLContext
        self._application: Application
        self._runtime: Runtime

    def version(self) -> str:
        return WasmtimeEngine().version()

    def warm(self) -> None:
        import anyio
        import certifi

        for name in (*LOADED, *(f"shimd.apps.spin.{name}" for name in _SPIN)):
            import_module(name)
        anyio.run(rehearse)
        self._engine = make_engine(parallel=False, epochs=True)
        self._tls = ssl.create_default_context(cafile=certifi.where())

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        WasmtimeEngine().precompile(wasm, artifact)

    def programs(self, read: Callable[[str], bytes | None], env: Mapping[str, str]) -> Mapping[str, str] | None:
        """Of each component, its module's path in the container; ``None``: it is no application.

        :raises InvalidSetting: what is wrong with the manifest or the runtime's configuration
        """
        from shimd.apps.spin import manifest, runtime

        text = read(manifest.PATH)
        if text is None:
            return None
        application = manifest.parse(text).retaining(env.get("SPIN_COMPONENTS_TO_RETAIN", ""))
        self._application, self._runtime = application, runtime.Runtime(read(runtime.PATH))
        return {id: f"/{component.source.lstrip('/')}" for id, component in application.components.items()}

    def load_all(self, artifacts: Mapping[str, Path]) -> Loaded:
        programs = {id: load_server(self._engine, artifact) for id, artifact in artifacts.items()}
        return Loaded(self._application, self._runtime, programs)

    def load(self, artifact: Path) -> NoReturn:
        raise OtherEngine(self.family)

    def check(self, module: Loaded, invocation: Invocation) -> None:
        _settings(invocation.env)
        values = _values(module, invocation.env)
        for component in module.application.components.values():
            values.of(component)
            _outbound(component, values)

    def signals(self, module: Loaded) -> Collection[int]:
        return (signal.SIGTERM, signal.SIGINT)

    def run(self, module: Loaded, invocation: Invocation) -> int:
        from shimd.apps.http.handler import Handler
        from shimd.apps.http.server import serve
        from shimd.apps.spin.application import Server
        from shimd.apps.spin.world import imports
        from shimd.component.host import Host
        from shimd.wasi.http.outgoing import OutgoingHandler

        settings, values = _settings(invocation.env), _values(module, invocation.env)
        outgoing, handlers = [], {}
        for id, component in module.application.components.items():
            outgoing.append(OutgoingHandler(self._tls, _outbound(component, values)))
            given = imports(component, values, module.runtime, outgoing[-1])
            host = Host(self._engine, module.programs[id], given)
            handlers[id] = Handler(
                self._engine,
                host,
                pool=settings.pool,
                concurrency=settings.concurrency,
                timeout=settings.timeout,
                name=id,
            )
        application = Server(module.application, handlers, outgoing)
        return serve(application, settings, [application])


def _settings(env: Mapping[str, str]) -> "Settings":
    from shimd.apps.http.settings import Settings

    address = env.get("SPIN_HTTP_LISTEN_ADDR") or "0.0.0.0:80"
    try:
        return Settings.of({**env, "WASMTIME_HTTP_PROXY_SOCKET_ADDR": address})
    except InvalidSetting as error:
        raise InvalidSetting(str(error).replace("WASMTIME_HTTP_PROXY_SOCKET_ADDR", "SPIN_HTTP_LISTEN_ADDR")) from None


def _outbound(component: "Component", values: "Values") -> "Outbound":
    from shimd.apps.spin.outbound import Outbound

    where = f"component.{component.id}.allowed_outbound_hosts"
    return Outbound([values.resolve(entry, where) for entry in component.allowed_outbound_hosts], where)


def _values(module: Loaded, env: Mapping[str, str]) -> "Values":
    from shimd.apps.spin.variables import Values, from_environment

    environment = from_environment(env, module.application.variables)
    return Values(module.application, [environment, *module.runtime.variables])
