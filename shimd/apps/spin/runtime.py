"""``/runtime-config.toml`` (https://spinframework.dev/dynamic-configuration): where an application keeps its state."""

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

from shimd.apps.spin import backends, keys
from shimd.apps.spin.backends import File, Libsql, Vault
from shimd.apps.spin.fields import ManifestTable, toml
from shimd.apps.spin.networking import networking
from shimd.apps.spin.place import Place
from shimd.engine import InvalidSetting

NAME = "runtime-config.toml"
_STATE = ".spin"
_DOTENV = ".env"
_PREFIX = "SPIN_VARIABLE"


class Runtime:
    """The stores, databases and variables of ``/runtime-config.toml``, and the defaults."""

    def __init__(
        self, place: Place, environment: Mapping[str, str], declared: Collection[str], components: Collection[str] = ()
    ) -> None:
        """:param declared: the application's variables
        :param components: all that it has

        :raises InvalidSetting: what is wrong, and where
        """
        table = toml(place.path(NAME), place.file(NAME) or b"").of(keys.RUNTIME)
        state = _state(table, place)
        default = File(state / "sqlite_key_value.db")
        self.stores: dict[str, File | str] = {"default": default, **_stores(table, place, state)}
        """Each a file, or the address of a redis."""
        default = File(state / "sqlite_db.db")
        self.databases: dict[str, File | Libsql] = {"default": default, **_databases(table, place, state)}
        self.models = backends.models(table)
        """The server of language models; ``None``: there is none."""
        self.networking = networking(table, place, components)
        self.memory = table.number("max_instance_memory")
        """The most that an instance may have, bytes; ``None``: it does not say."""
        if place.root == "/":  # our own variables are for all that we run
            environment = _with_plain(environment, declared)
        providers = [*table.tables("variables_provider"), *table.tables("config_provider")]
        self.variables: list[Mapping[str, str] | Vault] = [
            *(_provided(one, place, environment, declared) for one in providers),
            _environment(environment, declared),  # the last, as in Spin
            _environment(_dotenv(place.file(_DOTENV)), declared),
        ]

    @property
    def uses_redis(self) -> bool:
        return any(isinstance(store, str) for store in self.stores.values())


def _state(table: ManifestTable, place: Place) -> Path:
    """Returns the directory of the files that have no other place."""
    directory = table.text("state_dir", _STATE)
    if not directory:
        raise table.wrong("state_dir", "is empty, which keeps state in memory only: mount a tmpfs, and name it")
    return Path(place.path(directory))


def _stores(table: ManifestTable, place: Place, state: Path) -> dict[str, File | str]:
    found: dict[str, File | str] = {}
    kinds = table.table("key_value_store", optional=True)
    for label in kinds.values:
        settings = kinds.table(label)
        match settings.values.get("type"):
            case "spin":
                path = _path(settings.of(keys.STORES["spin"]), place, state / f"{label}.db")
                found[label] = File(path)
            case "redis":
                settings.of(keys.STORES["redis"])
                found[label] = settings.text("url")
            case kind:
                raise settings.wrong("type", f'is {kind!r}; shimd has "spin" (SQLite in a file) and "redis"')
    return found


def _databases(table: ManifestTable, place: Place, state: Path) -> dict[str, File | Libsql]:
    found: dict[str, File | Libsql] = {}
    kinds = table.table("sqlite_database", optional=True)
    for label in kinds.values:
        settings = kinds.table(label)
        match settings.values.get("type"):
            case "spin":
                attaches = settings.of(keys.DATABASES["spin"]).flag("allow_attach_file")
                found[label] = File(_path(settings, place, state / f"{label}.db"), attaches)
            case "libsql":
                found[label] = backends.libsql(settings.of(keys.DATABASES["libsql"]))
            case kind:
                raise settings.wrong("type", f'is {kind!r}; shimd has "spin" (SQLite in a file) and "libsql"')
    return found


def _path(settings: ManifestTable, place: Place, default: Path) -> Path:
    return Path(place.path(settings.text("path"))) if "path" in settings.values else default


def _provided(
    settings: ManifestTable, place: Place, environment: Mapping[str, str], declared: Collection[str]
) -> Mapping[str, str] | Vault:
    """Returns a provider's values of the declared variables, or a server to be asked for them."""
    kind = settings.values.get("type")
    if isinstance(kind, str) and kind in keys.PROVIDERS:
        settings.of(keys.PROVIDERS[kind])
    match kind:
        case "static":
            return settings.texts("values")
        case "env":
            prefix = settings.text("prefix", _PREFIX)
            own = _dotenv(place.file(path)) if (path := settings.text("dotenv_path", "")) else {}
            return _environment({**own, **environment}, declared, prefix)
        case "file":
            return _files(settings, place, declared)
        case "vault":
            return backends.vault(settings)
        case _:
            known = '"static" (values in place), "env" (with a prefix), "vault" and "file"'
            raise settings.wrong("type", f"is {kind!r}; shimd has {known}: mount its secrets as files")


def _files(settings: ManifestTable, place: Place, declared: Collection[str]) -> Mapping[str, str]:
    """Read values from a TOML or JSON file, or from a directory with a file for each, as Kubernetes mounts a Secret."""
    path = place.path(settings.text("path").rstrip("/"))
    text = place.contents(path)
    if text is None:
        each = {name: place.contents(f"{path}/{name}") for name in declared}
        return {name: _decoded(path, value).rstrip("\n") for name, value in each.items() if value is not None}
    try:
        values = json.loads(text) if path.endswith(".json") else tomllib.loads(_decoded(path, text))
    except ValueError as error:
        raise settings.wrong("path", f"names {path}, which is neither JSON nor TOML: {error}") from None
    if not isinstance(values, dict):
        raise settings.wrong("path", f"names {path}, which is no table of values")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _decoded(path: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidSetting(f"{path} is not UTF-8") from None


def _environment(environment: Mapping[str, str], declared: Collection[str], prefix: str = _PREFIX) -> dict[str, str]:
    """Returns the values of ``SPIN_VARIABLE_NAME``, or of another prefix, for each declared variable that has one."""
    variables = {name: f"{prefix}_{name.upper()}" if prefix else name.upper() for name in declared}
    return {name: environment[variable] for name, variable in variables.items() if variable in environment}


def _with_plain(environment: Mapping[str, str], declared: Collection[str]) -> dict[str, str]:
    """Returns the variables, where a plain ``NAME`` of a declared one overrides the prefixed, as in SpinKube."""
    plain = {f"{_PREFIX}_{name.upper()}": environment.get(name.upper()) for name in declared}
    return {**environment, **{name: value for name, value in plain.items() if value is not None}}


def _dotenv(text: bytes | None) -> dict[str, str]:
    """Parse ``NAME=VALUE`` lines, with quotation marks or without."""
    lines = [line.strip().removeprefix("export ") for line in (text or b"").decode(errors="replace").splitlines()]
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): _unquoted(value.strip()) for name, _equals, value in pairs}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
