"""Who reaches which component of an application, by which name."""

from typing import cast

import pytest

from shimd.apps.http.handler import Handler
from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.application import SpinServer
from shimd.apps.spin.granted import check_chains
from shimd.apps.spin.model import Application, Component, Triggers
from shimd.apps.spin.neighbours import Neighbours
from shimd.apps.spin.routes import SpinRoute
from shimd.component.results import Err
from shimd.engine import InvalidSetting

COMPONENTS = {id: Component(id, f"/spin.toml: component.{id}", "app.wasm") for id in ("one", "two")}
APPLICATION = Application("/spin.toml", "a", "1", {}, COMPONENTS, Triggers(http=(SpinRoute(None, "one"),)))


def neighbours(*allowed: str, serves: bool = True) -> Neighbours:
    found = Neighbours(AllowedHosts(allowed, "x"))
    if serves:
        found.server = SpinServer(APPLICATION, {"one": cast(Handler, None)})
    return found


@pytest.mark.parametrize(
    ("allowed", "authority"),
    [
        ("http://one.spin.internal", "one.spin.internal"),
        ("http://*.spin.internal", "ONE.spin.internal:80"),
        ("*://*:*", "one.spin.internal"),
        ("http://self", ""),
        ("https://self.alt", "self.alt"),
        ("*://*:*", "self.alt:80"),
    ],
)
def test_who_is_reached(allowed: str, authority: str) -> None:
    assert neighbours(allowed)("http", authority) is not None


@pytest.mark.parametrize("authority", ["example.com", "one.spin.internal.example.com", "self", "spin.internal"])
def test_who_is_elsewhere(authority: str) -> None:
    assert neighbours("*://*:*")("http", authority) is None


@pytest.mark.parametrize(
    ("allowed", "authority", "error"),
    [
        ("http://two.spin.internal", "one.spin.internal", "HTTP-request-denied"),
        ("http://one.spin.internal", "one.spin.internal:81", "HTTP-request-denied"),
        ("http://example.com", "self.alt", "HTTP-request-denied"),
        ("http://example.com", "", "HTTP-request-denied"),
        ("*://*:*", "two.spin.internal", "destination-not-found"),
    ],
)
def test_who_is_not(allowed: str, authority: str, error: str) -> None:
    with pytest.raises(Err) as caught:
        neighbours(allowed)("http", authority)
    assert caught.value.value.tag == error


@pytest.mark.parametrize("authority", ["one.spin.internal", "self.alt"])
def test_an_application_that_serves_nothing(authority: str) -> None:
    with pytest.raises(Err) as caught:
        neighbours("*://*:*", serves=False)("http", authority)
    assert caught.value.value.tag == "destination-not-found"


def test_names_of_components_that_answer_nothing() -> None:
    check_chains(APPLICATION, {"two": AllowedHosts(["http://one.spin.internal", "http://*.spin.internal"], "x")})
    with pytest.raises(InvalidSetting) as caught:
        check_chains(APPLICATION, {"one": AllowedHosts(["http://two.spin.internal"], "x")})
    where = "/spin.toml: component.one.allowed_outbound_hosts"
    assert str(caught.value) == f"{where} names two.spin.internal, which no http trigger calls"
