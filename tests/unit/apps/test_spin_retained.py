"""Part of an application: ``SPIN_COMPONENTS_TO_RETAIN``, and components that nothing calls."""

import pytest

from shimd.apps.spin import manifest
from shimd.apps.spin.model import Application
from shimd.engine import InvalidSetting

MANIFEST = """
spin_manifest_version = 2
[application]
name = "a"
trigger.mqtt = { address = "mqtt://{{ broker }}" }
[variables]
broker = { default = "b" }
[[trigger.http]]
route = "/"
component = "front"
[[trigger.http]]
route = "/fixed"
static_response = {}
[[trigger.redis]]
component = "back"
channel = "c"
address = "redis://r"
[[trigger.cron]]
component = "back"
cron_expression = "* * * * * *"
[[trigger.mqtt]]
component = "other"
topic = "t"
[component.front]
source = "f.wasm"
allowed_outbound_hosts = ["http://back.spin.internal", "https://{{ broker }}.spin.internal"]
[component.back]
source = "b.wasm"
allowed_outbound_hosts = ["*://*:*"]
[component.other]
source = "o.wasm"
allowed_outbound_hosts = ["http://*.spin.internal"]
[component.idle]
source = "i.wasm"
"""


def retaining(ids: str) -> Application:
    return manifest.parse(MANIFEST.encode()).retaining(ids)


def test_all() -> None:
    """But what nothing calls, as in Spin: it may not even run here."""
    assert set(retaining("").components) == {"front", "back", "other"}


def test_the_triggers_of_one_go_with_it() -> None:
    found = retaining("back")
    assert set(found.components) == {"back"}
    triggers = found.triggers
    assert (triggers.http, triggers.mqtt, triggers.mqtt_server) == ((), (), None)
    assert len(triggers.redis) == len(triggers.cron) == 1


def test_several() -> None:
    """Static responses are no component's."""
    found = retaining("front, back, idle")
    assert set(found.components) == {"front", "back"}
    assert [route.path for route in found.triggers.http] == ["/"]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("nobody", "SPIN_COMPONENTS_TO_RETAIN names nobody, which /spin.toml has not"),
        ("idle", "SPIN_COMPONENTS_TO_RETAIN=idle: no trigger of /spin.toml calls what it names"),
        (
            "front",
            "/spin.toml: component.front.allowed_outbound_hosts names back.spin.internal, which "
            "SPIN_COMPONENTS_TO_RETAIN leaves out",
        ),
        (
            "other,back,front",
            r"/spin.toml: component.other.allowed_outbound_hosts names \*.spin.internal, and "
            "SPIN_COMPONENTS_TO_RETAIN may leave some of them out: name each",
        ),
    ],
)
def test_what_is_wrong(ids: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{words}$"):
        retaining(ids)
