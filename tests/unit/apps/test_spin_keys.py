"""Keys of ``spin.toml``, locked applications ``/runtime-config.toml``: applied or refused by name, never dropped."""

import json
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shimd.apps.spin import keys, locked, manifest
from shimd.apps.spin.model import Variable
from shimd.apps.spin.place import Place
from shimd.apps.spin.runtime import Runtime
from shimd.engine import InvalidSetting, Layer

#: Every key that shimd applies, and each table.
MANIFEST = """
spin_manifest_version = 2
[application]
name = "all"
version = "1"
trigger.http = { base = "/" }
trigger.redis = { address = "redis://a" }
trigger.mqtt = { address = "mqtt://a", username = "u", password = "p", keep_alive_interval = "3" }
trigger.cron = {}
trigger.command = {}
[variables]
word = { default = "w" }
other = { required = true }
[[trigger.http]]
component = "one"
route = "/..."
executor = { type = "http" }
[[trigger.http]]
route = "/inline"
component = { source = "inline.wasm" }
dependencies.middleware = [{ path = "m.wasm", inherit_configuration = true }, { component = "two" }]
[[trigger.http]]
route = "/old"
static_response = { status_code = 301, headers = { location = "/new" }, body = "moved" }
[[trigger.redis]]
component = "one"
channel = "c"
address = "redis://b"
[[trigger.cron]]
component = "one"
cron_expression = "* * * * * *"
[[trigger.mqtt]]
component = "one"
topic = "t"
qos = "1"
[[trigger.command]]
component = "one"
[component.one]
source = "app.wasm"
variables = { word = "{{ word }}" }
environment = { COLOUR = "green" }
files = ["a/*", { source = "b", destination = "/c" }]
exclude_files = ["a/b"]
allowed_outbound_hosts = ["http://a"]
allowed_http_hosts = ["b:81"]
key_value_stores = ["default"]
sqlite_databases = ["default"]
ai_models = ["small"]
dependencies_inherit_configuration = true
dependencies = { "a:b/c" = { path = "d.wasm", export = "e" }, "a:d" = { component = "two" } }
[component.two]
source = "two.wasm"
"""
MODULE = Layer("sha256:" + "a" * 64, "application/vnd.wasm.content.layer.v1+wasm", 10)
LOCKED: dict[str, Any] = {
    "spin_lock_version": 1,
    "must_understand": ["host_requirements"],
    "host_requirements": {"something": "optional"},
    "metadata": {
        "name": "all",
        "version": "1",
        "triggers": {"redis": {"address": "redis://a"}},
        "trigger": {"type": "redis", "address": "redis://a"},
    },
    "variables": {"word": {"default": "w"}},
    "triggers": [
        {"id": "a", "trigger_type": "http", "trigger_config": {"component": "one", "route": "/..."}},
        {"id": "b", "trigger_type": "redis", "trigger_config": {"component": "one", "channel": "c"}},
    ],
    "components": [
        {
            "id": "one",
            "metadata": {
                "allowed_outbound_hosts": ["http://a"],
                "allowed_http_hosts": ["b"],
                "key_value_stores": ["default"],
                "databases": ["default"],
                "ai_models": ["small"],
                "resolve-trigger-dependencies-using": "http",
            },
            "source": {"content_type": "application/wasm", "digest": MODULE.digest},
            "env": {"COLOUR": "green"},
            "config": {"word": "{{ word }}"},
            "host_requirements": {},
            "files": [{"path": "a", "digest": "sha256:x"}, {"path": "b", "inline": "YQ"}],
            "dependencies": {"a:b/c": {"source": {"digest": MODULE.digest}, "export": "d", "inherit": "All"}},
            "trigger_dependencies": {"middleware": [{"source": {"digest": MODULE.digest}}]},
        }
    ],
}
RUNTIME = """
state_dir = "state"
max_instance_memory = 1000
[key_value_store.default]
type = "spin"
path = "kv.db"
[key_value_store.cache]
type = "redis"
url = "redis://a"
[sqlite_database.default]
type = "spin"
path = "sql.db"
allow_attach_file = true
[sqlite_database.elsewhere]
type = "libsql"
url = "http://a"
token = "t"
[llm_compute]
type = "remote_http"
url = "http://a"
auth_token = "t"
api_type = "open_ai"
[[variables_provider]]
type = "static"
values = { word = "x" }
[[variables_provider]]
type = "env"
prefix = "OWN"
dotenv_path = "own.env"
[[variables_provider]]
type = "vault"
url = "http://a"
token = "t"
mount = "m"
prefix = "p"
[[config_provider]]
type = "file"
path = "values.json"
[outbound_networking]
block_networks = ["private"]
max_total_connections = 10
[[client_tls]]
component_ids = ["one"]
hosts = ["a"]
ca_use_platform_roots = true
ca_use_webpki_roots = true
[outbound_http]
connection_pooling = true
max_connections = 1
[outbound_redis]
max_connections = 1
[outbound_pg]
max_connections = 1
[outbound_mysql]
max_connections = 1
[outbound_mqtt]
max_connections = 1
max_payload_size_bytes = 1
"""


def read_manifest(text: str) -> None:
    manifest.parse(text.encode())


def read_locked(text: str) -> None:
    locked.parse(text.encode(), [MODULE])


def read_runtime(text: str) -> None:
    files = {"/runtime-config.toml": text.encode(), "/values.json": b"{}"}
    Runtime(Place(files.get), {}, {"word": Variable("w")}, ["one"])


class Seen(dict[str, Any]):
    """A table that notes which of its keys somebody has looked at."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({key: seen(value) for key, value in values.items()})
        self.looked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.looked.add(key)
        return super().get(key, default)

    def items(self) -> Any:
        self.looked.update(self)
        return super().items()

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()


def seen(value: Any) -> Any:
    match value:
        case dict():
            return Seen(value)
        case list():
            return [seen(item) for item in value]
    return value


def unseen(value: Any, where: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unseen(item, f"{where}[{index}]")
    if isinstance(value, Seen):
        for key in value.keys() - value.looked:
            yield f"{where}.{key}"
        for key in value.looked & value.keys():
            yield from unseen(dict.get(value, key), f"{where}.{key}")


@pytest.mark.parametrize(
    ("read", "text", "idle"),
    [
        (read_manifest, MANIFEST, set()),
        (read_locked, json.dumps(LOCKED), {".metadata.trigger", ".triggers[0].id", ".triggers[1].id"}),
        (read_runtime, RUNTIME, set()),
    ],
    ids=["spin.toml", "locked", "runtime-config.toml"],
)
def test_what_is_accepted_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], None], text: str, idle: set[str]
) -> None:
    whole: list[Any] = []

    def noted(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
        def parsed(text: Any) -> Any:
            whole.append(seen(parse(text)))
            return whole[-1]

        return parsed

    monkeypatch.setattr(tomllib, "loads", noted(tomllib.loads))
    monkeypatch.setattr(json, "loads", noted(json.loads))
    read(text)
    assert set(unseen(whole[0])) == idle


def test_the_samples_have_every_key() -> None:
    """Else a key could be let in that nobody applies."""
    samples = MANIFEST + json.dumps(LOCKED) + RUNTIME
    older = {"max_concurrent_requests"}  # beside its newer name it is refused
    files = {"ca_roots_file", "client_cert_file", "client_private_key_file"}  # test_spin_networking.py
    tables = [value for value in vars(keys).values() if isinstance(value, keys.Keys)]
    for kinds in (keys.TRIGGERS, keys.SETTINGS, keys.STORES, keys.DATABASES, keys.PROVIDERS, keys.OUTBOUND):
        tables += kinds.values()
    applied = {key for table in tables for key in table.applied}
    assert [key for key in sorted(applied - older - files) if key not in samples] == []


def added(text: str, after: str, line: str) -> str:
    assert after in text
    return text.replace(after, f"{after}\n{line}", 1)


MISSPELT = [
    ("spin_manifest_version = 2", "variable = {}", "variable is unknown; variables is probably meant"),
    ('name = "all"', 'triggers.http = {base = "/"}', "application.triggers is unknown; trigger is probably meant"),
    ('name = "all"', "trigger.htpp = {}", "application.trigger.htpp is unknown; http is probably meant"),
    ("[variables]", 'x = {defualt = ""}', "variables.x.defualt is unknown; default is probably meant"),
    ("[[trigger.http]]", 'routes = "/"', "trigger.http[0].routes is unknown; route is probably meant"),
    ("[[trigger.redis]]", 'chanel = "c"', "trigger.redis[0].chanel is unknown; channel is probably meant"),
    ("[[trigger.mqtt]]", "QoS = 1", "trigger.mqtt[0].QoS is unknown; there are component, components,"),
    (
        "[component.one]",
        'allowed_outbound_host = ["*://*:*"]',
        "component.one.allowed_outbound_host is unknown; allowed_outbound_hosts is probably meant",
    ),
    ("[component.one]", 'enviroment = {A = "b"}', "component.one.enviroment is unknown; environment is probably meant"),
]
REFUSED = [
    ("[[trigger.redis]]", 'dependencies.x = [{path = "auth.wasm"}]', "trigger.redis[0].dependencies is for http"),
    ("[[trigger.http]]", 'middleware = ["auth"]', "trigger.http[0].middleware would be called before the component"),
    ("[[trigger.http]]", 'components.x = "one"', "trigger.http[0].components would be called before the component"),
    (
        "[[trigger.http]]",
        'static_response = {body = "x"}',
        "trigger.http[0].static_response answers without a component",
    ),
    ("[component.two]", 'dependencies = {"a:b" = "1"}', "component.two.dependencies.a:b is in a registry"),
    ("[variables]", 'x = {default = "", required = true}', "variables.x has a default, and is required"),
    ("[variables]", "x = {required = 1}", "variables.x.required is neither true nor false"),
]


@pytest.mark.parametrize(("after", "line", "words"), [*MISSPELT, *REFUSED])
def test_manifests(after: str, line: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_manifest(added(MANIFEST, after, line))
    assert str(caught.value).startswith(f"/spin.toml: {words}")


def test_in_a_table_in_place() -> None:
    inline = 'component = { source = "inline.wasm", sources = "x" }'
    with pytest.raises(InvalidSetting, match=r"trigger.http\[1\].component.sources is unknown; source is probably"):
        read_manifest(MANIFEST.replace('component = { source = "inline.wasm" }', inline))
    with pytest.raises(
        InvalidSetting, match=r"component.one.files\[1\].dest is unknown; there are destination, source"
    ):
        read_manifest(MANIFEST.replace('{ source = "b", ', '{ source = "b", dest = "x", '))
    with pytest.raises(InvalidSetting, match=r"application\.trigger\.cron.zone is unknown; there is type"):
        read_manifest(MANIFEST.replace("trigger.cron = {}", 'trigger.cron = { zone = "UTC" }'))
    with pytest.raises(InvalidSetting, match=r"trigger.http\[0\].executor.kind is unknown"):
        read_manifest(MANIFEST.replace('{ type = "http" }', '{ kind = "x" }'))


@pytest.mark.parametrize("kind", ["sqs", "kinesis", "wagi"])
def test_triggers_that_are_not_there(kind: str) -> None:
    """What is there is told, by both forms of an application."""
    words = f"is a {kind} trigger; shimd runs http, redis, cron, mqtt, command"
    with pytest.raises(InvalidSetting) as caught:
        read_manifest(f'{MANIFEST}\n[[trigger.{kind}]]\ncomponent = "one"\nqueue_url = "https://q"\n')
    assert str(caught.value) == f"/spin.toml: trigger.{kind}[0] {words}"
    with pytest.raises(InvalidSetting) as caught:
        read_locked(changed(triggers__0__trigger_type=kind))
    assert str(caught.value) == f"the image's locked application: triggers[0].trigger_config {words}"


IDLE = [
    ("[application]", 'description = "d"\nauthors = ["a"]\ntargets = ["spin-up:3"]\ntool.x = { y = 1 }'),
    ("[variables]", 'secret = { default = "s", secret = true, description = "d" }'),
    ("[[trigger.http]]", 'id = "first"\ncomponents = {}\ndependencies = {}'),
    (
        "[component.one]",
        'description = "d"\nbuild = { command = "make", workdir = "x", watch = ["y"] }\ntool.x.y = 1\n'
        "targets = []\n"
        'profile.debug.source = "debug.wasm"',
    ),
]


@pytest.mark.parametrize(("after", "lines"), IDLE)
def test_what_has_no_bearing_here(after: str, lines: str) -> None:
    before, found = manifest.parse(MANIFEST.encode()), manifest.parse(added(MANIFEST, after, lines).encode())
    assert (found.components, found.triggers, found.name) == (before.components, before.triggers, before.name)


def test_every_key_without_a_bearing_has_its_reason() -> None:
    tables = [value for value in vars(keys).values() if isinstance(value, keys.Keys)]
    assert all(reason for table in tables for reason in [*table.idle.values(), *table.refused.values()])


def changed(**changes: Any) -> str:
    """The locked application with something else in it, by paths such as ``components__0__id``."""
    whole = json.loads(json.dumps(LOCKED))
    for path, value in changes.items():
        *parts, last = path.split("__")
        table = whole
        for part in parts:
            table = table[int(part) if part.isdigit() else part]
        table[last] = value
    return json.dumps(whole)


LOCKED_WRONG = [
    ({"trigger": []}, "trigger is unknown; triggers is probably meant"),
    ({"metadata__nmae": "x"}, "metadata.nmae is unknown; name is probably meant"),
    ({"variables__word": {"defaults": ""}}, "variables.word.defaults is unknown; default is probably meant"),
    ({"triggers__0__config": {}}, "triggers[0].config is unknown; trigger_config is probably meant"),
    ({"triggers__0__trigger_config__rout": ""}, "triggers[0].trigger_config.rout is unknown; route is probably meant"),
    (
        {"triggers__0__trigger_config__middleware": ["x"]},
        "triggers[0].trigger_config.middleware would be called before the component",
    ),
    (
        {"triggers__0__trigger_config__dependencies": {"middleware": [{"path": "x"}]}},
        "triggers[0].trigger_config.dependencies belongs to the trigger's component",
    ),
    (
        {"triggers__0__trigger_dependencies": {"middleware": [{}]}},
        "triggers[0].trigger_dependencies belongs to the trigger's component",
    ),
    ({"components__0__dependencies": {"a:b/c": {}}}, "components[0].dependencies.a:b/c.source is missing"),
    ({"components__0__envs": {}}, "components[0].envs is unknown; env is probably meant"),
    ({"components__0__metadata__ai_model": ["x"]}, "components[0].metadata.ai_model is unknown; ai_models is probably"),
    ({"components__0__metadata__database": []}, "components[0].metadata.database is unknown; databases is probably"),
    ({"components__0__source__digests": ""}, "components[0].source.digests is unknown; digest is probably meant"),
    ({"components__0__source__content_type": "x/y"}, "components[0].source.content_type is x/y, and components are"),
    ({"components__0__files__0__mode": 1}, "components[0].files[0].mode is unknown; there are digest, inline, path,"),
    ({"components__0__files__1__digest": "sha256:x"}, "components[0].files[1].digest is not that of inline"),
    ({"components__0__host_requirements": {"magic": "required"}}, "components[0].host_requirements.magic is required"),
]


@pytest.mark.parametrize(("changes", "words"), LOCKED_WRONG)
def test_locked_applications(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_locked(changed(**changes))
    assert str(caught.value).startswith(f"the image's locked application: {words}")


def test_settings_of_a_locked_application_before_spin_2() -> None:
    text = changed(metadata={"name": "old", "trigger": {"type": "redis", "address": "redis://old"}})
    assert locked.parse(text.encode(), [MODULE]).triggers.redis[0].address == "redis://old"


RUNTIME_WRONG = [
    ('"state"', "stat_dir = 1", "stat_dir is unknown; state_dir is probably meant"),
    ('"state"', 'log_dir = "/logs"', "log_dir is not where shimd writes"),
    ("[llm_compute]", 'token = "t"', "llm_compute.token is unknown; auth_token is probably meant"),
    ('"state"', "max_instance_memory = -1", "max_instance_memory is no number, or a negative one"),
    ("[key_value_store.default]", 'paths = "x"', "key_value_store.default.paths is unknown; path is probably meant"),
    ("[key_value_store.cache]", 'path = "x"', "key_value_store.cache.path is unknown; there are type, url"),
    (
        "[sqlite_database.default]",
        "allow_attach = true",
        "sqlite_database.default.allow_attach is unknown; allow_attach_",
    ),
    ("[[variables_provider]]", "value = {}", "variables_provider[0].value is unknown; values is probably meant"),
    ("[[config_provider]]", 'prefix = "x"', "config_provider[0].prefix is unknown; there are path, type"),
    ("[outbound_networking]", "block_network = []", "outbound_networking.block_network is unknown; block_networks is"),
    ("[[client_tls]]", 'host = "x"', "client_tls[0].host is unknown; hosts is probably meant"),
    ("[outbound_http]", "max_connection = 1", "outbound_http.max_connection is unknown; max_connections is probably"),
    ("[outbound_http]", "max_concurrent_requests = 1", "outbound_http.max_concurrent_requests is the older name of"),
    ("[outbound_mqtt]", "max_payload = 1", "outbound_mqtt.max_payload is unknown; max_payload_size_bytes is probably"),
]


@pytest.mark.parametrize(("after", "line", "words"), RUNTIME_WRONG)
def test_runtime_configurations(after: str, line: str, words: str) -> None:
    text = added(RUNTIME.replace("max_instance_memory = 1000\n", ""), after, line)
    with pytest.raises(InvalidSetting) as caught:
        read_runtime(text)
    assert str(caught.value).startswith(f"/runtime-config.toml: {words}")


def test_the_older_list_of_hosts_is_added_to_the_newer() -> None:
    expected = ("http://a", "http://b:81", "https://b:81")
    assert manifest.parse(MANIFEST.encode()).components["one"].allowed_outbound_hosts == expected
    found = locked.parse(json.dumps(LOCKED).encode(), [MODULE]).components["one"]
    assert found.allowed_outbound_hosts == ("http://a", "http://b", "https://b")


def test_a_requirement_that_is_met() -> None:
    """Of components that call each other."""
    read_locked(changed(components__0__host_requirements={"local_service_chaining": "required"}))
