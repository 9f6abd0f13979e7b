"""Servers of redis, PostgreSQL, MariaDB and MQTT for components that run natively: those of WASI 0.3 with all that they
have, and what holds for both kinds with the process beside them, which connects."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
import redis as redis_client

from tests import servers
from tests.components.build import spin_4
from tests.e2e.box import until
from tests.e2e.spin_local import Running, running
from tests.e2e.test_spin_outbound import listen
from tests.wasmtimes import native_only

pytestmark = native_only
MANIFEST = """
spin_manifest_version = 2
application = { name = "servers" }
[variables]
where = { default = "127.0.0.1" }
[[trigger.http]]
route = "/..."
component = "free"
[[trigger.http]]
route = "/bound/..."
component = "bound"
[component.free]
source = "app.wasm"
allowed_outbound_hosts = ["redis://{{ where }}:*", "mysql://*:*", "postgresql://*:*", "mqtt://*:*"]
[component.bound]
source = "app.wasm"
allowed_outbound_hosts = ["redis://127.0.0.1:1"]
"""
LIMITS = """
[outbound_networking]
max_total_connections = 3
block_networks = ["127.0.0.2/32"]
[outbound_redis]
max_connections = 2
[outbound_mqtt]
max_payload_size_bytes = 2
"""
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"


def write(directory: Path, manifest: str = MANIFEST, runtime: str = "") -> None:
    (directory / "spin.toml").write_text(manifest)
    (directory / "app.wasm").symlink_to(spin_4())
    (directory / "runtime-config.toml").write_text(runtime)


@contextmanager
def served(directory: Path, environment: dict[str, str], runtime: str = "", *flags: str) -> Iterator[Running]:
    write(directory, runtime=runtime)
    with running(directory, environment, *flags, directory) as app:
        yield app
        assert app.end() == 0


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("servers"), environment) as app:
        yield app


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """``HOST:PORT``"""
    with servers.redis() as address:
        yield urlsplit(address).netloc


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """``USER:PASSWORD@HOST:PORT``"""
    with servers.postgres() as address:
        yield urlsplit(address).netloc


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    with servers.mariadb() as address:
        yield urlsplit(address).netloc


def clients(redis: str) -> int:
    """How many connections there are, but for the one that asks."""
    with redis_client.Redis.from_url(f"redis://{redis}") as client:
        return len(client.client_list()) - 1


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def beside(app: Running) -> list[int]:
    """Children of what fork servers have forked: of workers."""
    return [child for server in children(app.process.pid) for worker in children(server) for child in children(worker)]


def connecting(app: Running) -> int:
    """The process that connects, of an application that has connected."""
    [parent] = beside(app)
    [process] = children(parent)
    return process


def test_redis(app: Running, redis: str) -> None:
    assert app.value(f"/redis/{redis}") == ["value", None, [1, 2], [2, 1], ["b"], [5]]
    assert app.get("/read/127.0.0.1:1").json() == "Error_Other", "nobody is there"
    for elsewhere in (f"/bound/read/{redis}", f"/read/localhost:{redis.partition(':')[2]}"):
        assert app.get(elsewhere).json() == "Error_InvalidAddress", elsewhere
    until(lambda: clients(redis) == 0, "connections that were dropped to end")


def test_mqtt(app: Running) -> None:
    with servers.mosquitto() as (host, port):
        assert anyio.run(listen, app, host, port) == [b"21"] * 3, "once with each quality of service"
        assert app.get(f"/bound/mqtt-publish/{host}:{port}/rooms/21").json() == "Error_ConnectionFailed"


def test_mariadb(app: Running, mariadb: str) -> None:
    assert app.value(f"/mysql-values/{mariadb}") == {
        "columns": ["big", "t", "b", "n"],
        "rows": [[["Uint64", str(1 << 63)], ["Str", repr("ü?")], ["Binary", repr(b"\0\xff")], ["DbNull", "None"]]],
    }
    assert app.get(f"/mysql-error/{mariadb}").json() == "Error_QueryFailed"
    assert app.get(f"/bound/mysql-error/{mariadb}").json() == "Error_ConnectionFailed"
    assert app.get("/mysql-error/owner:wrong@" + mariadb.rpartition("@")[2]).json() == "Error_ConnectionFailed"


def test_postgres(app: Running, postgres: str) -> None:
    found = app.value(f"/postgres-values/{postgres}")
    assert (found["changed"], found["columns"][:3]) == (2, ["name", "numeric", "int4range"])
    assert found["rows"] == [
        [
            ["Str", repr(name)],
            ["Decimal", "'1.50'"],
            ["RangeInt32", "(None, None)"],
            ["ArrayStr", "['a', None]"],
            ["DbNull", "None"],
            ["Unsupported", "b'1.2.3.4'"],
            ["Interval", "Interval(micros=0, days=1, months=0)"],
        ]
        for name in ("ada", "bob")
    ]
    assert app.value(f"/postgres-late/{postgres}") == ["n", 5000]
    assert app.value(f"/postgres-built/{postgres}") == 1
    assert app.get(f"/postgres-wrong-root/{postgres}").json() == "Error_Other"
    assert app.get(f"/bound/postgres-built/{postgres}").json() == "Error_ConnectionFailed"
    count, *error = app.value(f"/postgres-breaks/{postgres}")
    assert 0 < count < 2000 and error == ["Error_QueryFailed", "22012"]


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_many_rows(app: Running, request: pytest.FixtureRequest, kind: str) -> None:
    """Which nobody has all of at a time: 100 MB of them."""
    where = request.getfixturevalue("mariadb" if kind == "mysql" else kind)
    found, first, more = app.value(f"/{kind}-many/{where}/100000")
    assert (found, first) == (100_000, 10)
    assert more == ([1, 1] if kind == "postgres" else [[["Str", "'again'"]]])
    status = Path(f"/proc/{connecting(app)}/status").read_text()
    highest = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert highest < 80 << 10, status


def test_a_value_that_is_too_large(app: Running, redis: str) -> None:
    with redis_client.Redis.from_url(f"redis://{redis}") as client:
        client.set("large", bytes(16 << 20))
        client.set("smaller", bytes(1 << 20))
    assert app.value(f"/read/{redis}/smaller") == 1 << 20
    assert app.get(f"/read/{redis}/large").json() == "Error_Other"


def test_one_waits_and_others_do_not(app: Running, redis: str) -> None:
    """One that holds its instance, and one that is answered meanwhile."""
    with ThreadPoolExecutor() as threads:
        held = hold(app, threads, redis, "first")
        assert app.value(f"/read/{redis}") in (5, None)
        push(redis, "first")
        assert held.result() == ["first", "x"]


def hold(app: Running, threads: ThreadPoolExecutor, redis: str, key: str) -> "Future[object]":
    before = blocked(redis)
    held = threads.submit(app.value, f"/hold/{redis}/{key}")
    until(lambda: blocked(redis) > before, "a guest that waits")
    return held


def blocked(redis: str) -> int:
    with redis_client.Redis.from_url(f"redis://{redis}") as client:
        return int(client.info("clients")["blocked_clients"])


def push(redis: str, key: str) -> None:
    with redis_client.Redis.from_url(f"redis://{redis}") as client:
        client.rpush(key, "x")


def test_limits(tmp_path: Path, environment: dict[str, str], redis: str, postgres: str) -> None:
    with (
        served(tmp_path, environment, LIMITS, "--env", "SPIN_VARIABLE_WHERE=*") as app,
        ThreadPoolExecutor() as threads,
    ):
        port = redis.partition(":")[2]
        assert app.get(f"/read/127.0.0.2:{port}").json() == "Error_InvalidAddress"
        with servers.mosquitto() as (host, at):
            assert app.value(f"/mqtt-publish/{host}:{at}/rooms/21") is None
            assert app.get(f"/mqtt-publish/{host}:{at}/rooms/121").json() == "Error_Other"
        held = [hold(app, threads, redis, key) for key in ("one", "two")]
        third = threads.submit(app.value, f"/hold/{redis}/three")
        assert app.value(f"/postgres-built/{postgres}") == 1, "the total has room for one more"
        push(redis, "three")
        assert blocked(redis) == 2 and not third.done(), "redis has not"
        push(redis, "one")
        assert third.result() == ["three", "x"]
        push(redis, "two")
        assert [it.result() for it in held] == [["one", "x"], ["two", "x"]]


def test_who_takes_too_long(tmp_path: Path, environment: dict[str, str], postgres: str, redis: str) -> None:
    """Its connection ends with it, whether it waits or has not dropped it."""
    with served(tmp_path, environment, "", "--env", "SHIMD_HTTP_TIMEOUT=2") as app:
        assert app.get(f"/postgres-sleep/{postgres}/600").status_code == 504
        assert app.get(f"/hold/{redis}/nothing").status_code == 504
        until(lambda: blocked(redis) == 0, "the guest's connection to end")
        count = (
            "SELECT count(*)::int4 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
        )
        until(lambda: anyio.run(asked, postgres, count) == 0, "its statement to end")
        assert app.value(f"/postgres-built/{postgres}") == 1


async def asked(where: str, statement: str) -> object:
    import asyncpg

    connection = await asyncpg.connect(f"postgres://{where}/postgres")
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def test_what_an_instance_leaves(tmp_path: Path, environment: dict[str, str], redis: str) -> None:
    with served(tmp_path, environment, "", "--env", "SHIMD_HTTP_REUSE=1") as app:
        assert app.value(f"/leave/{redis}") == 1
        assert app.value(f"/leave/{redis}") == 1, "another instance"
        until(lambda: clients(redis) == 0, "what they had to be closed")


def test_the_process_that_connects_dies(app: Running, redis: str) -> None:
    """Whoever waits is told, and the next one has another."""
    app.value(f"/redis/{redis}")
    process = connecting(app)
    with ThreadPoolExecutor() as threads:
        held = threads.submit(app.get, f"/hold/{redis}/nobody")
        until(lambda: blocked(redis) == 1, "a guest that waits")
        os.kill(process, signal.SIGKILL)
        assert held.result().status_code == 500
    until(lambda: app.get(f"/read/{redis}").status_code == 200, "instances that had the old one to be gone")
    assert connecting(app) != process
    assert "spin:redis/redis@3.0.0#[method]connection.execute: the process that provides it has ended" in app.said()
    assert "shimd: the process of the app's interfaces was ended by SIGKILL" in app.said()


def test_none_where_none_is_allowed(tmp_path: Path, environment: dict[str, str], redis: str) -> None:
    write(tmp_path, MANIFEST.replace('"redis://{{ where }}:*", "mysql://*:*", "postgresql://*:*", "mqtt://*:*"', ""))
    (tmp_path / "spin.toml").write_text((tmp_path / "spin.toml").read_text().replace('"redis://127.0.0.1:1"', ""))
    with running(tmp_path, environment, tmp_path) as app:
        assert app.get(f"/read/{redis}").json() == "Error_InvalidAddress"
        assert not beside(app)
        assert app.end() == 0
