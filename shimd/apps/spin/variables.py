"""Application variables (https://spinframework.dev/variables): declared in the manifest, given by providers."""

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from shimd.apps.spin.model import VARIABLE_NAME, Application, Component
from shimd.component.results import Case, Err
from shimd.engine import InvalidSetting

_TEMPLATE = re.compile(r"\{\{\s*([^}\s]*)\s*\}\}")


class ApplicationVariables:
    """The variables of one application."""

    def __init__(self, application: Application, providers: Sequence[Mapping[str, str]]) -> None:
        """Ask the providers in their order for each variable.

        :raises InvalidSetting: a required one is given by none
        """
        self._values: dict[str, str] = {}
        for name, variable in application.variables.items():
            given = next((provider[name] for provider in providers if name in provider), variable.default)
            if given is None:
                way_out = f"set SPIN_VARIABLE_{name.upper()}, or give it in a variable provider"
                raise InvalidSetting(f"the variable {name} is required: {way_out}")
            self._values[name] = given

    def resolve(self, template: str, where: str) -> str:
        """Returns a template with the values in their places.

        :param where: manifest and field, for messages
        :raises InvalidSetting: it uses one that is not declared
        """

        def value(match: re.Match[str]) -> str:
            if match[1] not in self._values:
                raise InvalidSetting(f"{where} uses the variable {match[1]}, which is not declared")
            return self._values[match[1]]

        return _TEMPLATE.sub(value, template)

    def of(self, component: Component) -> dict[str, str]:
        """Returns the variables that a component may read."""
        return {
            name: self.resolve(template, f"{component.where}.variables.{name}")
            for name, template in component.variables.items()
        }


class Variables:
    """``fermyon:spin/variables@2.0.0``."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str:
        if not VARIABLE_NAME.match(name):
            raise Err(Case("invalid-name", name))
        if name not in self._values:
            _undefined(name)
        return self._values[name]


def _undefined(name: str) -> NoReturn:
    raise Err(Case("undefined", f"no variable for {name!r} is given to this component"))


class ConfigStore:
    """``wasi:config/store``, its draft of 2024-09-27: the same values."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, key: str) -> str | None:
        return self._values.get(key)

    def get_all(self) -> list[tuple[str, str]]:
        return list(self._values.items())
