"""Sockets that a Spin component opens itself: under the rules that hold for its requests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.components import rust
from tests.e2e.spin_local import Running, on_hosts, running
from tests.wasmtimes import native_only

MANIFEST = """
spin_manifest_version = 2
application = { name = "sockets" }
[[trigger.http]]
route = "/..."
component = "main"
[component.main]
source = "app.wasm"
allowed_outbound_hosts = %s
"""
DENIED = "ErrorCode::AccessDenied"


@pytest.fixture
def stream() -> Iterator[socket.socket]:
    """Listens on all addresses."""
    with closing(socket.create_server(("0.0.0.0", 0))) as sock:
        yield sock


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        yield sock


def port(of: socket.socket) -> int:
    return int(of.getsockname()[1])


@contextmanager
def served(
    directory: Path, allowed: list[str], *words: str, program: str = "newer", blocked: list[str] | None = None
) -> Iterator[Running]:
    """An application whose component connects where a query says."""
    (directory / "spin.toml").write_text(MANIFEST % allowed)
    (directory / "app.wasm").symlink_to(rust.component(program))
    if blocked:
        (directory / "runtime-config.toml").write_text(f"[outbound_networking]\nblock_networks = {blocked}\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", "TMPDIR": str(directory)}
    with running(directory, {**environment, "SHIMD_CACHE_DIR": str(directory / "cache")}, *words, directory) as app:
        yield app
        assert app.end() == 0


@native_only
def test_an_address_and_a_port(tmp_path: Path, stream: socket.socket, datagrams: socket.socket) -> None:
    allowed = [f"tcp://127.0.0.1:{port(stream)}", f"udp://127.0.0.1:{port(datagrams)}"]
    with served(tmp_path, allowed) as app:
        assert app.get(f"/tcp?127.0.0.1:{port(stream)}").text == "done"
        assert app.get(f"/udp?127.0.0.1:{port(datagrams)}").text == "done"
        assert datagrams.recv(100) == b"a datagram"
        for other in (f"127.0.0.1:{port(stream) ^ 1}", f"127.0.0.2:{port(stream)}", f"127.0.0.1:{port(datagrams)}"):
            assert app.get(f"/tcp?{other}").text == DENIED, other
        assert app.get(f"/udp?127.0.0.1:{port(stream)}").text == DENIED
        assert app.get("/lookup?localhost").text == "done"
    stream.setblocking(False)
    taken, address = stream.accept()
    taken.close()
    assert address[0] == "127.0.0.1"
    with pytest.raises(BlockingIOError):  # nobody else came
        stream.accept()


@native_only
def test_a_network_with_one_that_is_blocked(tmp_path: Path, stream: socket.socket) -> None:
    """The operator's word is the last, and no name is looked up that could lead around it."""
    with served(tmp_path, ["tcp://127.0.0.0/8:*"], blocked=["127.0.0.2/32"]) as app:
        assert app.get(f"/tcp?127.0.0.3:{port(stream)}").text == "done"
        assert app.get(f"/tcp?127.0.0.2:{port(stream)}").text == DENIED
        assert app.get(f"/tcp?10.0.0.1:{port(stream)}").text == DENIED


@native_only
def test_places_that_others_could_connect_to(tmp_path: Path, stream: socket.socket) -> None:
    with served(tmp_path, ["*://*:*"]) as app:
        assert app.get(f"/bind?127.0.0.1:{port(stream)}").text == DENIED
        assert app.get("/bind?0.0.0.0:0").text == "done"
        assert app.get(f"/tcp?127.0.0.1:{port(stream)}").text == "done"


@native_only
@pytest.mark.parametrize("allowed", [[], ["http://127.0.0.1:*", "https://*:*"]], ids=["nothing", "requests"])
def test_a_component_that_may_open_none(tmp_path: Path, stream: socket.socket, allowed: list[str]) -> None:
    with served(tmp_path, allowed) as app:
        for kind in ("tcp", "udp"):
            assert app.get(f"/{kind}?127.0.0.1:{port(stream)}").text == DENIED
        assert app.get("/lookup?localhost").text == "ErrorCode::PermanentResolverFailure"


@on_hosts
def test_by_wasi_0_2(tmp_path: Path, stream: socket.socket, engine: str) -> None:
    """With no name but an address that leads anywhere, and no connection that was refused."""
    heard: list[str] = []

    def tell() -> None:
        for _ in range(2):
            with closing(stream.accept()[0]) as sock:
                heard.append(sock.getsockname()[0])
                sock.sendall(b"from here\n")

    threading.Thread(target=tell, daemon=True).start()
    allowed, blocked = ["tcp://127.0.0.0/30:*"], ["127.0.0.2/32"]
    with served(tmp_path, allowed, "--engine", engine, program="server", blocked=blocked) as app:
        assert app.get(f"/tcp?127.0.0.1:{port(stream)}").text == "from here\n"
        for other in ("127.0.0.2", "127.0.0.4"):
            assert "access-denied" in app.get(f"/tcp?{other}:{port(stream)}").text, other
        assert app.get(f"/tcp?127.0.0.3:{port(stream)}").text == "from here\n"
        assert app.get("/lookup?localhost").text == "done"
    assert heard == ["127.0.0.1", "127.0.0.3"]


@on_hosts
def test_names_where_none_may_be_connected_to(tmp_path: Path, engine: str) -> None:
    """Who looks one up tells it to a server."""
    with served(tmp_path, ["http://*:*"], "--engine", engine, program="server") as app:
        assert app.get("/lookup?localhost").text == "permanent-resolver-failure"
