"""Locked applications, as ``spin registry push`` writes them."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from shimd.apps.spin import locked
from shimd.apps.spin.routes import SpinRoute
from shimd.engine import Content, InvalidSetting, Layer

MODULE = Layer("sha256:" + "a" * 64, "application/vnd.wasm.content.layer.v1+wasm", 10)


def application(**changes: Any) -> bytes:
    component = {"id": "one", "source": {"content_type": "application/wasm", "digest": MODULE.digest}}
    trigger = {"id": "t", "trigger_type": "http", "trigger_config": {"component": "one", "route": "/..."}}
    return json.dumps({"spin_lock_version": 1, "components": [component], "triggers": [trigger], **changes}).encode()


class Image:
    """One whose layers are here."""

    def __init__(self, layers: Sequence[Layer], text: bytes = b"") -> None:
        self.layers = layers
        self._text = text

    def read(self, _layer: Layer) -> bytes:
        return self._text

    def files(self, _contents: Any) -> int:
        raise NotImplementedError


def test_what_is_left_out_has_its_default() -> None:
    found = locked.parse(application(), [MODULE])
    assert (found.name, found.version, found.variables) == ("application", "0.0.0", {})
    component = found.components["one"]
    assert (component.source, component.contents, component.key_value_stores) == (MODULE, {}, ())


def test_an_executor_of_null() -> None:
    """So versions of Spin before 2 write one that the manifest does not name."""
    trigger = {"component": "one", "route": "/...", "executor": None}
    found = locked.parse(
        application(triggers=[{"id": "t", "trigger_type": "http", "trigger_config": trigger}]), [MODULE]
    )
    assert found.triggers.http == (SpinRoute("/...", "one"),)


@pytest.mark.parametrize("data", [b"", b"x", b"ab", b"abc", b"\xff" * 128])
def test_inline_files_have_no_padding(data: bytes) -> None:
    text = base64.b64encode(data).decode().rstrip("=")
    one = {"id": "one", "source": {"digest": MODULE.digest}, "files": [{"path": "a/b", "inline": text}]}
    found = locked.parse(application(components=[one]), [MODULE])
    assert found.components["one"].contents == {"a/b": Content(data=data)}


def test_triggers_of_several_kinds_with_their_settings() -> None:
    triggers = [
        {"id": "a", "trigger_type": "redis", "trigger_config": {"component": "one", "channel": "news"}},
        {"id": "b", "trigger_type": "cron", "trigger_config": {"component": "one", "cron_expression": "*/2 * * * * *"}},
        {"id": "c", "trigger_type": "mqtt", "trigger_config": {"component": "one", "topic": "t", "qos": "2"}},
    ]
    settings = {"redis": {"address": "redis://a"}, "mqtt": {"address": "mqtt://b", "keep_alive_interval": "7"}}
    found = locked.parse(application(triggers=triggers, metadata={"triggers": settings}), [MODULE]).triggers
    assert found.redis[0].address == "redis://a"
    assert found.cron[0].expression == "*/2 * * * * *"
    assert found.mqtt[0].qos == 2
    assert found.mqtt_server is not None
    assert found.mqtt_server.keep_alive == 7


def test_a_component_alone_is_an_application() -> None:
    package = Layer("sha256:" + "b" * 64, "application/wasm", 10)
    found = locked.find(Image([package]))
    assert found is not None
    assert [route.path for route in found.triggers.http] == ["/..."]
    assert found.components["main"].source == package


@pytest.mark.parametrize("layers", [[], [MODULE], [Layer("sha256:c", "application/wasm", 1)] * 2])
def test_images_that_are_none(layers: list[Layer]) -> None:
    assert locked.find(Image(layers)) is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"spin_lock_version": 2}, "spin_lock_version is neither 0 nor 1"),
    ({"must_understand": ["magic"]}, "must_understand names magic, which shimd does not know"),
    ({"host_requirements": {"x": "required"}}, "host_requirements.x is required"),
    ({"components": {}}, "components is not a list"),
    ({"components": [1]}, r"components\[0\] is not a table"),
    ({"components": [{"id": "one"}]}, r"components\[0\].source is missing"),
    (
        {"components": [{"id": "one", "source": {"digest": "sha256:x"}}]},
        r"source.digest is sha256:x, and the",
    ),
    ({"triggers": []}, "has no trigger"),
    ({"triggers": [{"trigger_type": "http", "trigger_config": {}}]}, r"trigger_config.component is missing"),
    ({"variables": {"a": {"default": 1}}}, "variables.a.default is missing, or not a string"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^the image's locked application.*{words}"):
        locked.parse(application(**changes), [MODULE])


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(InvalidSetting, match=r"^the image.s locked application is not"):
        locked.find(Image([Layer("sha256:x", locked.MEDIA_TYPE, 1)], text))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/"])
def test_paths_that_lead_elsewhere(path: str) -> None:
    one = {"id": "one", "source": {"digest": MODULE.digest}, "files": [{"path": path, "inline": ""}]}
    with pytest.raises(InvalidSetting, match="no path below the component's files"):
        locked.parse(application(components=[one]), [MODULE])
