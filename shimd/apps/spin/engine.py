"""spin: applications of ``/spin.toml``, or of an image's layers, on wasmtime.

Where ``shimd-wasmtime-native`` is installed, HTTP applications are served by that (:class:`NativeSpin`), as far as it
has what they import; all others by our own WASI 0.2 host (:class:`SpinEngine`).

A container's program is not a module here but the application; its components are compiled one by one, by wasmtime's
engine (``family``). A container without a manifest is an ordinary one: what it runs is handed over.
"""

import itertools
import os
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from shimd.apps.http.engine import LOADED, OPTIONAL, rehearse
from shimd.engine import (
    Composed,
    Engine,
    Image,
    InvalidSetting,
    Invocation,
    Layer,
    NoApplication,
    OtherEngine,
    Packed,
    UnsupportedFeature,
)
from shimd.engines.loading import load, load_if_there
from shimd.engines.wasmtime import NATIVE, CompiledByWasmtime
from shimd.engines.wasmtime_artifact import is_server, load_command, load_server, make_engine

if TYPE_CHECKING:
    import wasmtime

    from shimd.apps.spin.allowed import AllowedHosts
    from shimd.apps.spin.assembly import Assembly
    from shimd.apps.spin.model import Application
    from shimd.apps.spin.native import NativePart
    from shimd.apps.spin.place import Place
    from shimd.apps.spin.runtime import Runtime
    from shimd.apps.spin.variables import ApplicationVariables
    from shimd.engines.http_settings import HttpSettings
    from shimd.engines.wasmtime_native import NativeProgram
    from shimd.formats.outline import Outline
    from shimd.wasi.trust import BuiltIn

_DESCRIBED = ("dependencies", "locked", "manifest", "native", "place", "runtime", "variables")
_SPIN = ("assembly", *_DESCRIBED)
#: The most directories and descriptors of an application that are handed over: a packet takes 253, a jail's among them.
_MOST_HANDED = 200
#: The name of the one in Python.
PORTABLE = "spin-py" if NATIVE else "spin"


@dataclass
class SpinApp:
    """An application with its compiled components, by their ids."""

    application: "Application"
    runtime: "Runtime"
    programs: Mapping[str, Any]
    directories: Mapping[str, int]
    """Directories of the files of components, if they came in layers."""
    assembly: "Assembly | None" = None
    """``None`` until the application is checked."""


class _Applications:
    """What an application is, whoever runs it."""

    def __init__(self) -> None:
        self._application: Application
        self._runtime: Runtime
        self._values: ApplicationVariables
        self._directories: Mapping[str, int] = {}
        self._manifest = "/spin.toml"

    def take(self, manifest: str) -> None:
        self._manifest = manifest

    def programs(
        self, read: Callable[[str], bytes | None], env: Mapping[str, str]
    ) -> Mapping[str, str | Composed[str]] | None:
        """Returns the path of each component's module in the container; ``None``: it is no application of files.

        :raises InvalidSetting: the manifest or the runtime's configuration is wrong
        """
        from shimd.apps.spin import dependencies, manifest

        place = self._place(read)
        text = place.file(os.path.basename(self._manifest))
        if text is None:
            return None
        application = self._take(manifest.parse(text, self._manifest), place, env)

        def path(source: str | Layer) -> str:
            return place.path(str(source))

        return {id: dependencies.program(one, path) for id, one in application.components.items()}

    def _place(self, read: Callable[[str], bytes | None]) -> "Place":
        from shimd.apps.spin.place import Place

        return Place(read, os.path.dirname(self._manifest))

    def artifact(
        self, image: Image, read: Callable[[str], bytes | None], env: Mapping[str, str]
    ) -> Mapping[str, Layer | Composed[Layer]] | None:
        """Returns the layer of each component; ``None``: the image is no application.

        :raises NoApplication: it is nothing that could be run
        :raises InvalidSetting: the manifest or the runtime's configuration is wrong
        """
        from shimd.apps.spin import dependencies, locked, manifest

        described = locked.find(image)
        if described is None:
            if any("wasm" in layer.media_type for layer in image.layers):  # to be run as any other
                return None
            there_is_none = f"the container has neither {manifest.PATH} nor the program that its command names"
            raise NoApplication(f"{there_is_none}, and its image is no Spin application")
        components = self._take(described, self._place(read), env).components
        self._directories = {id: image.files(one.contents) for id, one in components.items() if one.contents}
        return {id: dependencies.program(one, _layer) for id, one in components.items()}

    def _take(self, application: "Application", place: "Place", env: Mapping[str, str]) -> "Application":
        """Keep an application, once all is checked that can be before anything is compiled, which takes a while."""
        from shimd.apps.spin import dependencies
        from shimd.apps.spin.runtime import Runtime
        from shimd.apps.spin.variables import ApplicationVariables

        self._application = application.retaining(env.get("SPIN_COMPONENTS_TO_RETAIN", ""))
        dependencies.check(self._application.components.values())
        self._runtime = Runtime(place, env, application.variables, application.components)
        self._values = ApplicationVariables(application, self._runtime.variables)
        for component in self._application.components.values():
            for name, template in component.variables.items():
                self._values.check(template, f"{component.where}.variables.{name}")
        return self._application


class SpinEngine(_Applications, CompiledByWasmtime):
    name: ClassVar[str] = PORTABLE

    def __init__(self) -> None:
        super().__init__()
        self._engine: wasmtime.Engine
        self._plain: wasmtime.Engine
        """The engine for commands, which nobody interrupts."""
        self._built_in: BuiltIn

    def warm(self) -> None:
        import anyio

        from shimd.wasi.trust import BuiltIn

        load((*LOADED, *(f"shimd.apps.spin.{name}" for name in _SPIN)))
        load_if_there(OPTIONAL)
        anyio.run(rehearse)
        self._engine, self._plain = make_engine(parallel=False, epochs=True), make_engine(parallel=False)
        self._built_in = BuiltIn()

    def load_all(self, artifacts: Mapping[str, Path]) -> SpinApp:
        programs = {id: self._load(id, artifact) for id, artifact in artifacts.items()}
        return SpinApp(self._application, self._runtime, programs, self._directories)

    def _load(self, id: str, artifact: Path) -> Any:
        try:
            commands = {trigger.component for trigger in self._application.triggers.command}
            if id in commands and not is_server(artifact):
                return self._plain, load_command(self._plain, artifact)
            return self._engine, load_server(self._engine, artifact)
        except UnsupportedFeature as error:
            raise UnsupportedFeature(f"{self._application.components[id].where}: {error}") from None

    def load(self, artifact: Path) -> NoReturn:
        raise OtherEngine(self.family)

    def check(self, module: SpinApp, invocation: Invocation) -> None:
        from shimd.apps.spin.assembly import Assembly
        from shimd.apps.spin.telemetry import telemetry
        from shimd.wasi.trust import Trust

        trust = Trust(self._built_in, invocation.env)
        module.assembly = Assembly(
            self._engine,
            trust,
            telemetry(invocation.env, module.application, trust),
            module.application,
            module.programs,
            module.directories,
            module.runtime,
            self._values,
            replace(_settings(invocation.env), announced=not invocation.contained),
            invocation.args[1:],
            _memory(invocation.env, module.runtime.memory),
            os.path.dirname(self._manifest),
        )

    def signals(self, module: SpinApp) -> Collection[int]:
        return (signal.SIGTERM, signal.SIGINT)

    def run(self, module: SpinApp, invocation: Invocation) -> int:
        assert module.assembly is not None
        return module.assembly.run()


@dataclass
class NativeApp:
    parts: Mapping[str, "NativePart"]
    program: "NativeProgram"
    """All of it, once it is checked."""


class NativeSpin(_Applications):
    """Its workers have no Python, where a zygote is: what has read an application hands it over."""

    name: ClassVar[str] = "spin"
    family: ClassVar[str] = "wasmtime"
    compiles_for_family: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        from shimd.engines.wasmtime_native import NativeWasmtime

        self._native = NativeWasmtime()
        self._has_part = False
        self._told: Mapping[str, str] = {}
        self._allowed: Mapping[str, AllowedHosts]
        """Where components may connect to."""

    def version(self) -> str:
        return self._native.version()

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        self._native.precompile(wasm, artifact)

    def load_compiler(self, *, text: bool) -> None:
        self._native.load_compiler(text=text)

    def foresee(self, program: "Outline", runs_on: str) -> None:
        self._native.foresee(program, runs_on)

    def runner(self, artifact: Path) -> str:
        return self._native.runner(artifact)

    def warm(self) -> None:
        load(f"shimd.apps.spin.{name}" for name in _DESCRIBED)

    def load_part(self) -> None:
        if not self._has_part:
            self._native.warm()
            self._has_part = True

    def _take(self, application: "Application", place: "Place", env: Mapping[str, str]) -> "Application":
        from shimd.apps.spin import granted, native

        taken = super()._take(application, place, env)
        if native.lacks(taken, self._runtime):
            raise OtherEngine(PORTABLE)
        self._told = _told(env)
        self._allowed = {id: granted.outbound(one, self._values) for id, one in taken.components.items()}
        return taken

    def library(self) -> list[str] | None:
        return self._native.library()

    def pack(self, artifact: Path, invocation: Invocation) -> None:
        """It may be an application, which its worker sees."""

    def load_all(self, artifacts: Mapping[str, Path]) -> NativeApp:
        from shimd.engines.wasmtime_native import NativeProgram

        return NativeApp({id: self._part(id, artifact) for id, artifact in artifacts.items()}, NativeProgram({}))

    def _part(self, id: str, artifact: Path) -> "NativePart":
        """:raises OtherEngine: it imports what is not there"""
        from shimd.apps.spin.native import NativePart
        from shimd.engines.wasmtime_native import FACTS, PROGRAM, SERVER, SERVER_NEWER, check_whole, noted

        if not (artifact / FACTS).exists():
            raise OtherEngine(PORTABLE)
        facts = noted(artifact)
        check_whole(facts, artifact)
        kind, problem = facts["kind"], facts["spin"]
        if problem and kind == SERVER_NEWER:  # the other host has none of this kind
            raise UnsupportedFeature(f"{self._application.components[id].where}: it {problem}")
        if problem or kind < SERVER:
            raise OtherEngine(PORTABLE)
        bridged = self._bridged(id, facts["absent"])
        directory = os.open(artifact.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return NativePart(directory, f"{artifact.name}/{PROGRAM}", kind, bridged)

    def _bridged(self, id: str, absent: Collection[str]) -> list[str]:
        """Returns the interfaces of servers that a component has, and that it may connect to.

        :param absent: those that it imports

        :raises UnsupportedFeature: one is of a version that is not there
        """
        from shimd.apps.spin.networking import SERVERS, kind_of

        allowed = self._allowed[id]
        kinds = {kind for kind, schemes in SERVERS.items() if allowed.may_ever(*schemes)}
        wanted = [name for name in absent if kind_of(name) in kinds]
        if not wanted:
            return []
        from shimd.apps.spin.outbound.interfaces import INTERFACES

        for name in wanted:
            if name not in INTERFACES:
                where = self._application.components[id].where
                raise UnsupportedFeature(f"{where}: it imports {name}, which is not provided")
        return wanted

    def load(self, artifact: Path) -> NoReturn:
        raise OtherEngine(self.family)

    def pack_all(self, module: NativeApp, invocation: Invocation, first: int) -> Packed | None:
        parts = module.parts
        if any(part.bridged for part in parts.values()):
            return None  # somebody is to start what is on the other side
        if not 0 < len(parts) + len(self._directories) <= _MOST_HANDED:
            return None
        numbers = itertools.count(first)
        files = {id: next(numbers) for id in self._directories}
        there = {id: replace(part, directory=next(numbers)) for id, part in parts.items()}
        block = self._packed(there, files, invocation)
        return Packed(block, list(self._directories.values()), [part.directory for part in parts.values()])

    def check(self, module: NativeApp, invocation: Invocation) -> None:
        self.load_part()
        ask = self._begin_servers(module, invocation)
        packed = self._packed(module.parts, self._directories, invocation, ask)
        back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._native.load_packed(module.program, packed)
        finally:
            os.fchdir(back)
            for fd in (back, *(part.directory for part in module.parts.values())):
                os.close(fd)

    def _begin_servers(self, module: NativeApp, invocation: Invocation) -> int | None:
        """Have what connects to servers for components be started with the program.

        :returns: the descriptor that it is asked over; ``None``: it is not needed
        """
        bridged = {id: part.bridged for id, part in module.parts.items() if part.bridged}
        if not bridged:
            return None
        from shimd.apps.spin.networking import kind_of
        from shimd.apps.spin.servers import ServersProcess

        kinds = {kind_of(name) for names in bridged.values() for name in names}
        servers = ServersProcess(kinds, self._allowed, self._runtime.networking, invocation.env)
        module.program.begin = servers.start
        return servers.ask

    def _packed(
        self,
        parts: "Mapping[str, NativePart]",
        directories: Mapping[str, int],
        invocation: Invocation,
        ask: int | None = None,
    ) -> bytes:
        from shimd.apps.spin.native import describe
        from shimd.engines.wasmtime_native import packed_application

        described = describe(
            self._application,
            parts,
            directories,
            self._runtime,
            self._values,
            self._allowed,
            invocation.args[1:],
            invocation.env,
            _memory(invocation.env, self._runtime.memory),
            os.path.dirname(self._manifest),
            announced=not invocation.contained,
            ask=ask,
            told=self._told,
        )
        return packed_application(described.json(), _settings(invocation.env), contained=invocation.contained)

    def signals(self, module: NativeApp) -> Collection[int]:
        return module.program.handled

    def run(self, module: NativeApp, invocation: Invocation) -> int:
        return self._native.run(module.program, invocation)


def _layer(source: str | Layer) -> Layer:
    assert isinstance(source, Layer)  # a locked application has no others
    return source


def _told(env: Mapping[str, str]) -> Mapping[str, str]:
    """Returns what of an application is to be told by OpenTelemetry, each with its protocol.

    :raises InvalidSetting: a variable is wrong
    """
    if not any(name.startswith("OTEL_EXPORTER_OTLP") for name in env):
        return {}
    from shimd.otlp import protocols

    return protocols(env)


def engine() -> Engine[Any]:
    """Returns Spin by the native wheel if that is installed, else by the package from PyPI."""
    return NativeSpin() if NATIVE else SpinEngine()


def _memory(env: Mapping[str, str], configured: int | None) -> int:
    """Returns the most memory that an instance may have, bytes; -1: no limit but the container's.

    :param configured: what ``/runtime-config.toml`` says
    """
    text = env.get("SPIN_MAX_INSTANCE_MEMORY", "")
    if text and not text.isdigit():
        raise InvalidSetting(f"SPIN_MAX_INSTANCE_MEMORY={text} is not a number of bytes")
    if text:
        return int(text)
    return -1 if configured is None else configured


def _settings(env: Mapping[str, str]) -> "HttpSettings":
    from shimd.engines.http_settings import HttpSettings

    address = env.get("SPIN_HTTP_LISTEN_ADDR") or "0.0.0.0:80"
    try:
        return HttpSettings.of({**env, "WASMTIME_HTTP_PROXY_SOCKET_ADDR": address})
    except InvalidSetting as error:
        raise InvalidSetting(str(error).replace("WASMTIME_HTTP_PROXY_SOCKET_ADDR", "SPIN_HTTP_LISTEN_ADDR")) from None
