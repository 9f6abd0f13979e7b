"""The interfaces by which a component reads the variables that it is given."""

from shimd.apps.spin.backends import ServiceError
from shimd.apps.spin.model import VARIABLE_NAME, Component
from shimd.apps.spin.variables import ApplicationVariables, Read
from shimd.component.results import Case, Err
from shimd.wasi.waiting import wait_for


class ComponentVariables:
    """What one component may read."""

    def __init__(self, values: ApplicationVariables, component: Component, read: Read) -> None:
        """:raises InvalidSetting: it is given a variable that is not declared"""
        self._values, self._read = values, read
        self._known: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        """Templates."""
        for name, template in component.variables.items():
            where = f"{component.where}.variables.{name}"
            if values.asks(template):
                values.check(template, where)
                self._asked[name] = template
            else:
                self._known[name] = values.resolve(template, where)

    def get(self, name: str) -> str | None:
        """Called on a guest's thread. ``None``: the component is given no such variable.

        :raises ServiceError: its value cannot be had now
        """
        if name in self._asked:
            return wait_for(self._values.ask, self._asked[name], self._read)
        return self._known.get(name)

    def all(self) -> dict[str, str]:
        """Called on a guest's thread.

        :raises ServiceError: a value cannot be had now
        """
        return {**self._known, **(wait_for(self._all) if self._asked else {})}

    async def _all(self) -> dict[str, str]:
        return {name: await self._values.ask(template, self._read) for name, template in self._asked.items()}


class Variables:
    """``fermyon:spin/variables@2.0.0``."""

    def __init__(self, given: ComponentVariables) -> None:
        self._given = given

    def get(self, name: str) -> str:
        if not VARIABLE_NAME.match(name):
            raise Err(Case("invalid-name", name))
        try:
            value = self._given.get(name)
        except ServiceError as error:
            raise Err(Case("provider", str(error))) from None
        if value is None:
            raise Err(Case("undefined", f"no variable for {name!r} is given to this component"))
        return value


class ConfigStore:
    """``wasi:config/store``, its draft of 2024-09-27: the same values."""

    def __init__(self, given: ComponentVariables) -> None:
        self._given = given

    def get(self, key: str) -> str | None:
        try:
            return self._given.get(key)
        except ServiceError as error:
            raise Err(Case("upstream", str(error))) from None

    def get_all(self) -> list[tuple[str, str]]:
        try:
            return list(self._given.all().items())
        except ServiceError as error:
            raise Err(Case("upstream", str(error))) from None
