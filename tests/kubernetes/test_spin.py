"""Spin applications in a cluster: a ``SpinApp`` as spin-operator has it run, and the example for those without it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import certificates
from tests.components import rust
from tests.e2e import images, spin_app, test_spin_artifact
from tests.e2e.leftovers import settled
from tests.kubernetes.cluster import GATEWAY, Cluster, until
from tests.kubernetes.spinkube import NAME, Found, Json, made_of
from tests.kubernetes.test_contrib import CONTRIB

ONE, TWO = "test.invalid/spin-app:1", "test.invalid/spin-app:2"
ARTIFACT = test_spin_artifact.NAME
MANIFEST = """
spin_manifest_version = 2
[application]
name = "in-a-cluster"
[variables]
release = { default = "RELEASE" }
greeting = { default = "nothing" }
whom = { default = "nobody" }
mark = { default = "." }
[[trigger.http]]
route = "/..."
component = "app"
[[trigger.http]]
route = "/other/..."
component = "other"
[component.app]
source = "app.wasm"
variables = { release = "{{ release }}", sentence = "{{ greeting }}, {{ whom }}{{ mark }}" }
key_value_stores = ["default"]
sqlite_databases = ["default"]
allowed_outbound_hosts = ["https://GATEWAY:*"]
[component.other]
source = "app.wasm"
"""
#: What else Secrets and ConfigMaps have, by kind and name.
SETTINGS: Found = {
    ("Secret", "spin-secrets"): {"whom": "world", "redis": f"redis://{GATEWAY}:6379"},
    ("ConfigMap", "spin-settings"): {"greeting": "good day"},
}
HTTPS = """
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"by TLS")
server = http.server.ThreadingHTTPServer(("", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read().decode(), end='')"
#: Until its input ends, each request on a connection of its own: how often each answer came, and each error. Those that
#: are new are told at once.
ASK_ON = """
import collections, json, sys, threading, urllib.request
seen, ended = collections.Counter(), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.is_set():
    try:
        answer = urllib.request.urlopen(sys.argv[1], timeout=30).read().decode()
    except OSError as error:
        answer = repr(error)
    if answer not in seen:
        print(answer, flush=True)
    seen[answer] += 1
print(json.dumps(seen))
"""
LABEL = "shimd.io/test=spin"


@pytest.fixture(scope="module", autouse=True)
def applications(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("applications")
    program = rust.component("spin").read_bytes()
    for name, release in ((ONE, "one"), (TWO, "two")):
        manifest = MANIFEST.replace("RELEASE", release).replace("GATEWAY", GATEWAY)
        archive = spin_app.image(directory / f"{release}.tar", name, manifest, {"/app.wasm": program})
        cluster.node.import_image(archive, "k8s.io")
    images.save(directory / "artifact.tar", [test_spin_artifact.push(archive=True, wasm=program)])
    cluster.node.import_image(directory / "artifact.tar", "k8s.io")


@pytest.fixture(autouse=True)
def settings(cluster: Cluster) -> Iterator[None]:
    """What a user has made before, and takes away."""
    for (kind, name), values in SETTINGS.items():
        cluster.apply({"apiVersion": "v1", "kind": kind, "metadata": labelled(name), values_of(kind): values})
    yield
    cluster.kubectl("delete", "secrets,configmaps,services,deployments", "-l", LABEL)
    cluster.kubectl("delete", "secrets,services,deployments", "-l", NAME)


def labelled(name: str) -> Json:
    key, _, value = LABEL.partition("=")
    return {"name": name, "labels": {key: value}}


def values_of(kind: str) -> str:
    return "data" if kind == "ConfigMap" else "stringData"


def executor(cluster: Cluster) -> Json:
    """Ours, with telemetry besides."""
    file = CONTRIB / "spinkube/executor.yaml"
    patch = json.dumps({"spec": {"deploymentConfig": {"otel": {"exporter_otlp_endpoint": "http://collector:4318"}}}})
    said = cluster.kubectl("patch", "--local", "-f", file, "--type=merge", "-p", patch, "-o", "json").out
    found: Json = json.loads(said)
    return found


def spin_application(name: str, image: str, **spec: object) -> Json:
    return {
        "apiVersion": "core.spinkube.dev/v1alpha1",
        "kind": "SpinApp",
        "metadata": {"name": name},
        "spec": {"executor": "shimd", "image": image, "replicas": 1, **spec},
    }


def rolled_out(cluster: Cluster, name: str) -> None:
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=110s")


def service(cluster: Cluster, name: str) -> str:
    """Its own address, which kube-proxy leads to a pod."""
    address = cluster.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}").out
    until(lambda: asked(cluster, f"http://{address}/.well-known/spin/health").returncode == 0, "the Service", cluster)
    return address


def asked(cluster: Cluster, url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(cluster.node.inside(sys.executable, "-c", ASK, url), capture_output=True, text=True)


def answer(cluster: Cluster, address: str, path: str) -> str:
    done = asked(cluster, f"http://{address}{path}")
    assert done.returncode == 0, done.stderr + cluster.kubectl("logs", "-l", NAME, check=False).out
    return done.stdout


def pods(cluster: Cluster, selector: str = NAME) -> list[Json]:
    found: list[Json] = json.loads(cluster.kubectl("get", "pods", "-l", selector, "-o", "json").out)["items"]
    return found


@contextmanager
def beside(cluster: Cluster, *command: object) -> Iterator[None]:
    """A server on the node."""
    with subprocess.Popen(cluster.node.inside(*command), stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture
def servers(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """Redis, and one with a certificate by an authority that only ``spin-ca`` names."""
    made = certificates.made(tmp_path, f"IP:{GATEWAY}")
    bundle = {"ca-certificates.crt": made.authority.read_text()}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": labelled("spin-ca"), "stringData": bundle})
    redis = ("redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no")
    with beside(cluster, *redis), beside(cluster, sys.executable, "-c", HTTPS, made.certificate, made.key):
        yield


@pytest.mark.usefixtures("servers")
def test_a_spin_app(cluster: Cluster) -> None:
    """All that a ``SpinApp`` can say, one replica, ten, one, and none."""
    health = {"httpGet": {"path": "/.well-known/spin/health"}, "initialDelaySeconds": 1, "periodSeconds": 1}
    variables = [
        {"name": "greeting", "valueFrom": {"configMapKeyRef": {"name": "spin-settings", "key": "greeting"}}},
        {"name": "whom", "valueFrom": {"secretKeyRef": {"name": "spin-secrets", "key": "whom"}}},
        {"name": "mark", "value": "!"},
    ]
    redis = {"name": "url", "valueFrom": {"secretKeyRef": {"name": "spin-secrets", "key": "redis"}}}
    sqlite = {"name": "path", "value": "/state/people.db"}
    app = spin_application(
        "shop",
        ONE,
        checks={"readiness": health, "liveness": health},
        components=["app"],
        invocationLimits={"memory": "16Mi"},
        resources={"limits": {"memory": "128Mi"}, "requests": {"cpu": "1m", "memory": "32Mi"}},
        runtimeConfig={
            "keyValueStores": [{"name": "default", "type": "redis", "options": [redis]}],
            "sqliteDatabases": [{"name": "default", "type": "spin", "options": [sqlite]}],
        },
        variables=variables,
        volumes=[{"name": "state", "emptyDir": {}}],
        volumeMounts=[{"name": "state", "mountPath": "/state"}],
        podLabels={"tier": "web"},
    )
    cluster.apply(*made_of(app, executor(cluster), SETTINGS))
    rolled_out(cluster, "shop")
    address = service(cluster, "shop")
    assert answer(cluster, address, "/") == "hello from Spin in Rust\n"
    assert answer(cluster, address, "/variable/sentence") == "good day, world!"
    assert [answer(cluster, address, f"/people/{name}") for name in ("grace", "ada")] == ["grace", "ada grace"]
    assert answer(cluster, address, f"/fetch-safely/{GATEWAY}:8443/") == "by TLS"
    assert "404" in asked(cluster, f"http://{address}/other/").stderr, "it is not retained"
    assert [answer(cluster, address, "/counter") for _ in range(2)] == ["1", "2"]

    app["spec"]["replicas"] = 10
    cluster.apply(*made_of(app, executor(cluster), SETTINGS))
    rolled_out(cluster, "shop")
    assert len(pods(cluster, "tier=web")) == 10
    assert [answer(cluster, address, "/counter") for _ in range(20)] == [str(3 + number) for number in range(20)]
    app["spec"]["replicas"] = 1
    cluster.apply(*made_of(app, executor(cluster), SETTINGS))
    until(lambda: len(pods(cluster)) == 1, "nine to be gone", cluster)
    assert answer(cluster, address, "/counter") == "23"
    (status,) = pods(cluster)[0]["status"]["containerStatuses"]
    assert status["restartCount"] == 0

    assert "default/shop" in rules(cluster)
    cluster.kubectl("delete", "secrets,services,deployments", "-l", NAME, "--wait=true")
    until(lambda: not pods(cluster), "its pod to be gone", cluster)
    until(lambda: "default/shop" not in rules(cluster), "kube-proxy to forget it", cluster)
    assert not cluster.kubectl("get", "secrets,services,endpointslices,replicasets", "-l", NAME, "-o", "name").out
    assert not settled(cluster.left, 60)


def rules(cluster: Cluster) -> str:
    return subprocess.run(cluster.node.inside("iptables-save"), capture_output=True, text=True, check=True).stdout


def test_an_artifact(cluster: Cluster) -> None:
    """As ``spin registry push`` makes it, with a runtime configuration that the user has written."""
    text = '[[variables_provider]]\ntype = "static"\nvalues = { secret = "from a Secret" }\n'
    runtime_config = {"runtime-config.toml": text}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": labelled("mine"), "stringData": runtime_config})
    app = spin_application("pushed", ARTIFACT, runtimeConfig={"loadFromSecret": "mine"})
    cluster.apply(*made_of(app, executor(cluster)))
    rolled_out(cluster, "pushed")
    address = service(cluster, "pushed")
    assert answer(cluster, address, "/variable/greeting") == "hello, from a Secret!"
    assert answer(cluster, address, "/read/index.html") == "<h1>hello</h1>"
    assert answer(cluster, address, "/counter") == "1"


def test_a_secret_that_is_not_there(cluster: Cluster) -> None:
    """The operator mounts an optional one, and the kubelet a directory instead."""
    app = spin_application("lost", ONE, runtimeConfig={"loadFromSecret": "nowhere"})
    cluster.apply(*made_of(app, executor(cluster)))
    until(lambda: "/runtime-config.toml is a directory" in json.dumps(pods(cluster)), "the sentence", cluster)


def test_the_example_is_rolled_out_and_no_request_is_lost(cluster: Cluster) -> None:
    """Two replicas, strict security contexts, and a client that asks on and on."""
    example = (CONTRIB / "examples/spin.yaml").read_text()
    for before, after in (("example.invalid/spin-app:1", ONE), ("seconds: 5", "seconds: 15")):  # for a busy machine
        assert before in example
        example = example.replace(before, after)
    cluster.kubectl("apply", "-f", "-", stdin=example)
    cluster.kubectl("label", "deployment/spin-app", "service/spin-app", "secret/spin-app", LABEL)
    cluster.kubectl("scale", "deployment/spin-app", "--replicas=2")
    rolled_out(cluster, "spin-app")
    address = service(cluster, "spin-app")
    assert answer(cluster, address, "/counter") == "1"
    command = cluster.node.inside(sys.executable, "-c", ASK_ON, f"http://{address}/variable/release")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "one\n"
        cluster.kubectl("set", "image", "deployment/spin-app", f"app={TWO}")
        rolled_out(cluster, "spin-app")
        until(lambda: len(pods(cluster, "app=spin-app")) == 2, "the earlier ones to be gone", cluster)
        seen = json.loads(client.communicate()[0].splitlines()[-1])
    assert set(seen) == {"one", "two"}, seen
