"""HTTP servers under test, by containerd and without it: who serves a component, and how much memory that takes."""

import itertools
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import wasmtime

from benchmarks.share import share
from benchmarks.shims import HELLO_WAT, processes
from benchmarks.tasks import pss
from tests.e2e import images, leftovers
from tests.e2e.box import Box, Runtime, content
from tests.e2e.containerd import Containerd, Version, running
from tests.e2e.guests import DIRECTORIES
from tests.e2e.http_app import free_port

#: Seconds until a server must have answered; the largest component compiles that long.
PATIENCE = 180.0
#: Seconds after which a command has said nothing that is still to come.
_SAID = 10.0
#: Made once: it reads certificates, which takes longer than an app to start.
_CLIENT = httpx.Client(timeout=PATIENCE, trust_env=False, verify=False)
_places = itertools.count()
#: A server whose component is of a version of WASI that it does not have has ended by then, or answers with errors.
_ENTRY, _COMMAND = "/app.wasm", "/hello.wasm"


class DoesNotServe(Exception):
    """It does not serve this component."""


@dataclass(frozen=True)
class Server:
    name: str
    serve: Callable[[Path, Path], AbstractContextManager[str]]
    """A component, with files in a directory; gives its address."""
    runtime: str = ""
    """What ``ctr run --runtime`` takes; empty: it is none of containerd's."""


def by_containerd(name: str, runtime: str, version: Version) -> Server:
    """
    :param runtime: its name, or a shim's path
    """

    @contextmanager
    def serve(program: Path, _directory: Path) -> Iterator[str]:
        with inside(version, runtime, program) as place, place.app("app") as address:
            yield address

    return Server(name, serve, runtime)


@dataclass
class Place:
    """A containerd of its own, with an image of one component."""

    box: Box
    variable: str = "WASMTIME_HTTP_PROXY_SOCKET_ADDR"
    """That says where to listen."""

    @contextmanager
    def app(self, id: str) -> Iterator[str]:
        """:raises DoesNotServe: it is refused, it ended, or does not answer"""
        try:
            address = self.start(id)
        except AssertionError as refused:
            self.box.remove(id)
            raise DoesNotServe(str(refused).partition("ctr: ")[2]) from None
        try:
            answered(address, lambda: self.box.status(id) in ("STOPPED", None))
            yield address
        finally:
            self.end(id)

    def start(self, id: str) -> str:
        """``ctr run -d``; returns where it is to listen."""
        address = f"127.0.0.1:{free_port()}"
        self.box.detach(id, flags=("--net-host", "--env", f"{self.variable}={address}"))
        return address

    def first_answer(self, id: str) -> float:
        """Seconds from ``ctr run -d`` of the server to its first answer."""
        began = time.perf_counter()
        answered(self.start(id))
        took = time.perf_counter() - began
        self.end(id)
        return took

    def first_words(self, id: str) -> float | None:
        """Seconds from ``ctr run -d`` of a command to what it says; ``None``: another shim has lost that."""
        command = replace(self.box, runtime=replace(self.box.runtime, program=_COMMAND))
        began = time.perf_counter()
        output = command.detach(id, "hello")
        while (said := content(output)) != "hello\n" and time.perf_counter() - began < _SAID:
            time.sleep(0.001)
        took = time.perf_counter() - began
        self.box.wait_status(id, "STOPPED")
        self.box.remove(id)
        return took if said else None

    def end(self, id: str) -> None:
        self.box.kill(id)
        self.box.wait_status(id, "STOPPED")
        self.box.remove(id)

    def memory(self) -> float:
        """MiB of proportional set size of all that is there for apps, a moment later."""
        time.sleep(2)
        return sum(pss(pid) for pid in self._processes())

    def _processes(self) -> set[int]:
        """Daemons, shims, fork servers, and the apps."""
        containerd = self.box.containerd
        tasks = {pid for pid, _status in self.box.tasks().values()}
        ours = {pid for pid in processes(containerd.directory) if not _is_containerds(pid)}
        return ours | tasks


def _is_containerds(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in ("containerd", "ctr")
    except OSError:
        return True


@contextmanager
def inside(version: Version, runtime: str, program: Path, manifest: str = "") -> Iterator[Place]:
    """:param manifest: of a Spin application, whose component the program is"""
    measured = False
    try:
        with running(version, Containerd) as containerd:
            image = "test.invalid/http:1"
            # Of its own: containers of the same names would share their cgroups, and one's end be the other's.
            namespace = f"bench-{os.getpid()}-{next(_places)}"
            box = Box(containerd, namespace, Runtime("http", image, _ENTRY, runtime))
            archive = containerd.directory / "image.tar"
            files = {_ENTRY: program.read_bytes(), _COMMAND: bytes(wasmtime.wat2wasm(HELLO_WAT))}
            if manifest:
                files["/spin.toml"] = manifest.encode()
            layer = images.layer(files, DIRECTORIES)
            images.save(archive, [images.image(image, [layer], {"Entrypoint": [_ENTRY], "Env": ["PATH=/"]})])
            containerd.import_image(archive, box.namespace)
            yield Place(box, *(["SPIN_HTTP_LISTEN_ADDR"] if manifest else []))
            measured = True
            box.close()
            leftovers.remove_parents(box.namespace)
    except AssertionError:
        if not measured or not runtime.startswith("/"):  # what another's shim leaves is no failure of the benchmark
            raise


def by_command(name: str, command: str) -> Server:
    """
    :param command: a command line with ``{address}`` and ``{program}`` in it
    """

    @contextmanager
    def serve(program: Path, directory: Path) -> Iterator[str]:
        address = f"127.0.0.1:{free_port()}"
        words = [word.format(address=address, program=program) for word in shlex.split(command)]
        with share() as prefix:
            with open(directory / "server.log", "ab") as log:
                process = subprocess.Popen([*prefix, *words], stdout=log, stderr=log, start_new_session=True)
            try:
                answered(address, lambda: process.poll() is not None)
                yield address
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)

    return Server(name, serve)


def answered(address: str, ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until a server answers.

    :raises DoesNotServe: it has ended, or answers with an error
    """
    deadline, asked = time.monotonic() + PATIENCE, 0
    while True:
        try:
            answer = _CLIENT.get(f"http://{address}/", headers={"connection": "close"})
        except httpx.TransportError:
            asked += 1
            if time.monotonic() > deadline or (asked % 500 == 0 and ended()):
                raise DoesNotServe("it does not listen") from None
            time.sleep(0.001)
            continue
        if answer.status_code != 200:
            raise DoesNotServe(f"it answers {answer.status_code}")
        return
