"""What serves, under Docker: HTTP under wasmtime, Spin, Slight; published ports, and networks of several containers."""

import json

import pytest

from tests.e2e.box import RUNTIMES, until
from tests.e2e.docker.conftest import HTTP, Docker
from tests.e2e.http_app import on_wasmtime
from tests.e2e.spin_app import SPIN
from tests.e2e.test_slight import SLIGHT

WASMTIME = next(runtime for runtime in RUNTIMES if runtime.name == "wasmtime")
SERVERS = {
    "wasmtime": (WASMTIME, HTTP, 8080, "/", "hello from a component\n"),
    "spin": (SPIN, HTTP, 80, "/", "hello from a component\n"),
    "slight": (SLIGHT, SLIGHT.image, 3000, "/hello", "hello 1"),
}


@pytest.mark.parametrize(
    ("runtime", "image", "port", "path", "answer"), SERVERS.values(), ids=SERVERS.keys(), indirect=["runtime"]
)
def test_a_published_port(docker: Docker, image: str, port: int, path: str, answer: str) -> None:
    name = docker.detach("server", image=image, flags=(f"--publish=8000:{port}",))
    until(lambda: docker.fetched(f"127.0.0.1:8000{path}") == answer, "the app to answer")
    address = docker.address(name)
    assert docker.fetched(f"{address}:{port}{path}") == answer
    docker("stop", "--timeout", 300, name)
    assert docker.state(name)["ExitCode"] == 0


@on_wasmtime
def test_a_network_of_containers(docker: Docker) -> None:
    """As compose makes one: they find each other by their names."""
    network = docker.name("network")
    docker("network", "create", network)
    docker.detach("back", image=HTTP, flags=(f"--network={network}", "--network-alias=back", "--env=COLOUR=red"))
    docker.detach("front", image=HTTP, flags=(f"--network={network}", "--publish=8000:8080"))
    url = "127.0.0.1:8000/fetch?authority=back:8080&path=/about"
    until(lambda: docker.fetched(url), "the app to answer")
    assert json.loads(docker.fetched(url))["environ"]["COLOUR"] == "red"
    docker.remove_all()
    docker("network", "rm", network)
