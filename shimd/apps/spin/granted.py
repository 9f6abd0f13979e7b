"""What the components of an application may connect to, by whichever host they are run."""

from collections.abc import Mapping, Sequence

from shimd.apps.spin.allowed import CHAINED, AllowedHosts, is_left_out
from shimd.apps.spin.model import Application, Component
from shimd.apps.spin.networking import SERVERS
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.variables import ApplicationVariables
from shimd.engine import InvalidSetting


def outbound(component: Component, values: ApplicationVariables) -> AllowedHosts:
    """Returns the hosts that a component may connect to, as far as they are known.

    :raises InvalidSetting: an entry is none
    """
    where = f"{component.where}.allowed_outbound_hosts"
    for entry in component.allowed_outbound_hosts:
        values.check(entry, where)
    entries = [entry for entry in component.allowed_outbound_hosts if not values.asks(entry)]
    return AllowedHosts(resolved(entries, values, where), where)


def resolved(entries: Sequence[str], values: ApplicationVariables, where: str) -> list[str]:
    """Returns entries with their variables' values, but for those that an empty one leaves out."""
    found = [(entry, values.resolve(entry, where)) for entry in entries]
    return [allowed for entry, allowed in found if not is_left_out(entry, allowed)]


def check_chains(application: Application, allowed: Mapping[str, AllowedHosts]) -> None:
    """Check that components that others may call by name are there, and answer requests.

    :raises InvalidSetting: one does not
    """
    answering = application.triggers.answering
    for id, hosts in allowed.items():
        for other in hosts.chained():
            if other not in answering:
                where = f"{application.components[id].where}.allowed_outbound_hosts"
                raise InvalidSetting(f"{where} names {other}{CHAINED}, which no http trigger calls")


def libraries(
    application: Application, runtime: Runtime, allowed: Mapping[str, AllowedHosts], late: Mapping[str, Sequence[str]]
) -> set[str]:
    """Returns the kinds of servers that this application connects to: of :data:`SERVERS`.

    :param late: entries that are not known yet, by component
    """
    found = {kind for kind, own in SERVERS.items() if any(one.may_ever(*own) for one in allowed.values())}
    schemes = {entry.partition("://")[0].lower() for entries in late.values() for entry in entries}
    if any("{" in scheme or scheme == "*" for scheme in schemes):
        return set(SERVERS)
    found |= {kind for kind, own in SERVERS.items() if schemes & {*own}}
    if application.triggers.redis or runtime.uses_redis:
        found.add("redis")
    if application.triggers.mqtt:
        found.add("mqtt")
    return found
