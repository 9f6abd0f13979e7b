"""Variables that servers are asked for: when, in which order, and what stands in."""

from collections.abc import Mapping, Sequence

import anyio
import pytest

from shimd.apps.spin.backends import ServiceError, Vault
from shimd.apps.spin.given_variables import ComponentVariables
from shimd.apps.spin.model import Application, Component, Triggers, Variable
from shimd.apps.spin.variables import ApplicationVariables, Provider
from shimd.engine import InvalidSetting

DECLARED = {"first": Variable(None), "second": Variable("default"), "third": Variable(None)}
HERE, THERE = Vault("http://here", "t", "m"), Vault("http://there", "t", "m")


class Servers:
    def __init__(self, given: Mapping[Vault, Mapping[str, str]]) -> None:
        self._given = given
        self.asked: list[tuple[str, str]] = []

    async def read(self, vault: Vault, name: str) -> str | None:
        self.asked.append((vault.url, name))
        return self._given.get(vault, {}).get(name)


def variables(providers: Sequence[Provider]) -> ApplicationVariables:
    return ApplicationVariables(Application("/spin.toml", "a", "1", DECLARED, {}, Triggers()), providers)


def test_the_order_of_providers() -> None:
    """Who comes before a server is not asked about by it; who comes after counts if the server has nothing."""
    found = variables([{"first": "1"}, HERE, {"second": "2", "third": "3"}, THERE])
    servers = Servers({HERE: {"second": "here"}, THERE: {"third": "there"}})
    assert [found.asks(f"{{{{ {name} }}}}") for name in DECLARED] == [False, True, True]
    assert found.resolve("{{ first }}{{first}}", "") == "11"
    assert anyio.run(found.ask, "{{ first }}-{{ second }}-{{third}}-{{third}}", servers.read) == "1-here-3-3"
    assert servers.asked == [("http://here", "second"), ("http://here", "third")]


def test_several_servers_and_the_default() -> None:
    found = variables([HERE, THERE, {"first": "last"}])
    servers = Servers({THERE: {"third": "there"}})
    assert anyio.run(found.ask, "{{ first }} {{ second }} {{ third }}", servers.read) == "last default there"
    with pytest.raises(ServiceError, match="the variable third, which is required, is given by no provider"):
        anyio.run(found.ask, "{{ third }}", Servers({}).read)


def test_what_is_needed_at_once_is_asked_for_once() -> None:
    found, servers = variables([HERE]), Servers({HERE: {"first": "now", "second": "x"}})
    now = anyio.run(found.now, ["{{ first }}", "{{first}} plain"], servers.read)
    assert now.resolve("<{{ first }}>", "") == "<now>"
    assert servers.asked == [("http://here", "first")]
    assert found.asks("{{ first }}") and now.asks("{{ second }}")


def test_a_component_that_is_given_what_is_not_declared() -> None:
    component = Component("c", "/spin.toml: component.c", "c.wasm", variables={"a": "{{ first }}{{ nobody }}"})
    with pytest.raises(
        InvalidSetting, match=r"component.c.variables.a uses the variable nobody, which is not declared"
    ):
        ComponentVariables(variables([HERE]), component, Servers({}).read)
