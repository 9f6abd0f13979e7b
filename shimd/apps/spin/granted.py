"""What the components of an application may connect to, by whichever host they are run."""

from collections.abc import Mapping, Sequence

from shimd.apps.spin.allowed import CHAINED, AllowedHosts, is_left_out
from shimd.apps.spin.clients import KINDS
from shimd.apps.spin.model import Application, Component
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.variables import ApplicationVariables
from shimd.engine import InvalidSetting


def outbound(component: Component, values: ApplicationVariables) -> AllowedHosts:
    """:raises InvalidSetting: an entry is none"""
    where = f"{component.where}.allowed_outbound_hosts"
    resolved = [(entry, values.resolve(entry, where)) for entry in component.allowed_outbound_hosts]
    return AllowedHosts([allowed for entry, allowed in resolved if not is_left_out(entry, allowed)], where)


def check_chains(application: Application, allowed: Mapping[str, AllowedHosts]) -> None:
    """Check that components that others may call by name are there, and answer requests.

    :raises InvalidSetting: one does not
    """
    answering = {route.component for route in application.triggers.http}
    for id, hosts in allowed.items():
        for other in hosts.chained():
            if other not in answering:
                where = f"{application.components[id].where}.allowed_outbound_hosts"
                raise InvalidSetting(f"{where} names {other}{CHAINED}, which no http trigger calls")


def libraries(application: Application, runtime: Runtime, allowed: Sequence[AllowedHosts]) -> set[str]:
    """Returns the kinds of servers that this application connects to: of :data:`KINDS`."""
    found = {kind for kind in KINDS if any(outbound.may_ever(kind, f"{kind}s") for outbound in allowed)}
    if application.triggers.redis or runtime.uses_redis:
        found.add("redis")
    if application.triggers.mqtt:
        found.add("mqtt")
    return found
