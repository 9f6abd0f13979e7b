"""What components connect to: redis, PostgreSQL, MariaDB and Mosquitto, all real; and what they may not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
import redis as redis_client

from shimd.apps.spin.clients import Clients, MqttAddress
from shimd.engines.wasmtime import NATIVE
from shimd.wasi.trust import BuiltIn, Trust
from tests import servers
from tests.e2e.box import Box, until
from tests.e2e.spin_app import SPIN, App, image, is_native, on_spin, running

MANIFEST = """
spin_manifest_version = 2
application = { name = "outbound" }
[variables]
secret = { required = true }
word = { default = "default" }
[[trigger.http]]
route = "/..."
component = "free"
[[trigger.http]]
route = "/bound/..."
component = "bound"
[component.free]
source = "app.wasm"
allowed_outbound_hosts = ["redis://127.0.0.1:*", "mysql://127.0.0.1:*", "postgres://127.0.0.1:*", "mqtt://127.0.0.1:*"]
key_value_stores = ["default"]
variables = { secret = "{{ secret }}", word = "{{ word }}" }
[component.bound]
source = "app.wasm"
allowed_outbound_hosts = ["http://127.0.0.1:*"]
"""
STORE = """
[key_value_store.default]
type = "redis"
url = "%s"
"""
RUNTIME = """
[[variables_provider]]
type = "file"
path = "/secrets/app"
[[variables_provider]]
type = "env"
prefix = "OWN"
dotenv_path = "settings.env"
"""
pytestmark = [on_spin]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with servers.redis() as address:
        yield address


@pytest.fixture
def app(box: Box, tmp_path: Path) -> Iterator[App]:
    with served(box, tmp_path, RUNTIME) as app:
        assert is_native(box) == (NATIVE and box.runtime == SPIN)
        yield app


@contextmanager
def served(box: Box, tmp_path: Path, runtime: str) -> Iterator[App]:
    """Its variables are in files."""
    files = {
        "/runtime-config.toml": runtime.encode(),
        "/secrets/app/secret": b"from a file\n",
        "/settings.env": b"# of the application\nexport OWN_WORD='from dotenv'\nOWN_SECRET=too late\n",
    }
    box.ctr("images", "import", str(image(tmp_path / "outbound.tar", SPIN.image, MANIFEST, files)))
    with running(box) as app:
        yield app


def test_a_store_in_redis(box: Box, tmp_path: Path) -> None:
    """Of the portable host, on both."""
    with servers.redis() as redis, served(box, tmp_path, RUNTIME + STORE % redis) as app:
        assert not is_native(box)
        check_variables(app)
        check_redis(app, redis.removeprefix("redis://"))
        check_store(app, redis)


def test_redis(app: App, redis: str) -> None:
    check_variables(app)
    check_redis(app, redis.removeprefix("redis://"))


def check_variables(app: App) -> None:
    assert app.value("/variable/secret") == "from a file", "a provider goes before the environment"
    assert app.value("/variable/word") == "from dotenv"


def check_redis(app: App, address: str) -> None:
    assert app.value(f"/redis/{address}") == {
        "get": "value",
        "missing": None,
        "incr": [1, 2],
        "sadd": 2,
        "srem": 1,
        "smembers": ["b"],
        "execute": [
            ["Status", "OK"],
            ["Binary", "7"],
            ["Nil", None],
            ["Int64", 1],
            ["Binary", "7"],
            ["Binary", "value"],
        ],
    }
    assert app.get(f"/redis-type-error/{address}").json() == "Error_TypeError"
    assert app.get("/redis/127.0.0.1:1").json() == "Error_Other", "nobody is there"
    for elsewhere in (f"/bound/redis/{address}", f"/redis/localhost:{address.partition(':')[2]}"):
        assert app.get(elsewhere).json() == "Error_InvalidAddress", elsewhere


def check_store(app: App, redis: str) -> None:
    assert [app.value("/counter") for _ in range(2)] == [1, 2]
    assert [app.value("/increment") for _ in range(2)] == [5, 10]
    assert app.value("/swap") == [None, "CasError_CasFailed"]
    found = app.value("/keys")
    assert {"a", "count", "atomic", "swapped"} <= set(found["keys"])
    assert (found["exists"], found["b"]) == ([True, False], None)
    with redis_client.Redis.from_url(redis) as client:
        assert client.get("count") == b"2"
        client.set("count", b"41")
    assert app.value("/counter") == 42


def test_postgres(app: App) -> None:
    with servers.postgres() as address:
        where = urlsplit(address).netloc
        check_old_postgres(app, where)
        check_postgres(app, where)
        assert app.get(f"/bound/postgres-values/{where}").json() == "Error_ConnectionFailed"
        assert app.get("/postgres-values/owner:wrong@" + where.rpartition("@")[2]).json() == "Error_ConnectionFailed"


def check_old_postgres(app: App, where: str) -> None:
    """The interface that spin-sdk 2 had."""
    assert app.value(f"/postgres-values/{where}") == {
        "changed": 2,
        "columns": [
            ["name", "STR"],
            ["long", "INT32"],
            ["two", "INT16"],
            ["eight", "INT64"],
            ["f", "FLOATING64"],
            ["yes", "BOOLEAN"],
            ["raw", "BINARY"],
            ["none", "STR"],
            ["day", "OTHER"],
        ],
        "rows": [
            [
                ["Str", "'ada'"],
                ["Int32", "3"],
                ["Int16", "1"],
                ["Int64", "2"],
                ["Floating64", "1.5"],
                ["Boolean", "True"],
                ["Binary", "00ff"],
                ["DbNull", "None"],
                ["Unsupported", "None"],
            ]
        ],
    }


def check_postgres(app: App, where: str) -> None:
    assert app.value(f"/postgres-moments/{where}")["rows"] == [
        [
            ["Date", "(2024, 2, 29)"],
            ["Time", "(23, 59, 58, 1000)"],
            ["Datetime", "(1999, 12, 31, 1, 2, 3, 0)"],
            ["Datetime", "(1970, 1, 2, 0, 0, 0, 0)"],
        ]
    ]
    found = app.value(f"/postgres-more/{where}")
    assert [kind for _name, kind in found["columns"]][-3:] == [
        "DbDataType_ArrayDecimal",
        "DbDataType_Interval",
        "DbDataType_Other",
    ]
    assert found["rows"] == [
        [
            ["Uuid", "'12345678-1234-5678-1234-567812345678'"],
            ["Jsonb", b'{"a": [1]}'.hex()],
            ["Decimal", "'123.4500'"],
            ["RangeInt32", "((1, <RangeBoundKind.INCLUSIVE: 0>), (5, <RangeBoundKind.EXCLUSIVE: 1>))"],
            ["RangeDecimal", "(None, ('2.5', <RangeBoundKind.INCLUSIVE: 0>))"],
            ["ArrayStr", "['a', None]"],
            ["ArrayDecimal", "['1.10', None]"],
            ["Interval", "Interval(micros=5, days=3, months=14)"],
            ["Unsupported", b"1.2.3.4".hex()],
        ]
    ]
    assert app.value(f"/postgres-error/{where}") == ["Error_QueryFailed", "42P01"]
    assert app.get(f"/postgres-wrong-type/{where}").json() == "Error_BadParameter"


def test_mariadb(app: App) -> None:
    with servers.mariadb() as address:
        where = urlsplit(address).netloc
        assert app.value(f"/mysql-values/{where}") == {
            "columns": [
                ["id", "INT32"],
                ["small", "INT8"],
                ["big", "UINT64"],
                ["f", "FLOATING64"],
                ["t", "STR"],
                ["b", "BINARY"],
                ["day", "OTHER"],
                ["n", "INT32"],
            ],
            "rows": [
                [
                    ["Int32", "1"],
                    ["Int8", "-5"],
                    ["Uint64", str(1 << 63)],
                    ["Floating64", "0.5"],
                    ["Str", repr("O'Neill \\ 100% ? ü")],
                    ["Binary", "00ff27"],
                    ["Unsupported", "None"],
                    ["DbNull", "None"],
                ]
            ],
        }
        assert app.get(f"/mysql-error/{where}").json() == "Error_QueryFailed"
        assert app.get(f"/bound/mysql-values/{where}").json() == "Error_ConnectionFailed"
        assert app.get("/mysql-values/owner:wrong@" + where.rpartition("@")[2]).json() == "Error_ConnectionFailed"


def test_mqtt(app: App) -> None:
    with servers.mosquitto() as (host, port):
        seen = anyio.run(listen, app, host, port)
        assert seen == [b"21"] * 3, "once with each quality of service"
        assert app.get(f"/bound/mqtt-publish/{host}:{port}/rooms/21").json() == "Error_ConnectionFailed"
    assert app.get(f"/mqtt-publish/{host}:{port}/rooms/21").json() == "Error_ConnectionFailed"


async def listen(app: App, host: str, port: int) -> list[bytes]:
    """What an app publishes."""
    async with Clients(["mqtt"], Trust(BuiltIn(), {})).mqtt(MqttAddress(host, port, tls=False)) as client:
        await client.subscribe("rooms", 2)
        await anyio.to_thread.run_sync(app.value, f"/mqtt-publish/{host}:{port}/rooms/21")
        found = []
        async for message in client.messages:
            found.append(message.payload)
            if len(found) == 3:
                break
        return found


def test_publish_by_redis(app: App, redis: str) -> None:
    with redis_client.Redis.from_url(redis) as client, client.pubsub(ignore_subscribe_messages=True) as messages:
        messages.subscribe("channel")
        until(lambda: client.pubsub_numsub("channel") == [(b"channel", 1)], "the subscription")
        app.value(f"/publish/{redis.removeprefix('redis://')}/channel/hello")
        until(lambda: (message := messages.get_message()) and message["data"] == b"hello", "the message")
