"""The triggers of an application, as ``spin.toml`` and a locked application both say them.

http: https://spinframework.dev/http-trigger, redis: https://spinframework.dev/redis-trigger; the others are plugins
of Spin's (``trigger-cron``, ``trigger-mqtt``, ``trigger-command``).
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from shimd.apps.spin import keys
from shimd.apps.spin.fields import ManifestTable
from shimd.apps.spin.model import CommandTrigger, CronTrigger, MqttServer, MqttTrigger, RedisTrigger, Triggers
from shimd.apps.spin.routes import SpinRoute, StaticResponse
from shimd.engine import InvalidSetting

KINDS = ("http", "redis", "cron", "mqtt", "command")
Declared = tuple[ManifestTable, str]
"""A trigger's settings, and the id of its component; empty: it calls none."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
#: Headers that the server writes.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


def checked(kind: str, table: ManifestTable) -> ManifestTable:
    """Returns a trigger's settings, which have no keys but those of its kind.

    :raises InvalidSetting: they have, or shimd has no such kind
    """
    if kind not in KINDS:
        raise table.wrong("", f"is a {kind} trigger; shimd runs {', '.join(KINDS)}")
    return table.of(keys.TRIGGERS[kind])


def component_of(kind: str, table: ManifestTable) -> str:
    """Returns the id of the component that a trigger calls; empty: a static response stands in its place.

    :raises InvalidSetting: it has neither, or both
    """
    there = [name for name in ("component", "static_response") if table.values.get(name) is not None]
    if kind != "http" or there == ["component"]:
        return table.text("component")
    if not there:
        raise table.wrong("component", "is missing, and static_response, too")
    if len(there) > 1:
        raise table.wrong("static_response", "answers without a component, and there is one: leave one of them out")
    return ""


def make(declared: Mapping[str, Sequence[Declared]], settings: ManifestTable, ids: Collection[str]) -> Triggers:
    """Returns the triggers, sorted by kind.

    :param settings: the settings of whole kinds: ``application.trigger``
    :raises InvalidSetting: what is wrong, and where
    """
    for kind in settings.values:
        if kind not in KINDS:
            raise settings.unknown(kind, KINDS)
    for table, component in (one for ones in declared.values() for one in ones):
        if component not in ids and table.values.get("static_response") is None:
            raise table.wrong("component", f"names {component!r}, which is no component")
    of_kinds = {kind: settings.table(kind, optional=True).of(keys.SETTINGS[kind]) for kind in KINDS}
    found = Triggers(
        http=_routes(declared.get("http", ()), of_kinds["http"]),
        redis=_each(_redis(of_kinds["redis"]), declared.get("redis", ())),
        cron=_each(_cron, declared.get("cron", ())),
        mqtt=_each(_mqtt, declared.get("mqtt", ())),
        command=tuple(CommandTrigger(table.place(), id) for table, id in declared.get("command", ())),
        mqtt_server=_mqtt_server(of_kinds["mqtt"]) if declared.get("mqtt") else None,
    )
    if not any(declared.values()):
        raise InvalidSetting(f"{settings.file} has no trigger ({', '.join(KINDS)}): no component would ever run")
    return found


def _each(make: Callable[[ManifestTable, str], Any], ones: Sequence[Declared]) -> tuple[Any, ...]:
    return tuple(make(table, component) for table, component in ones)


def _routes(ones: Sequence[Declared], settings: ManifestTable) -> tuple[SpinRoute, ...]:
    if settings.values.get("base", "/") != "/":
        raise settings.wrong("base", "is not supported: have it in each route")
    routes = [_route(table, component) for table, component in ones]
    seen: dict[str, str] = {}
    for route, (table, _component) in zip(routes, ones, strict=True):
        if route.path is None:
            continue
        if route.path in seen:
            owner = route.component or "its static_response"
            raise table.wrong("route", f"gives the route {route.path} to {owner}; {seen[route.path]} has it")
        seen[route.path] = route.component or "a static_response"
    return tuple(routes)


def _route(table: ManifestTable, component: str) -> SpinRoute:
    path, executor = table.values.get("route"), table.table("executor", optional=True)
    if executor.values.get("type", "http") not in ("http", "spin"):
        raise table.wrong("executor", "is one that shimd does not have: components export wasi:http/incoming-handler")
    executor.of(keys.EXECUTOR)
    response = None if component else _response(table.table("static_response").of(keys.STATIC_RESPONSE))
    if path == {"private": True}:
        return SpinRoute(None, component, response)
    if not isinstance(path, str) or not path.startswith("/"):
        raise table.wrong("route", 'must be a path that starts with "/", or { private = true }')
    if "..." in path and not path.endswith("/..."):
        raise table.wrong("route", f'"{path}": a wildcard (/...) can only come last')
    return SpinRoute(path, component, response)


def _response(table: ManifestTable) -> StaticResponse:
    status, headers = table.number("status_code"), table.texts("headers")
    if status is not None and not 200 <= status <= 999:
        raise table.wrong("status_code", f"is {status}, which is no answer's: those are 200 to 999")
    for name, value in headers.items():
        if not _HEADER.match(name) or not _VALUE.match(value):
            raise table.wrong(f"headers.{name}", "is no header")
        if name.lower() in _FRAMING:
            raise table.wrong(f"headers.{name}", "is for the server to write: leave it out")
    body = table.text("body", "") if table.values.get("body") is not None else ""
    plain = tuple((name, value.strip(" \t")) for name, value in headers.items())
    return StaticResponse(200 if status is None else status, plain, body.encode())


def _redis(settings: ManifestTable) -> Callable[[ManifestTable, str], RedisTrigger]:
    def make(table: ManifestTable, component: str) -> RedisTrigger:
        address = table.text("address", settings.text("address", ""))
        if not address:
            raise table.wrong("address", "is missing, and application.trigger.redis.address, too")
        return RedisTrigger(table.place(), component, table.text("channel"), address)

    return make


def _cron(table: ManifestTable, component: str) -> CronTrigger:
    from shimd.apps.spin import cron  # which few applications have

    expression = table.text("cron_expression")
    try:
        cron.parse(expression)
    except ValueError as error:
        raise table.wrong("cron_expression", f'"{expression}" {error}') from None
    return CronTrigger(table.place(), component, expression)


def _mqtt(table: ManifestTable, component: str) -> MqttTrigger:
    qos = _number(table, "qos", 0)
    if qos > 2:
        raise table.wrong("qos", "is not 0, 1 or 2")
    return MqttTrigger(table.place(), component, table.text("topic"), qos)


def _mqtt_server(settings: ManifestTable) -> MqttServer:
    return MqttServer(
        settings.text("address"),
        settings.text("username", ""),
        settings.text("password", ""),
        _number(settings, "keep_alive_interval", 30),
    )


def _number(table: ManifestTable, name: str, default: int) -> int:
    """Read a number, which the plugin takes in quotation marks, too."""
    text = str(table.values.get(name, default))
    if not text.isdigit():
        raise table.wrong(name, f"is {text}, which is no number")
    return int(text)
