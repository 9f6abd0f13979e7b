"""WasmEdge in containers, beyond what the other modules ask of every engine: its sockets, and its machine code."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.engines.registry import lacking
from tests.e2e import guests, images, leftovers
from tests.e2e.box import RUNTIMES, Box, until
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version, running
from tests.e2e.cri import PAUSE, CriContainerd, Pod, run_pod

pytestmark = pytest.mark.skipif(lacking("wasmedge") is not None, reason="no libwasmedge here: test_trixie.py")
IMAGE = "test.invalid/edge:1"
HOST = "127.0.0.1"
on_wasmedge = pytest.mark.parametrize(
    "runtime", [runtime for runtime in RUNTIMES if runtime.name == "wasmedge"], ids=["wasmedge"], indirect=True
)
GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"


@pytest.fixture(scope="session")
def edge_archive(programs: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server, and a native program in the same image; a sandbox's image."""
    path = tmp_path_factory.mktemp("images") / "edge.tar"
    files = {"/edge.wasm": guests.edge(), "/app": programs[0]}
    contents = images.layer(files, guests.DIRECTORIES)
    process = {"Entrypoint": ["/edge.wasm"], "Env": ["PATH=/"]}
    pause = images.image(PAUSE, [images.layer({"/pause": programs[0]})], {"Entrypoint": ["/pause"]})
    images.save(path, [images.image(IMAGE, [contents], process), pause])
    return path


@pytest.fixture
def edge(box: Box, edge_archive: Path) -> Box:
    box.containerd.import_image(edge_archive, box.namespace)
    return box


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def serve(box: Box, id: str, *words: object, flags: tuple[object, ...] = ()) -> Path:
    """A server in the host's network, once it listens."""
    output = box.containerd.directory / f"{box.namespace}-{id}.out"
    logging = ("-d", "--log-uri", f"file://{output}", "--net-host")
    command = ["run", "--runtime", box.runtime.type, *logging, *flags, IMAGE, id, "/edge.wasm", *words]
    box.ctr(*command)
    until(lambda: output.exists() and "listening" in output.read_text(), f"{id} to listen")
    return output


def ask(port: int) -> str:
    with socket.create_connection((HOST, port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    return answer.partition(b"\r\n\r\n")[2].decode()


@on_wasmedge
def test_a_server_that_keeps_state(edge: Box, tmp_path: Path) -> None:
    """Requests in, answers out, a count that outlives the app; beside a runc container."""
    tmp_path.chmod(0o777)
    mount = ("--mount", f"type=bind,src={tmp_path},dst=/mnt,options=rbind:rw")
    port = free_port()
    edge.ctr("run", "-d", "--runtime", "io.containerd.runc.v2", IMAGE, "native", "/app", "sleep", 600)
    serve(edge, "one", "serve", port, "/mnt/count", flags=mount)
    assert [ask(port) for _ in range(3)] == ["request 1\n", "request 2\n", "request 3\n"]
    assert edge.kill("one", "SIGTERM").code == 0
    edge.wait_status("one", "STOPPED")
    assert edge.delete("one") == 128 + signal.SIGTERM
    serve(edge, "two", "serve", port, "/mnt/count", flags=mount)
    assert ask(port) == "request 4\n"
    assert (tmp_path / "count").read_text() == "4\n"
    assert edge.status("native") == "RUNNING"


@on_wasmedge
def test_a_client_that_says_nothing_makes_nobody_wait(edge: Box) -> None:
    """Non-blocking sockets: one thread, and a poll for all."""
    port = free_port()
    serve(edge, "server", "serve", port, "/tmp/count")
    with socket.create_connection((HOST, port)), socket.create_connection((HOST, port)) as late:
        assert [ask(port) for _ in range(3)] == ["request 1\n", "request 2\n", "request 3\n"]
        late.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"request 4" in late.recv(4096)


@on_wasmedge
def test_datagrams(edge: Box) -> None:
    port = free_port(socket.SOCK_DGRAM)
    serve(edge, "server", "datagrams", port)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        for text in (b"one", b"two", b"end"):
            client.sendto(text, (HOST, port))
            assert client.recvfrom(512) == (text, (HOST, port))
    edge.wait_status("server", "STOPPED")
    assert edge.delete("server") == 0


@on_wasmedge
def test_a_client(edge: Box) -> None:
    """One guest asks another; and nobody who is not there."""
    port = free_port()
    serve(edge, "server", "serve", port, "/tmp/count")
    command = ["run", "--rm", "--net-host", "--runtime", edge.runtime.type, IMAGE]
    said = edge.ctr(*command, "client", "/edge.wasm", "get", HOST, port, "/").out
    assert said.splitlines()[-1] == "request 1"
    refused = edge.ctr(*command, "refused", "/edge.wasm", "get", HOST, free_port(), "/", check=False)
    assert (refused.code, refused.err) == (1, "sock_connect: Connection refused\n")


@on_wasmedge
def test_a_network_of_its_own(edge: Box) -> None:
    """Without --net-host there is nobody to be reached."""
    port = free_port()
    serve(edge, "server", "serve", port, "/tmp/count")
    command = ["run", "--rm", "--runtime", edge.runtime.type, IMAGE, "client", "/edge.wasm", "get", HOST, port, "/"]
    done = edge.ctr(*command, check=False)
    assert done.code == 1 and done.err.startswith("sock_connect: ")


def shimd_run(directory: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(LAUNCHERS / "shimd"), "run", "--engine", "wasmedge", *words]
    env = {"PATH": "/usr/bin:/bin", "SHIMD_CACHE_DIR": str(directory / "cache"), "TMPDIR": str(directory)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_shimd_run_has_a_network_only_if_asked_for(tmp_path: Path) -> None:
    program = tmp_path / "edge.wasm"
    program.write_bytes(guests.edge())
    words = [str(program), "get", HOST, str(free_port()), "/"]
    refused = shimd_run(tmp_path, *words)
    assert "the module opens sockets, and this run has no network: shimd run --network" in refused.stderr
    done = shimd_run(tmp_path, "--network", *words)
    assert (done.returncode, done.stderr) == (1, "sock_connect: Connection refused\n")


@on_wasmedge
def test_bad_apps(box: Box, tmp_path: Path) -> None:
    """One sentence each, and nothing left: the module is not valid, or for another engine."""
    broken = {
        "/cut.wasm": guests.edge()[:5000],
        "/component.wasm": b"\0asm\x0d\0\1\0",
        "/imports.wat": b'(module (import "env" "log" (func)) (func (export "_start")))',
    }
    image = images.image("test.invalid/bad:1", [images.layer(broken)], {"Env": ["PATH=/"]})
    images.save(tmp_path / "bad.tar", [image])
    box.containerd.import_image(tmp_path / "bad.tar", box.namespace)
    for program, words in (
        ("/cut.wasm", "/cut.wasm: not valid WebAssembly: a section is not whole"),
        ("/component.wasm", "/component.wasm: wasmedge runs core modules, and this is a component: use the wasmtime"),
        ("/imports.wat", "the module imports env.log, which is neither WASI preview 1 nor WASI-NN's"),
    ):
        done = box.ctr("run", "--rm", "--runtime", box.runtime.type, "test.invalid/bad:1", "bad", program, check=False)
        assert done.code != 0 and words in done.err, done.err
        box.remove("bad")
    assert box.run("good").out == "hello from app\n"


ASKS = """(module (import "wasi_ephemeral_nn" "answer" (func $answer (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (func (export "_start") (call $exit (call $answer))))"""


def test_wasi_nn_of_a_plugin(tmp_path: Path) -> None:
    """The node's, never an image's; variables of the container's with WasmEdge's prefix reach it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/nn.so").write_bytes(guests.nn())
    (tmp_path / "asks.wat").write_text(ASKS)
    (tmp_path / "artifacts").mkdir()
    program = """
import sys
from pathlib import Path
from shimd.shim import Invocation
from shimd.testing.rig import make_rig
rig, env = make_rig("wasmedge", Path(sys.argv[1])), {"WASMEDGE_ANSWER": "42"}
done = rig.run(Path(sys.argv[2]).read_text(), Invocation(["app"], env=env))
print(done.code, done.err)"""
    words = [sys.executable, "-c", program, str(tmp_path / "artifacts"), str(tmp_path / "asks.wat")]
    with_plugin = {"WASMEDGE_PLUGIN_PATH": str(tmp_path / "plugins")}
    done = subprocess.run(words, env=with_plugin, capture_output=True, text=True, timeout=60)
    assert done.stdout == "42 \n", done.stderr
    without = subprocess.run(words, env={}, capture_output=True, text=True, timeout=60)
    assert "imports wasi_ephemeral_nn.answer, which is neither WASI preview 1 nor WASI-NN's" in without.stdout


@on_wasmedge
def test_no_plugin_of_an_image_is_loaded(box: Box, tmp_path: Path) -> None:
    files = {"/plugins/nn.so": guests.nn(), "/asks.wat": ASKS.encode()}
    process = {"Entrypoint": ["/asks.wat"], "Env": ["PATH=/", "WASMEDGE_PLUGIN_PATH=/plugins", "WASMEDGE_ANSWER=42"]}
    images.save(tmp_path / "asks.tar", [images.image("test.invalid/asks:1", [images.layer(files)], process)])
    box.containerd.import_image(tmp_path / "asks.tar", box.namespace)
    done = box.run("asks", image="test.invalid/asks:1")
    assert "which is neither WASI preview 1 nor WASI-NN's" in done.err


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.name)
def node(request: pytest.FixtureRequest, edge_archive: Path) -> Iterator[CriContainerd]:
    version: Version = request.param
    with running(version, CriContainerd) as node:
        node.import_image(edge_archive, "k8s.io")
        yield node


def fetched(pod: Pod, address: str) -> str:
    """What a client on the node gets."""
    command = pod.node.inside(sys.executable, "-c", GET, f"http://{address}:8080/")
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def test_a_pod(node: CriContainerd, tmp_path: Path) -> None:
    """A server with a runc-run sidecar, reached at the pod's address; it ends on TERM."""
    pod = run_pod(node, tmp_path / "pod", "wasmedge")
    server = pod.start("server", IMAGE, "/edge.wasm", "serve", 8080, "/tmp/count")
    until(lambda: pod.log("server") == "listening on port 8080\n", "the server to listen")
    address = json.loads(node.crictl("inspectp", pod.id).out)["status"]["network"]["ip"]
    assert [fetched(pod, address) for _ in range(2)] == ["request 1\n", "request 2\n"]
    pod.start("sidecar", IMAGE, "/app", "sleep", 600)
    assert pod.exec("sidecar", "/app", "echo", "beside it").out.strip() == "beside it"
    assert "request 3" in pod.exec("server", "/edge.wasm", "get", HOST, 8080, "/").out
    node.crictl("stop", "--timeout", "600", server)
    assert pod.status("server")["exitCode"] == 128 + signal.SIGTERM
    pod.remove()
    ids = {pod.id, *pod.containers.values()}
    assert not leftovers.settled(lambda: ids & {path.name for path in leftovers.cgroups("k8s.io")})
    assert not leftovers.settled(lambda: node.bundles("k8s.io"))
