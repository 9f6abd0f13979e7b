"""Application variables (https://spinframework.dev/variables): declared in the manifest, given by providers.

What a file or the environment gives is read once, and what a server gives each time that a guest asks.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from shimd.apps.spin.backends import ServiceError, Vault
from shimd.apps.spin.model import Application, Component
from shimd.engine import InvalidSetting

_TEMPLATE = re.compile(r"\{\{\s*([^}\s]*)\s*\}\}")

Provider = Mapping[str, str] | Vault
Read = Callable[[Vault, str], Awaitable[str | None]]
"""Asks a server for a variable; ``None``: it has none of that name.

:raises ServiceError: it cannot be asked
"""


@dataclass(frozen=True)
class _Asked:
    """A variable that servers are asked for, one after the other."""

    servers: Sequence[Vault]
    otherwise: str | None
    """The value if none of them has one; ``None``: then it is an error."""


class ApplicationVariables:
    """The variables of one application."""

    def __init__(self, application: Application, providers: Sequence[Provider]) -> None:
        """Look into the providers in their order for each variable; no server is asked yet.

        :raises InvalidSetting: a required one is given by none
        """
        self._known: dict[str, str] = {}
        self._asked: dict[str, _Asked] = {}
        for name, variable in application.variables.items():
            servers, given = _first(name, providers)
            value = variable.default if given is None else given
            if servers:
                self._asked[name] = _Asked(servers, value)
            elif value is None:
                way_out = f"set SPIN_VARIABLE_{name.upper()}, or give it in a variable provider"
                raise InvalidSetting(f"the variable {name} is required: {way_out}")
            else:
                self._known[name] = value

    def asks(self, template: str) -> bool:
        """Returns whether a server has to be asked for a template's values."""
        return any(name in self._asked for name in _TEMPLATE.findall(template))

    def resolve(self, template: str, where: str) -> str:
        """Returns a template with the values in their places; no server has to be asked for them.

        :param where: manifest and field, for messages
        :raises InvalidSetting: it uses one that is not declared
        """
        self.check(template, where)
        return _TEMPLATE.sub(lambda match: self._known[match[1]], template)

    def of(self, component: Component) -> dict[str, str]:
        """Returns the variables that a component may read, of which no server is asked."""
        return {
            name: self.resolve(template, f"{component.where}.variables.{name}")
            for name, template in component.variables.items()
        }

    def check(self, template: str, where: str) -> None:
        """:raises InvalidSetting: a template uses a variable that is not declared"""
        for name in _TEMPLATE.findall(template):
            if name not in self._known and name not in self._asked:
                raise InvalidSetting(f"{where} uses the variable {name}, which is not declared")

    async def ask(self, template: str, read: Read) -> str:
        """Returns a template with the values that they have now.

        :raises ServiceError: one cannot be had
        """
        now = await self.now([template], read)
        return _TEMPLATE.sub(lambda match: now._known[match[1]], template)

    async def now(self, templates: Iterable[str], read: Read) -> "ApplicationVariables":
        """Returns these variables with the values that those in some templates have now.

        :raises ServiceError: one cannot be had
        """
        found = copy(self)
        found._known, found._asked = dict(self._known), dict(self._asked)
        for name in dict.fromkeys(name for template in templates for name in _TEMPLATE.findall(template)):
            if name in self._asked:
                found._known[name] = await self._value(name, read)
                del found._asked[name]
        return found

    async def _value(self, name: str, read: Read) -> str:
        asked = self._asked[name]
        for server in asked.servers:
            try:
                value = await read(server, name)
            except ServiceError as error:
                raise ServiceError(f"the variable {name}: {error}") from None
            if value is not None:
                return value
        if asked.otherwise is None:
            raise ServiceError(f"the variable {name}, which is required, is given by no provider")
        return asked.otherwise


def _first(name: str, providers: Sequence[Provider]) -> tuple[list[Vault], str | None]:
    """Returns the servers to be asked for a variable, and what is given without one, if they have none."""
    servers: list[Vault] = []
    for provider in providers:
        if isinstance(provider, Vault):
            servers.append(provider)
        elif name in provider:
            return servers, provider[name]
    return servers, None
