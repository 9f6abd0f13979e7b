"""Servers: the examples of ``contrib/examples/http-server`` in pods, and what guests can do with their sockets."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from shimd.engines.wasmtime import NATIVE
from tests import wasmer
from tests.clang import CLANG
from tests.components.build import component
from tests.e2e import images, leftovers
from tests.e2e.box import Box, Runtime, until, wasm_only
from tests.e2e.containerd import LAUNCHERS, REPOSITORY, VERSIONS, Version, running
from tests.e2e.cri import CriContainerd, Pod, run_pod
from tests.e2e.http_app import free_port
from tests.e2e.test_cri import ended, left, pod_archive, version
from tests.wasmtimes import HOSTS

__all__ = ["pod_archive", "version"]
IMAGE = "test.invalid/server:1"
SOURCES = REPOSITORY / "contrib/examples/http-server"
GUEST = Path(__file__).with_name("sockets.c")
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"
HELLO = "hello from WebAssembly!\n"


def compiled(source: Path, directory: Path) -> Path:
    program = directory / f"{source.stem}.wasm"
    subprocess.run([*CLANG, "-O1", "-o", program, source], check=True)
    return program


@dataclass(frozen=True)
class Server:
    """One that answers at port 8080 with HELLO."""

    handler: str
    program: str
    annotations: Mapping[str, str] = field(default_factory=dict)


SERVERS = [
    Server("wasmer", "/server.wasm"),
    Server("wasmtime", "/listening.wasm", {"shimd.io/listen": "tcp:8080"}),
]
servers = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.handler)


def image(directory: Path) -> images.Image:
    """Of all servers."""
    files = {
        f"/{name}.wasm": compiled(SOURCES / f"{name}.c", directory).read_bytes() for name in ("server", "listening")
    }
    contents = images.layer({**files, "/busybox": Path("/bin/busybox").read_bytes()})
    return images.image(IMAGE, [contents], {"Env": ["PATH=/"]})


@pytest.fixture
def node(version: Version, pod_archive: Path, tmp_path: Path) -> Iterator[CriContainerd]:
    images.save(tmp_path / "server.tar", [image(tmp_path)])
    with running(version, CriContainerd) as node:
        for archive in (pod_archive, tmp_path / "server.tar"):
            node.import_image(archive, "k8s.io")
        yield node


def fetched(pod: Pod, address: str) -> str:
    """What a client on the node gets."""
    command = pod.node.inside(sys.executable, "-c", FETCH, f"http://{address}:8080/")
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def address_of(pod: Pod) -> str:
    found: str = pod.sandbox()["status"]["network"]["ip"]
    return found


def listens(pod: Pod, name: str = "server") -> None:
    until(lambda: pod.log(name).startswith("listening"), f"{name} to listen")


@servers
def test_a_server_in_a_pod(node: CriContainerd, server: Server, tmp_path: Path) -> None:
    """From the node at the pod's address, from a native sidecar on localhost; and it ends on TERM. Only workers of the
    bindings from PyPI have Python in them."""
    pod = run_pod(node, tmp_path / "pod", server.handler, annotations=server.annotations)
    id = pod.start("server", IMAGE, server.program, annotations=server.annotations)
    listens(pod)
    native = {"wasmer": wasmer.NATIVE, "wasmtime": NATIVE}[server.handler]
    assert ("python" in Path(f"/proc/{pod.pid('server')}/exe").readlink().name) == (not native)
    assert [fetched(pod, address_of(pod)) for _ in range(5)] == [HELLO] * 5
    assert fetched(pod, "127.0.0.1") == "", "it listens in its pod, not on the node"
    pod.start("sidecar", IMAGE, "/busybox", "sleep", 600)
    said = pod.exec("sidecar", "/busybox", "wget", "-q", "-O", "-", "http://localhost:8080/")
    assert said.out.strip() == HELLO.strip()
    node.crictl("stop", "--timeout", "600", id)
    assert pod.status("server")["exitCode"] == 143
    pod.remove()
    assert not leftovers.settled(lambda: left(node))


@servers
def test_two_pods_with_the_same_port(node: CriContainerd, server: Server, tmp_path: Path) -> None:
    make = partial(run_pod, node, handler=server.handler, annotations=server.annotations)
    pods = [make(tmp_path / name, name=name) for name in ("one", "two")]
    for pod in pods:
        pod.start("server", IMAGE, server.program)
    for pod in pods:
        listens(pod)
    addresses = [address_of(pod) for pod in pods]
    assert addresses[0] != addresses[1]
    assert [fetched(pod, address) for pod, address in zip(pods, addresses, strict=True)] == [HELLO] * 2
    for pod in pods:
        pod.remove()


def test_each_container_listens_where_its_own_annotation_says(node: CriContainerd, tmp_path: Path) -> None:
    """The pod's, which all its containers have, is for those that have none of their own; an exec listens nowhere."""
    annotations = {"shimd.io/listen": "tcp:127.0.0.1:8080", "shimd.io/listen.other": "tcp:8081,tcp:8082"}
    pod = run_pod(node, tmp_path / "pod", "wasmtime", annotations=annotations)
    for name in ("server", "other"):
        pod.start(name, IMAGE, "/listening.wasm")
        listens(pod, name)
    pod.start("sidecar", IMAGE, "/busybox", "sleep", 600)
    assert fetched(pod, address_of(pod)) == "", "it listens on the pod's localhost"
    for port in (8080, 8081):
        said = pod.exec("sidecar", "/busybox", "wget", "-q", "-O", "-", f"http://localhost:{port}/")
        assert said.out.strip() == HELLO.strip()
    done = pod.exec("server", "/listening.wasm")
    assert "no listening socket was given" in done.err
    with pytest.raises(AssertionError, match=r"port 8080 of 127\.0\.0\.1: address already in use"):
        pod.start("third", IMAGE, "/listening.wasm")
    pod.remove()


def test_a_component_in_a_pod(pod_archive: Path, tmp_path: Path) -> None:
    """It opens its sockets itself, by wasi:sockets; another asks it, by the pod's localhost."""
    program = component("server", "command").read_bytes()
    contents = images.layer({"/server.wasm": program, "/etc/hosts": b"127.0.0.1 localhost\n"})
    images.save(tmp_path / "component.tar", [images.image(IMAGE, [contents], {"Entrypoint": ["/server.wasm"]})])
    with running(VERSIONS[1], CriContainerd) as node:
        for archive in (pod_archive, tmp_path / "component.tar"):
            node.import_image(archive, "k8s.io")
        pod = run_pod(node, tmp_path / "pod", "wasmtime")
        id = pod.create("server", IMAGE, args=["listen", "8080"])
        node.crictl("start", id, timeout=120)  # its 36 MB are compiled
        listens(pod)
        assert fetched(pod, address_of(pod)) == "hello from a component!\n"
        pod.start("client", IMAGE, args=["fetch", "localhost", "8080"])
        assert ended(pod, "client")["exitCode"] == 0
        assert pod.log("client") == "hello from a component!\n"
        node.crictl("stop", "--timeout", "600", id)
        assert pod.status("server")["exitCode"] == 143
        pod.remove()
        assert not leftovers.settled(lambda: left(node))


@pytest.mark.parametrize("engine", wasmer.BINDINGS)
@pytest.mark.parametrize(("flags", "said"), [([], "cannot listen"), (["--network"], "listening on port 8080")])
def test_shimd_run_has_a_network_only_if_asked_for(tmp_path: Path, flags: list[str], said: str, engine: str) -> None:
    program = compiled(SOURCES / "server.c", tmp_path)
    run = [str(LAUNCHERS / "shimd"), "run", "--engine", engine, *flags, str(program)]
    command = ["unshare", "--net", *run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(said)
        process.terminate()


@contextmanager
def guest(tmp_path: Path, engine: str, *addresses: str) -> "Iterator[subprocess.Popen[str]]":
    """``sockets.c`` under ``shimd run``, with listening sockets and a directory."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/note").write_text("a note\n")
    given = [f"--listen={address}" for address in addresses]
    options = ["--engine", engine, *given, f"--dir={tmp_path}/data::/data"]
    run = [str(LAUNCHERS / "shimd"), "run", *options, str(compiled(GUEST, tmp_path))]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"given {len(addresses)}\n"
            yield process
        finally:
            process.kill()


@contextmanager
def connected(host: str, port: int) -> Iterator["IO[str]"]:
    with socket.create_connection((host, port), timeout=20) as sock, sock.makefile("rw") as file:
        yield file


def asked(connection: "IO[str]", question: str) -> str:
    connection.write(question + "\n")
    connection.flush()
    return connection.readline()


def again(host: str, port: int) -> str:
    with connected(host, port) as connection:
        return asked(connection, "fd")


@pytest.mark.parametrize("engine", HOSTS)
def test_what_a_module_can_do_with_its_sockets(tmp_path: Path, engine: str) -> None:
    """Several, IPv4 and IPv6; several connections at a time, none blocking; and its directories are there as ever."""
    ports = free_port(), free_port()
    with guest(tmp_path, engine, f"tcp:127.0.0.1:{ports[0]}", f"tcp:[::1]:{ports[1]}") as process:
        with connected("127.0.0.1", ports[0]) as one, connected("::1", ports[1]) as two:
            for connection in (one, two):
                assert asked(connection, "hello") == "hello?\n"
                assert asked(connection, "note") == "a note\n"
                assert asked(connection, "kind") == "socket\n"
                assert asked(connection, "nap") == "slept\n"
            numbers = {asked(one, "fd"), asked(two, "fd")}
            assert len(numbers) == 2
            assert asked(two, "half") == "", "it sends no more"
        until(lambda: again("127.0.0.1", ports[0]) in numbers, "what was closed to be free again")
        with connected("127.0.0.1", ports[0]) as three:
            assert asked(three, "exit 42") == ""
        assert process.wait(20) == 42


@pytest.mark.parametrize("engine", HOSTS)
def test_all_addresses_are_of_both_families(tmp_path: Path, engine: str) -> None:
    port = free_port()
    with guest(tmp_path, engine, f"tcp:{port}"):
        for host in ("127.0.0.1", "::1"):
            with connected(host, port) as connection:
                assert asked(connection, "hello") == "hello?\n"


@pytest.mark.parametrize(
    ("engine", "program", "listen", "said"),
    [
        ("wasmtime", GUEST, "udp:53", "--listen: 'udp:53' is not of the form tcp:PORT or tcp:ADDRESS:PORT"),
        ("wasmtime", GUEST, "tcp:here:80", "--listen: 'here' in 'tcp:here:80' is not an IP address"),
        ("wasmtime", GUEST, "tcp:192.0.2.1:80", "port 80 of 192.0.2.1: cannot assign requested address"),
        ("wasmtime", GUEST.with_name("app.c"), "tcp:127.0.0.1:0080", "it does not import WASI's sock_accept"),
        ("wasmer", SOURCES / "server.c", "tcp:8080", "under wasmer, an app opens its listening sockets itself"),
    ],
)
def test_what_cannot_listen(tmp_path: Path, engine: str, program: Path, listen: str, said: str) -> None:
    run: list[str | Path] = [
        LAUNCHERS / "shimd",
        "run",
        "--engine",
        engine,
        "--listen",
        listen,
        compiled(program, tmp_path),
    ]
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *run], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@wasm_only
def test_an_annotation_that_cannot_be_met(box: Box, runtime: Runtime) -> None:
    """Of a container that is no pod's; nothing of it is left."""
    for value, said in (("tcp:http", "is not of the form"), ("tcp:8080", "shimd.io/listen|sock_accept")):
        done = box.run("app", flags=("--rm", "--annotation", f"shimd.io/listen={value}"))
        assert done.code != 0
        assert re.search(said, done.err), done.err
        box.remove("app")
