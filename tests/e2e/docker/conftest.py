"""One engine with its images for the session, and for each test names of its own; nothing is left behind."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.components.build import component
from tests.e2e import guests, images, leftovers
from tests.e2e.box import WASM, Runtime, until
from tests.e2e.containerd import Result
from tests.e2e.docker.engine import PROGRAMS, Engine, running
from tests.e2e.spin_app import SPIN
from tests.e2e.test_slight import SLIGHT, SLIGHTFILE
from tests.slight.build import guest

HTTP = "test.invalid/http:1"
#: With a check that says this exit code.
HEALTH = "test.invalid/health:1"
#: With a program that its user may not have.
PRIVATE = "test.invalid/private:1"
_SPIN = """
spin_manifest_version = 2
[application]
name = "hello"
[[trigger.http]]
route = "/..."
component = "hello"
[component.hello]
source = "app.wasm"
allowed_outbound_hosts = ["http://*:*"]
"""
_FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"
_serial = itertools.count()


@pytest.fixture(scope="session")
def docker_archive(programs: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard images, an HTTP server that is a Spin application, too, and one of Slight."""
    server = {"/app.wasm": component("proxy", "proxy").read_bytes(), "/spin.toml": _SPIN.encode()}
    served = images.layer(server, guests.DIRECTORIES)
    slight = images.layer(
        {"/slightfile.toml": SLIGHTFILE.encode(), "/app.wasm": guest("app").read_bytes()}, guests.DIRECTORIES
    )
    settings = {"Entrypoint": ["/app.wasm"], "Env": ["PATH=/"]}
    checked = images.layer({"/app.wasm": programs[1]}, guests.DIRECTORIES)
    private = images.layer({"/app.wasm": programs[1]}, modes={"/app.wasm": 0o700})
    checks = {code: {**settings, "Healthcheck": {"Test": ["CMD", "/app.wasm", "exit", str(code)]}} for code in (0, 1)}
    path = tmp_path_factory.mktemp("docker") / "images.tar"
    images.save(
        path,
        [
            *guests.standard(*programs),
            images.image(HTTP, [served], settings),
            images.image(SLIGHT.image, [slight], settings),
            images.image(PRIVATE, [private], {**settings, "User": "1000:1000"}),
            *(images.image(f"{HEALTH}-{code}", [checked], config) for code, config in checks.items()),
        ],
    )
    return path


@pytest.fixture(scope="session")
def engine(docker_archive: Path) -> Iterator[Engine]:
    if not (PROGRAMS / "dockerd").exists():
        pytest.skip("no Docker Engine: run tools/setup docker")
    with running() as engine:
        engine.docker("load", "--input", docker_archive)
        yield engine


#: Where a program that is no application of theirs runs as under wasmtime.
OTHERS = [Runtime(one.name, guests.WASM, "/app.wasm", one.type) for one in (SPIN, SLIGHT)]
on_all = pytest.mark.parametrize("runtime", [*WASM, *OTHERS], ids=lambda runtime: runtime.name, indirect=True)


@pytest.fixture(params=WASM, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.param
    return found


@dataclass
class Docker:
    """An engine, and one runtime."""

    engine: Engine
    runtime: Runtime
    prefix: str

    def __call__(self, *arguments: object, check: bool = True, stdin: str | None = None) -> Result:
        return self.engine.docker(*arguments, check=check, stdin=stdin)

    def name(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def words(self, *flags: object, image: str | None = None) -> list[object]:
        """``docker run`` with this runtime, up to the app's arguments."""
        return ["run", f"--runtime={self.runtime.type}", *flags, image or self.runtime.image]

    def run(
        self, *app: object, flags: tuple[object, ...] = (), image: str | None = None, stdin: str | None = None
    ) -> Result:
        return self(*self.words("--rm", *flags, image=image), *app, check=False, stdin=stdin)

    def detach(self, name: str, *app: object, flags: tuple[object, ...] = (), image: str | None = None) -> str:
        """The container's name."""
        self(*self.words("--detach", "--name", self.name(name), *flags, image=image), *app)
        return self.name(name)

    def popen(self, *arguments: object, **more: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(self.engine.command(*arguments), env=self.engine.env, text=True, **more)

    def state(self, name: str) -> dict[str, Any]:
        return self.engine.state(name)

    def wait_status(self, name: str, status: str) -> None:
        until(lambda: self.state(name)["Status"] == status, f"{name} to be {status}")

    def address(self, name: str) -> str:
        """On its one network."""
        (network,) = self.engine.inspect(name)["NetworkSettings"]["Networks"].values()
        address: str = network["IPAddress"]
        return address

    def logs(self, name: str) -> str:
        return self("logs", name).out

    def fetched(self, address: str) -> str:
        """What a server answers, from the engine's network: empty until it does."""
        command = self.engine.inside(sys.executable, "-c", _FETCH, f"http://{address}")
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    def remove_all(self) -> None:
        if names := self("ps", "--all", "--quiet", "--filter", f"name={self.prefix}-").out.split():
            self("rm", "--force", "--volumes", *names)


@pytest.fixture
def docker(engine: Engine, runtime: Runtime) -> Iterator[Docker]:
    docker = Docker(engine, runtime, f"test{next(_serial)}")
    yield docker
    docker.remove_all()
    assert not leftovers.settled(engine.leftovers)
