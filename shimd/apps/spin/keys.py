"""The keys of each table of ``spin.toml``, of a locked application and of ``/runtime-config.toml``: all that Spin has.

What shimd does with each is one of three things: it is applied, it has no bearing here, for the reason that stands
beside it, or it is refused with the way out. Nothing is passed over in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Keys:
    applied: frozenset[str]
    idle: Mapping[str, str] = field(default_factory=dict)
    """Keys without a bearing here, and why they have none."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Keys that are refused unless they are empty, and the way out: words that go on after the field's name."""

    @property
    def all(self) -> list[str]:
        return sorted({*self.applied, *self.idle, *self.refused})


def _keys(applied: str, idle: Mapping[str, str] | None = None, refused: Mapping[str, str] | None = None) -> Keys:
    return Keys(frozenset(applied.split()), idle or {}, refused or {})


_ABOUT = {"description": "it is for people"}
_TOOLS = {
    "targets": "it is checked when the application is built",
    "tool": "it is for tools and plugins: Spin itself ignores it",
}
_IN_DEPENDENCIES = "would be called before the component, and that is written dependencies.middleware"
_NO_MIDDLEWARE = "is for http triggers: no other has components besides the one that it calls"
BY_COMPONENTS = "belongs to the trigger's component in a locked application, and would not be called here"
_ELSEWHERE = "is to be fetched from elsewhere; an image has to bring it along as a file ({ path })"
_FETCHED = dict.fromkeys(("version", "registry", "package", "url", "digest"), _ELSEWHERE)

MANIFEST = _keys("spin_manifest_version application variables trigger component")
APPLICATION = _keys("name version trigger", {**_ABOUT, **_TOOLS, "authors": "it is for people"})
VARIABLE = _keys("default required", {**_ABOUT, "secret": "shimd writes the values of variables nowhere"})
COMPONENT = _keys(
    "source variables environment files exclude_files allowed_outbound_hosts key_value_stores sqlite_databases "
    "allowed_http_hosts ai_models dependencies dependencies_inherit_configuration",
    {
        **_ABOUT,
        **_TOOLS,
        "build": "the component has been built",
        "profile": "it is for spin build and spin up --profile; the default profile is what runs",
    },
)
FILES = _keys("source destination")
DEPENDENCY = _keys("path component export inherit_configuration", refused=_FETCHED)
#: A trigger's dependencies by their roles, and one of those.
TRIGGER_DEPENDENCIES = _keys("middleware")
MIDDLEWARE = _keys("path component inherit_configuration", refused=_FETCHED)

STATIC_RESPONSE = _keys("status_code headers body")

_TRIGGER = {"id": "it is a name for messages; shimd's name the field"}
_ELSE = dict.fromkeys(("components", "dependencies", "middleware"), _NO_MIDDLEWARE)
#: A trigger's, by its kind.
TRIGGERS = {
    "http": _keys(
        "component static_response route executor dependencies",
        _TRIGGER,
        dict.fromkeys(("components", "middleware"), _IN_DEPENDENCIES),
    ),
    "redis": _keys("component channel address", _TRIGGER, _ELSE),
    "cron": _keys("component cron_expression", _TRIGGER, _ELSE),
    "mqtt": _keys("component topic qos", _TRIGGER, _ELSE),
    "command": _keys("component", _TRIGGER, _ELSE),
}
_KIND = {"type": "it is the trigger's kind, as manifests of version 1 have it"}
#: The settings of all triggers of a kind: ``application.trigger``.
SETTINGS = {
    "http": _keys("base", _KIND),
    "redis": _keys("address", _KIND),
    "cron": _keys("", _KIND),
    "mqtt": _keys("address username password keep_alive_interval", _KIND),
    "command": _keys("", _KIND),
}
EXECUTOR = _keys("type")

LOCKED = _keys("spin_lock_version must_understand metadata host_requirements variables triggers components")
LOCKED_METADATA = _keys(
    "name version triggers trigger",
    {
        **_ABOUT,
        "authors": "it is for people",
        "origin": "it is where the manifest was",
        "profile": "it is what was built, and pushed",
    },
)
LOCKED_VARIABLE = _keys("default", {**_ABOUT, "secret": "shimd writes the values of variables nowhere"})
LOCKED_TRIGGER = _keys("trigger_type trigger_config", _TRIGGER, {"trigger_dependencies": BY_COMPONENTS})
LOCKED_COMPONENT = _keys(
    "id metadata source env files config host_requirements dependencies trigger_dependencies",
)
LOCKED_DEPENDENCY = _keys("source export inherit")
LOCKED_COMPONENT_METADATA = _keys(
    "allowed_outbound_hosts allowed_http_hosts key_value_stores databases ai_models resolve-trigger-dependencies-using",
    {**_ABOUT, "build": "the component has been built"},
)
_WHERE_IT_WAS = {"source": "it is where the content was when it was pushed"}
LOCKED_SOURCE = _keys("content_type digest", _WHERE_IT_WAS, {"inline": "is a module that stands in the manifest"})
LOCKED_FILE = _keys("path digest inline", _WHERE_IT_WAS)

RUNTIME = _keys(
    "state_dir max_instance_memory key_value_store sqlite_database variables_provider config_provider "
    "llm_compute outbound_networking client_tls outbound_http outbound_redis outbound_pg outbound_mysql outbound_mqtt",
    refused={
        "log_dir": "is not where shimd writes: what components write is the container's stdout and stderr",
    },
)
#: By ``type``.
STORES = {"spin": _keys("type path"), "redis": _keys("type url")}
DATABASES = {"spin": _keys("type path allow_attach_file"), "libsql": _keys("type url token")}
PROVIDERS = {
    "static": _keys("type values"),
    "env": _keys("type prefix dotenv_path"),
    "file": _keys("type path"),
    "vault": _keys("type url token mount prefix"),
}
LLM = _keys("type url auth_token api_type")
OUTBOUND_NETWORKING = _keys(
    "block_networks max_total_connections",
    refused={"max_socket_connections": "is not counted: allow components fewer hosts by tcp and udp"},
)
CLIENT_TLS = _keys(
    "component_ids hosts ca_use_platform_roots ca_use_webpki_roots ca_roots_file client_cert_file "
    "client_private_key_file"
)
#: Of the tables that are about one protocol.
OUTBOUND = {
    "outbound_http": _keys("connection_pooling max_connections max_concurrent_requests"),
    "outbound_redis": _keys("max_connections"),
    "outbound_pg": _keys("max_connections"),
    "outbound_mysql": _keys("max_connections"),
    "outbound_mqtt": _keys("max_connections max_payload_size_bytes"),
}
