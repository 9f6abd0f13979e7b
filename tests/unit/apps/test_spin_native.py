"""What wasmtime's native host is told of an application, and which one it is not given."""

import json
import os
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shimd.apps.spin import manifest
from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.client_tls import ClientTls
from shimd.apps.spin.engine import NativeSpin
from shimd.apps.spin.granted import libraries, outbound
from shimd.apps.spin.native import NativePart, describe, lacks
from shimd.apps.spin.networking import SERVERS as PROTOCOLS
from shimd.apps.spin.networking import Networking, kind_of
from shimd.apps.spin.outbound.interfaces import INTERFACES
from shimd.apps.spin.place import Place
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.variables import ApplicationVariables
from shimd.engine import BrokenArtifact, InvalidSetting, Invocation
from shimd.engines.wasmtime import NATIVE
from tests.wasmtimes import native_only

if NATIVE:
    from shimd.engines import wasmtime_native

MANIFEST = """
spin_manifest_version = 2
application = { name = "shop", version = "1.2.3" }
[variables]
host = { default = "example.com" }
nobody = { default = "" }
[[trigger.http]]
route = "/shop/..."
component = "shop"
[[trigger.http]]
route = { private = true }
component = "hidden"
[component.shop]
source = "shop.wasm"
environment = { COLOUR = "green" }
variables = { where = "at {{ host }}" }
allowed_outbound_hosts = ["https://{{ host }}:1..9", "http://10.0.0.0/8:*", "http://{{ nobody }}", "http://self"]
key_value_stores = ["default", "missing"]
sqlite_databases = ["default"]
files = ["assets/*", { source = "shared", destination = "/mounted" }]
exclude_files = ["assets/secret"]
[component.hidden]
source = "hidden.wasm"
"""
RUNTIME = """
[sqlite_database.default]
type = "spin"
path = "own.db"
allow_attach_file = true
[outbound_networking]
block_networks = ["192.168.0.0/16", "private"]
max_total_connections = 3
[outbound_http]
max_connections = 5
"""


def described(
    text: str = MANIFEST,
    runtime: str = RUNTIME,
    memory: int = -1,
    env: dict[str, str] | None = None,
    told: dict[str, str] | None = None,
) -> dict[str, Any]:
    application = manifest.parse(text.encode())
    files = {"/runtime-config.toml": runtime.encode()}
    configured = Runtime(Place(files.get), {}, application.variables, application.components)
    parts = {id: NativePart(number + 20, f"{id}/native", number) for number, id in enumerate(application.components, 3)}
    parts["shop"] = replace(parts["shop"], bridged=["spin:redis/redis@3.0.0"])
    values = ApplicationVariables(application, configured.variables)
    about = describe(
        application,
        parts,
        {"hidden": 7},
        configured,
        values,
        {id: outbound(component, values) for id, component in application.components.items()},
        ["x"],
        {"A": "b", **(env or {})},
        memory,
        "/",
        announced=True,
        ask=9,
        told=told or {},
    )
    found: dict[str, Any] = json.loads(about.json())
    return found


def test_an_application() -> None:
    found = described(memory=1 << 20)
    assert (found["name"], found["version"], found["announced"]) == ("shop", "1.2.3", True)
    assert (found["memory"], found["env"], found["root"]) == (1 << 20, [["A", "b"]], "/")
    assert found["routes"] == [["/shop/...", 0]]
    assert described()["memory"] is None


def test_what_is_told_of_it() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:pw@collector:4317",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://b/x",
    }
    found = described(env=env, told={"traces": "grpc", "logs": "http/protobuf"})["telemetry"]
    assert found == {
        "signals": [
            {"name": "traces", "grpc": True, "endpoint": "http://me:pw@collector:4317"},
            {"name": "logs", "grpc": False, "endpoint": "https://b/x"},
        ],
        "servers": "http://collector:4317 and https://b",
    }
    assert described()["telemetry"] is None


def test_a_component() -> None:
    shop, hidden = described()["components"]
    assert (shop["id"], shop["cache"], shop["artifact"], shop["kind"]) == ("shop", 23, "shop/native", 3)
    assert (shop["args"], shop["env"], shop["variables"]) == (
        ["shop", "x"],
        [["COLOUR", "green"]],
        [["where", "at example.com"]],
    )
    assert (shop["directory"], hidden["directory"]) == (None, 7)
    assert shop["mounts"] == [
        {"source": "assets/*", "destination": None},
        {"source": "shared", "destination": "/mounted"},
    ]
    assert shop["excluded"] == ["assets/secret"]
    assert shop["manifest"] == "/spin.toml: component.shop"


def test_interfaces_over_the_bridge() -> None:
    """Of the components that have some; and whom they are asked of."""
    found = described()
    assert found["ask"] == 9
    assert [one["bridged"] for one in found["components"]] == [["spin:redis/redis@3.0.0"], []]


def test_where_it_may_connect_to() -> None:
    """Parsed, and with the values of variables; what those leave empty allows nothing."""
    assert described()["components"][0]["allowed"] == [
        {"scheme": "https", "host": "example.com", "ports": [1, 9], "network": None},
        {"scheme": "http", "host": "", "ports": None, "network": "10.0.0.0/8"},
        {"scheme": "http", "host": "self", "ports": [80, 81], "network": None},
    ]


def test_stores_and_databases() -> None:
    """A store and a database may have the same name, and have files of their own."""
    found = described()
    shop, files = found["components"][0], found["files"]
    (store, missing), (database,) = shop["stores"], shop["databases"]
    assert missing == ["missing", None]
    assert files[store[1]] == {"path": "/.spin/sqlite_key_value.db", "stores": True, "attaches": False}
    assert files[database[1]] == {"path": "/own.db", "stores": False, "attaches": True}


def test_the_network() -> None:
    network = described()["network"]
    assert (network["blocked"], network["private"]) == (["192.168.0.0/16"], True)
    assert (network["most"], network["keeps"]) == (3, False)
    network = described(runtime="")["network"]
    assert (network["blocked"], network["private"], network["most"], network["keeps"]) == ([], False, None, True)


def test_a_chain_that_leads_nowhere() -> None:
    with pytest.raises(InvalidSetting, match=r"names other\.spin\.internal, which no http trigger calls"):
        described(MANIFEST.replace("http://self", "http://other.spin.internal"))


def test_answers_that_no_component_gives() -> None:
    fixed = 'static_response = { status_code = 302, headers = { Location = "/ü" }, body = "gone" }'
    found = described(f'{MANIFEST}[[trigger.http]]\nroute = "/old"\n{fixed}\n')
    assert found["routes"] == [
        ["/shop/...", 0],
        ["/old", {"status": 302, "headers": [["Location", "/ü"]], "body": "gone"}],
    ]


def lacking(more: str = "", runtime: str = "", env: dict[str, str] | None = None) -> bool:
    application = manifest.parse((MANIFEST + more).encode())
    place = Place({"/runtime-config.toml": runtime.encode()}.get)
    return lacks(application, Runtime(place, env or {}, application.variables, application.components))


TRIGGERS = {
    "cron": 'cron_expression = "* * * * * *"',
    "redis": 'channel = "c"\naddress = "redis://a"',
    "mqtt": 'topic = "t"\nqos = "1"',
    "command": "",
}
MQTT = 'trigger = { mqtt = { address = "mqtt://a", keep_alive_interval = "30" } }'


@pytest.mark.parametrize("kind", TRIGGERS)
def test_another_trigger_is_the_portable_hosts(kind: str) -> None:
    """Also beside those of HTTP; and no longer, once none of its components is retained."""
    others = f'[[trigger.{kind}]]\ncomponent = "other"\n{TRIGGERS[kind]}\n[component.other]\nsource = "o.wasm"\n'
    text = MANIFEST.replace('version = "1.2.3"', MQTT)
    application = manifest.parse((text + others).encode())
    runtime = Runtime(Place(lambda _path: None), {}, application.variables, application.components)
    assert lacks(application, runtime)
    assert not lacks(application.retaining("shop,hidden"), runtime)


SERVERS = {
    "a store in redis": '[key_value_store.cache]\ntype = "redis"\nurl = "redis://a"\n',
    "a database of libSQL": '[sqlite_database.other]\ntype = "libsql"\nurl = "http://a"\ntoken = "t"\n',
    "variables of Vault": '[[variables_provider]]\ntype = "vault"\nurl = "http://a"\ntoken = "t"\nmount = "m"\n',
    "models": '[llm_compute]\ntype = "remote_http"\nurl = "http://a"\nauth_token = "t"\n',
}


@pytest.mark.parametrize("what", SERVERS)
def test_a_server_behind_it_is_the_portable_hosts(what: str) -> None:
    assert lacking(runtime=SERVERS[what])


VALUES = '[[variables_provider]]\ntype = "static"\nvalues = { host = "a" }\n[[variables_provider]]\ntype = "env"\n'
KEYS = {
    "RSA": ("genrsa 2048", True),
    "RSA of PKCS #1": ("genrsa -traditional 2048", True),
    "long RSA": ("genrsa 4096", True),
    "longer RSA": ("genrsa 4608", False),
    "P-256": ("ecparam -name prime256v1 -genkey", True),
    "P-384": ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", True),
    "P-521": ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521", False),
    "P-521 of SEC 1": ("ecparam -name secp521r1 -genkey", False),
    "Ed25519": ("genpkey -algorithm ed25519", True),
    "Ed448": ("genpkey -algorithm ed448", False),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_only_openssl_has_is_the_portable_hosts(kind: str) -> None:
    words, known = KEYS[kind]
    key = subprocess.run(["openssl", *words.split()], capture_output=True, check=True, timeout=60).stdout
    application = manifest.parse(MANIFEST.encode())
    runtime = Runtime(Place(lambda _path: None), {}, application.variables)
    tls = ClientTls(("shop",), ("a.test",), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), True, False, key=key)
    runtime.networking = Networking(tls=[tls])
    assert lacks(application, runtime) != known


HERE = {
    "nothing": ("", ""),
    "fixed answers": ('[[trigger.http]]\nroute = "/old"\nstatic_response = { body = "gone" }\n', ""),
    "files": ("", RUNTIME + '[key_value_store.other]\ntype = "spin"\npath = "o.db"\n'),
    "values": ("", VALUES),
}


@pytest.mark.parametrize("what", HERE)
def test_what_the_native_host_has(what: str) -> None:
    more, runtime = HERE[what]
    assert not lacking(more, runtime, {"SPIN_VARIABLE_HOST": "b"})


def compiled(directory: Path, size: int = 4) -> Path:
    """An artefact of a server, as far as it is read before it is loaded."""
    artifact = directory / "artifact"
    artifact.mkdir(parents=True)
    facts: dict[str, object] = {"kind": wasmtime_native.SERVER, "spin": None, "absent": [], "size": size}
    (artifact / wasmtime_native.FACTS).write_text(json.dumps(facts))
    (artifact / wasmtime_native.PROGRAM).write_bytes(b"code")
    return artifact


@pytest.fixture
def spin() -> NativeSpin:
    engine = NativeSpin()
    assert engine.programs({"/spin.toml": MANIFEST.encode()}.get, {}) is not None
    return engine


@native_only
def test_what_a_worker_without_python_is_told(tmp_path: Path, spin: NativeSpin) -> None:
    """By the numbers that the directories of compiled modules have there."""
    app = spin.load_all({id: compiled(tmp_path / id) for id in ("shop", "hidden")})
    packed = spin.pack_all(app, Invocation(["/"], contained=True), 7)
    assert packed is not None
    assert list(packed.descriptors) == []
    where = [os.readlink(f"/proc/self/fd/{fd}") for fd in packed.directories]
    assert where == [str(tmp_path / "shop"), str(tmp_path / "hidden")]
    text = packed.block[packed.block.index(b'{"name"') :].partition(b"\0")[0]
    components = json.loads(text)["components"]
    assert [(one["cache"], one["artifact"]) for one in components] == [(7, "artifact/native"), (8, "artifact/native")]
    for fd in packed.directories:
        os.close(fd)


@native_only
def test_an_application_too_large_to_be_handed_over(tmp_path: Path, spin: NativeSpin) -> None:
    app = spin.load_all({"shop": compiled(tmp_path)})
    part = app.parts["shop"]
    app.parts = {str(number): part for number in range(201)}
    assert spin.pack_all(app, Invocation(["/"]), 7) is None
    os.close(part.directory)


@native_only
def test_a_part_of_a_compiled_component(tmp_path: Path, spin: NativeSpin) -> None:
    """Of a disk that was full, say: it is made anew."""
    with pytest.raises(BrokenArtifact, match="it is not whole"):
        spin.load_all({"shop": compiled(tmp_path, size=5)})


@pytest.mark.parametrize(
    ("entry", "kinds"),
    [
        ("postgresql://h", {"postgres"}),
        ("postgres://h", {"postgres"}),
        ("rediss://h", {"redis"}),
        ("mqtts://h", {"mqtt"}),
        ("mysqls://h:1", set()),
        ("https://h", set()),
    ],
)
def test_whose_libraries_are_needed(entry: str, kinds: set[str]) -> None:
    application = manifest.parse(MANIFEST.encode())
    configured = Runtime(Place(lambda _path: None), {}, application.variables, application.components)
    allowed = {"shop": AllowedHosts([entry], "here")}
    assert libraries(application, configured, allowed, {}) == kinds
    assert libraries(application, configured, {}, {"shop": [entry]}) == kinds


def test_interfaces_of_servers_by_their_protocols() -> None:
    assert {kind_of(name) for name in INTERFACES} == {*PROTOCOLS}
