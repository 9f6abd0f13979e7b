"""A containerd of each version for the session, a namespace for each test; and nothing left behind by either."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e import audit, guests, images, leftovers, turns, upstream
from tests.e2e.box import RUNTIMES, Box, Runtime
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Containerd, Version, running

_serial = itertools.count()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if left_out := turns.off_turn(items):
        config.hook.pytest_deselected(items=left_out)
        others = set(left_out)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("end-to-end tests need root: namespaces, cgroups, mounts")


@pytest.fixture(scope="session", autouse=True)
def other_launchers() -> None:
    """The engines of these names have no launchers of their own: they are for those who choose them themselves."""
    for name, launcher in (("wasmer-sdk-v1", "wasmer-v1"), ("spin-py-v2", "spin-v2")):
        with suppress(FileExistsError):
            (LAUNCHERS / f"containerd-shim-{name}").symlink_to(f"containerd-shim-{launcher}")


@pytest.fixture(scope="session", autouse=True)
def guard() -> None:
    """Of every process that gives up its sight of the node's files, in every test with a containerd."""
    audit.install()


@pytest.fixture(scope="session")
def programs() -> tuple[bytes, bytes]:
    """app.c as (Linux program, Wasm module)."""
    return guests.build()


@pytest.fixture(scope="session")
def archive(programs: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard images, ready to be imported."""
    path = tmp_path_factory.mktemp("images") / "standard.tar"
    images.save(path, guests.standard(*programs))
    return path


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    return found


@pytest.fixture(scope="session")
def containerd(version: Version) -> Iterator[Containerd]:
    """Shared by all tests that do not stop it."""
    with running(version, Containerd) as containerd:
        yield containerd


@pytest.fixture
def own_containerd(version: Version) -> Iterator[Containerd]:
    """For tests that stop it, or its shimd."""
    with running(version, Containerd) as containerd:
        yield containerd


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.param
    return found


BoxMaker = Callable[[Containerd, Runtime], Box]


@contextmanager
def boxes(archive: Path) -> Iterator[BoxMaker]:
    """Boxes with the standard images, emptied at the end."""
    with ExitStack() as stack:

        def make(containerd: Containerd, runtime: Runtime) -> Box:
            namespace = f"e2e-{os.getpid()}-{next(_serial)}"
            containerd.import_image(archive, namespace)
            box = Box(containerd, namespace, runtime)
            stack.callback(leftovers.remove_parents, namespace)
            stack.callback(box.close)
            return box

        yield make


@pytest.fixture
def new_box(archive: Path) -> Iterator[BoxMaker]:
    with boxes(archive) as make:
        yield make


@pytest.fixture
def box(containerd: Containerd, runtime: Runtime, new_box: BoxMaker) -> Box:
    return new_box(containerd, runtime)


@pytest.fixture
def own_box(own_containerd: Containerd, runtime: Runtime, new_box: BoxMaker) -> Box:
    return new_box(own_containerd, runtime)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of HTTPS by a private authority: its address, and the authority's certificate."""
    certificate, context = upstream.authority(tmp_path)
    with upstream.running(context) as server:
        yield server.address, certificate


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of ``shimd run``, with one cache for all of a module: large programs take a while to compile."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "SHIMD_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
