"""An application as wasmtime's native host is told of it: all that it is, without this process
(``native/wasmtime/src/spin/application.rs``)."""

import binascii
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from shimd.apps.spin.allowed import AllowedHost, AllowedHosts
from shimd.apps.spin.backends import File
from shimd.apps.spin.granted import check_chains
from shimd.apps.spin.model import Application, Component, FileMount
from shimd.apps.spin.networking import Networking
from shimd.apps.spin.routes import SpinRoute
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.variables import ApplicationVariables

if TYPE_CHECKING:
    from shimd.apps.spin.client_tls import ClientTls

#: Kinds of keys that the library's TLS has, by their object identifiers: RSA, the curves P-256 and P-384, Ed25519.
_RSA, *_CURVES = (bytes.fromhex(text) for text in ("2a864886f70d010101", "2a8648ce3d030107", "2b81040022", "2b6570"))
#: Bytes that a key of RSA has, of 4096 bits and whatever is around it: it takes no longer ones.
_LONGEST = 2400
_KEY = re.compile(rb"-----BEGIN (RSA |EC |)PRIVATE KEY-----(.*?)-----END ", re.DOTALL)


@dataclass(frozen=True)
class DescribedHost:
    """An entry of ``allowed_outbound_hosts``."""

    scheme: str
    host: str
    ports: tuple[int, int] | None
    """From the first to before the last; ``None``: any."""
    network: str | None


@dataclass(frozen=True)
class DescribedFile:
    """A file of SQLite's."""

    path: str
    stores: bool
    """Whether it has key-value stores."""
    attaches: bool


@dataclass(frozen=True)
class DescribedTls:
    roots: str
    platform: bool
    webpki: bool
    certificate: str
    key: str


@dataclass(frozen=True)
class DescribedNetwork:
    blocked: Sequence[str]
    private: bool
    keeps: bool
    most: int | None
    """Requests under way at a time."""
    tls: Sequence[DescribedTls]


@dataclass(frozen=True)
class DescribedComponent:
    id: str
    cache: int
    """The directory that its compiled form is in, a descriptor."""
    artifact: str
    """Relative to that."""
    kind: int
    args: Sequence[str]
    env: Sequence[tuple[str, str]]
    variables: Sequence[tuple[str, str]]
    allowed: Sequence[DescribedHost]
    bridged: Sequence[str]
    """Interfaces that Python gives, over the bridge."""
    stores: Sequence[tuple[str, int | None]]
    """By their labels the indices of files; ``None``: there is no such one."""
    databases: Sequence[tuple[str, int | None]]
    models: Sequence[str]
    """That it is granted; none is there."""
    directory: int | None
    """A descriptor of its directory of files; else what there is of the container's."""
    mounts: Sequence[FileMount]
    excluded: Sequence[str]
    manifest: str
    """The manifest and the field that describe it, for messages."""
    tls: Sequence[tuple[str, int]]
    """By hosts the indices of TLS configurations."""


@dataclass(frozen=True)
class DescribedAnswer:
    """One that no component gives."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: str


@dataclass(frozen=True)
class DescribedSignal:
    name: str
    grpc: bool
    endpoint: str


@dataclass(frozen=True)
class DescribedTelemetry:
    signals: Sequence[DescribedSignal]
    servers: str
    """For messages."""


@dataclass(frozen=True)
class DescribedApplication:
    name: str
    version: str
    announced: bool
    memory: int | None
    env: Sequence[tuple[str, str]]
    components: Sequence[DescribedComponent]
    root: str
    """What the files of components are below, if they have no directories."""
    routes: Sequence[tuple[str, int | DescribedAnswer]]
    """Each to a component, by its index, or to an answer."""
    files: Sequence[DescribedFile]
    network: DescribedNetwork
    ask: int | None
    """The descriptor that connections to the process of those interfaces are asked for over, if there are any."""
    telemetry: DescribedTelemetry | None
    """What is told of it, if anything is."""

    def json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class NativePart:
    """A component's compiled form."""

    directory: int
    """That it is in, a descriptor."""
    artifact: str
    """Relative to that."""
    kind: int
    bridged: Sequence[str] = ()
    """Interfaces that Python gives it."""


def lacks(application: Application, runtime: Runtime) -> bool:
    """Returns whether it needs what the native host has not: another trigger than HTTP's, variables, stores or
    databases of servers, models, a client's certificate with a key of another kind."""
    triggers = application.triggers
    others = triggers.redis or triggers.cron or triggers.mqtt or triggers.command
    variables = any(not isinstance(provider, Mapping) for provider in runtime.variables)
    databases = any(not isinstance(where, File) for where in runtime.databases.values())
    keys = all(_is_known(one.key) for one in runtime.networking.tls if one.key)
    servers = variables or runtime.uses_redis or databases or runtime.models is not None
    return bool(others) or servers or not keys


def _is_known(key: bytes) -> bool:
    found = _KEY.search(key)
    if found is None:
        return False
    try:
        data = binascii.a2b_base64(found[2])
    except binascii.Error:
        return False
    is_rsa = found[1] == b"RSA " or _named(_RSA) in data
    return len(data) <= _LONGEST if is_rsa else any(_named(curve) in data for curve in _CURVES)


def _named(identifier: bytes) -> bytes:
    return bytes((6, len(identifier))) + identifier


def describe(
    application: Application,
    parts: Mapping[str, NativePart],
    directories: Mapping[str, int],
    runtime: Runtime,
    values: ApplicationVariables,
    allowed: Mapping[str, AllowedHosts],
    arguments: Sequence[str],
    env: Mapping[str, str],
    memory: int,
    root: str,
    *,
    announced: bool,
    ask: int | None,
    told: Mapping[str, str],
) -> DescribedApplication:
    """:param directories: descriptors of the components' files, by component
    :param allowed: the hosts that components may connect to
    :param env: the container's
    :param memory: the most that an instance may have, bytes; -1: no limit
    :param ask: a descriptor, which is the host's then
    :param told: what is told of it by OpenTelemetry, each with its protocol
    :param root: what the components' files are below, if they came in no layers

    :raises InvalidSetting: what is wrong with what components may connect to
    """
    check_chains(application, allowed)
    answering = application.triggers.answering
    files = {**runtime.databases, **{f"{label}/": where for label, where in runtime.stores.items()}}
    numbers = {name: number for number, name in enumerate(files)}
    network = runtime.networking

    def described(component: Component) -> DescribedComponent:
        id = component.id
        return DescribedComponent(
            id,
            parts[id].directory,
            parts[id].artifact,
            parts[id].kind,
            [id, *arguments],
            list(component.environment.items()),
            list(values.of(component).items()),
            _hosts(allowed[id]),
            parts[id].bridged,
            [(label, numbers.get(f"{label}/")) for label in component.key_value_stores],
            [(label, numbers.get(label)) for label in component.sqlite_databases],
            component.ai_models,
            directories.get(id),
            component.files,
            component.exclude_files,
            component.where,
            _own_tls(id, network.tls),
        )

    return DescribedApplication(
        application.name,
        application.version,
        announced,
        None if memory < 0 else memory,
        list(env.items()),
        [described(application.components[id]) for id in answering],
        root,
        [(route.path, _target(route, answering)) for route in application.triggers.http if route.path],
        [_file(name, where) for name, where in files.items() if isinstance(where, File)],
        _network(network),
        ask,
        _telemetry(told, env),
    )


def _telemetry(told: Mapping[str, str], env: Mapping[str, str]) -> DescribedTelemetry | None:
    if not told:
        return None
    from shimd import otlp  # few need it

    each = [DescribedSignal(name, how == otlp.GRPC, otlp.endpoint(env, name)) for name, how in told.items()]
    return DescribedTelemetry(each, otlp.servers(env, told))


def _target(route: SpinRoute, answering: Sequence[str]) -> int | DescribedAnswer:
    if route.response is None:
        return answering.index(route.component)
    return DescribedAnswer(route.response.status, route.response.headers, route.response.body.decode())


def _hosts(allowed: AllowedHosts) -> list[DescribedHost]:
    return [_host(entry) for entry in allowed.entries]


def _host(entry: AllowedHost) -> DescribedHost:
    ports = None if entry.ports is None else (entry.ports.start, entry.ports.stop)
    return DescribedHost(entry.scheme, entry.host, ports, str(entry.network) if entry.network else None)


def _file(name: str, where: File) -> DescribedFile:
    return DescribedFile(str(where.path), name.endswith("/"), where.attaches)


def _own_tls(component: str, configured: "Collection[ClientTls]") -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for number, one in enumerate(configured):
        for host in one.hosts if component in one.components else ():
            found.setdefault(host, number)
    return list(found.items())


def _network(networking: Networking) -> DescribedNetwork:
    most = networking.most("http")
    destinations = networking.destinations
    return DescribedNetwork(
        [str(network) for network in destinations.networks],
        destinations.private,
        networking.pooling and most is None,  # one that is kept would count
        most,
        [_tls(one) for one in networking.tls],
    )


def _tls(one: "ClientTls") -> DescribedTls:
    roots, certificate, key = (data.decode("ascii", "replace") for data in (one.roots, one.certificate, one.key))
    return DescribedTls(roots, one.platform, one.webpki, certificate, key)
