"""Addresses and statements, as components give them: what is made of them before a server sees any."""

import pytest

from shimd.apps.spin.clients import Clients, MqttAddress, shown
from shimd.apps.spin.outbound.mysql import _marked
from shimd.apps.spin.outbound.postgres import PostgresServer
from shimd.apps.spin.outbound.redis import _flat
from shimd.wasi.trust import BuiltIn, Trust


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgres://u:p@h:1/d", PostgresServer("h", 1, "u", "p", "d", "prefer")),
        ("postgresql://h", PostgresServer("h", 5432, "postgres", None, None, "prefer")),
        ("postgres://u%40x:p%2F@h/d?sslmode=require", PostgresServer("h", 5432, "u@x", "p/", "d", "require")),
        (
            "host=h user=u password='p w' dbname=d port=2 sslmode=disable",
            PostgresServer("h", 2, "u", "p w", "d", "disable"),
        ),
    ],
)
def test_addresses_of_postgres(address: str, expected: PostgresServer) -> None:
    assert PostgresServer.parse(address) == expected


@pytest.mark.parametrize("address", ["", "h", "host=/var/run", "mysql://h", "user=u", "postgres://h:x/", "host='h"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError):
        PostgresServer.parse(address)


@pytest.mark.parametrize(
    ("statement", "marked", "count"),
    [
        ("SELECT ?", "SELECT %s", 1),
        ("SELECT ?, '?', \"?\", `?`, ?", "SELECT %s, '?', \"?\", `?`, %s", 2),
        ("SELECT 'it''s ?', ?", "SELECT 'it''s ?', %s", 1),
        (r"SELECT '\'?', ?", r"SELECT '\'?', %s", 1),
        ("SELECT ? -- really?\n, ? # ?\n, ? /* ? */", "SELECT %s -- really?\n, %s # ?\n, %s /* ? */", 3),
        ("SELECT 5 % 3, '100%', ?", "SELECT 5 %% 3, '100%%', %s", 1),
        ("SELECT 5--?", "SELECT 5--%s", 1),
        ("SELECT 1", "SELECT 1", 0),
    ],
)
def test_parameters_of_mysql(statement: str, marked: str, count: int) -> None:
    assert _marked(statement) == (marked, count)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://h", ("h", 1883, False)),
        ("tcp://h:7", ("h", 7, False)),
        ("mqtts://h?client_id=1", ("h", 8883, True)),
        ("ssl://[::1]:9", ("::1", 9, True)),
    ],
)
def test_addresses_of_mqtt(url: str, expected: tuple[str, int, bool]) -> None:
    found = MqttAddress.parse(url)
    assert (found.host, found.port, found.tls) == expected


@pytest.mark.parametrize("url", ["", "h:1883", "http://h", "mqtt://", "mqtt://h:x"])
def test_what_is_no_address_of_mqtt(url: str) -> None:
    with pytest.raises(ValueError):
        MqttAddress.parse(url)


@pytest.mark.parametrize(
    "url",
    ["redis://allowed:1?host=other&port=2", "redis://allowed:1#x", "redis://u:p@allowed:1/0?ssl_ca_certs=/etc/passwd"],
)
def test_a_url_of_redis_names_one_server(url: str) -> None:
    """What was checked is what is connected to."""
    settings = Clients(["redis"], Trust(BuiltIn(), {})).redis(url).connection_pool.connection_kwargs
    assert (settings["host"], settings["port"]) == ("allowed", 1)
    assert "ssl_ca_certs" not in settings


@pytest.mark.parametrize("url", ["", "redis://", "redis://?host=other", "unix:///run/redis.sock", "http://h", "h:1"])
def test_what_is_no_address_of_redis(url: str) -> None:
    with pytest.raises(ValueError):
        Clients(["redis"], Trust(BuiltIn(), {})).redis(url)


def test_secrets_are_not_shown() -> None:
    assert shown("redis://user:secret@host:1/0") == "redis://host:1/0"


def test_replies_of_redis_are_made_flat() -> None:
    assert _flat([b"a", [1, [None, b"b"]], []]) == [b"a", 1, None, b"b"]
    assert _flat(b"a") == [b"a"]
