"""Spin's other triggers, with real servers: two in one application, what they call, how they end."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client
from paho.mqtt import publish

from tests import servers
from tests.e2e.box import Box, until
from tests.e2e.spin_app import NO_PROGRAM, SPIN, image, on_spin, running

MANIFEST = """
spin_manifest_version = 2
[application]
name = "triggers"
[application.trigger.redis]
address = "redis://{{ server }}"
[application.trigger.mqtt]
address = "mqtt://{{ broker }}"
keep_alive_interval = "30"

[variables]
server = { required = true }
broker = { required = true }
channel = { default = "news" }

[[trigger.http]]
route = "/..."
component = "web"
[[trigger.redis]]
channel = "{{ channel }}"
component = "messages"
[[trigger.redis]]
channel = "other"
component = "messages"
[[trigger.cron]]
cron_expression = "* * * * * *"
component = "clock"
[[trigger.mqtt]]
topic = "rooms/+/temperature"
qos = "1"
component = "messages"

[component.web]
source = "app.wasm"
key_value_stores = ["default"]
[component.messages]
source = "app.wasm"
key_value_stores = ["default"]
[component.clock]
source = "app.wasm"
key_value_stores = ["default"]
"""
ONLY_REDIS = """
spin_manifest_version = 2
application = { name = "one" }
[[trigger.redis]]
address = "redis://127.0.0.1:%d"
channel = "news"
component = "messages"
[component.messages]
source = "app.wasm"
key_value_stores = ["default"]
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with servers.redis() as address:
        yield address


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@on_spin
def test_all_triggers_in_one_application(box: Box, redis: str, tmp_path: Path) -> None:
    """Messages and moments are seen by the component that answers requests: they share a store."""
    box.ctr("images", "import", str(image(tmp_path / "triggers.tar", SPIN.image, MANIFEST)))
    with servers.mosquitto() as (host, port):
        variables = {"SPIN_VARIABLE_SERVER": redis.removeprefix("redis://"), "SPIN_VARIABLE_BROKER": f"{host}:{port}"}
        with running(box, **variables) as app, redis_client.Redis.from_url(redis) as client:
            until(lambda: client.publish("news", b"first") and client.publish("other", b"\xc3\xbc"), "a listener")
            until(lambda: app.value("/noted/redis") == ["first", "ü"], "both messages")
            client.publish("news", b"trap")
            client.publish("news", b"after")
            until(lambda: app.value("/noted/redis") == ["first", "ü", "trap", "after"], "the next message")
            assert "shimd: messages: " in app.output.read_text()
            until(lambda: len(app.value("/noted/cron")) >= 2, "two moments")
            moments = [int(moment) for moment in app.value("/noted/cron")]
            assert moments == sorted(set(moments))
            publish.single("rooms/7/temperature", b"21", qos=1, retain=True, hostname=host, port=port)
            until(lambda: app.value("/noted/mqtt"), "a message of mqtt")
            assert app.value("/noted/mqtt")[0] == "rooms/7/temperature: 21"


@on_spin
def test_an_application_ends_with_the_first_of_its_triggers(box: Box, tmp_path: Path) -> None:
    """Its server is gone: Kubernetes starts it again."""
    with servers.redis() as address:
        manifest = ONLY_REDIS % port_of(address)
        box.ctr("images", "import", str(image(tmp_path / "one.tar", SPIN.image, manifest)))
        output = box.detach("app", flags=("--net-host",))
        with redis_client.Redis.from_url(address) as client:
            until(lambda: client.publish("news", b"x"), "a listener")
        assert box.status("app") == "RUNNING"
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137
    assert f"shimd: the redis trigger lost {address}" in output.read_text()


@on_spin
def test_no_server(box: Box, tmp_path: Path) -> None:
    box.ctr("images", "import", str(image(tmp_path / "none.tar", SPIN.image, ONLY_REDIS % 1)))
    done = box.run("app", flags=("--rm", "--net-host"))
    assert done.code == 137
    assert done.err.startswith("shimd: the redis trigger lost redis://127.0.0.1:1")


@on_spin
def test_without_http_it_ends_on_term(box: Box, redis: str, tmp_path: Path) -> None:
    manifest = ONLY_REDIS % port_of(redis)
    box.ctr("images", "import", str(image(tmp_path / "one.tar", SPIN.image, manifest)))
    box.detach("app", flags=("--net-host",))
    with redis_client.Redis.from_url(redis) as client:
        until(lambda: client.publish("news", b"x"), "a listener")
    box.kill("app", signal.SIGTERM.name)
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 0


COMMAND = """
spin_manifest_version = 2
application = { name = "command" }
[[trigger.command]]
component = "only"
[component.only]
source = "app.wasm"
"""
RUN = """(component
  (core module $m (func (export "run") (result i32) %s))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))"""
SPIN_ON = "(loop (br 0)) (i32.const 0)"


def command(box: Box, tmp_path: Path, body: str) -> None:
    path = image(tmp_path / "command.tar", SPIN.image, COMMAND, {"/app.wasm": (RUN % body).encode()})
    box.ctr("images", "import", str(path))


@on_spin
@pytest.mark.parametrize(("body", "code"), [("(i32.const 0)", 0), ("(i32.const 1)", 1), ("unreachable", 134)])
def test_a_command(box: Box, tmp_path: Path, body: str, code: int) -> None:
    """Its end is the application's."""
    command(box, tmp_path, body)
    done = box.run("app")
    assert done.code == code, done.err
    assert ("shimd: only: " in done.err) == (code == 134)


@on_spin
def test_a_command_that_does_not_end(box: Box, tmp_path: Path) -> None:
    command(box, tmp_path, SPIN_ON)
    box.detach("app")
    box.kill("app", "SIGTERM")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 0


WRONG = {
    "channel": ('channel = "news"\n', "trigger.redis[0].channel is missing, or not a string"),
    "address": ('address = "redis://127.0.0.1:%d"\n', "trigger.redis[0].address is missing"),
}


@on_spin
@pytest.mark.parametrize("what", WRONG)
def test_what_a_trigger_lacks(box: Box, tmp_path: Path, what: str) -> None:
    line, words = WRONG[what]
    manifest = ONLY_REDIS.replace(line, "").replace("%d", "1")
    path = image(tmp_path / "wrong.tar", SPIN.image, manifest, {"/app.wasm": NO_PROGRAM})
    box.ctr("images", "import", str(path))
    done = box.run("wrong")
    assert done.code != 0
    assert f"/spin.toml: {words}" in done.err, done.err
