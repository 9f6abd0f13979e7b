"""Spin applications in containers: the component of ``tests/components/spin``, described in one way or another."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from shimd.apps.spin.engine import PORTABLE
from shimd.engines.wasmtime import NATIVE
from tests.components.build import component
from tests.e2e import guests, images, upstream
from tests.e2e.box import Box, Runtime, until
from tests.e2e.containerd import VERSIONS
from tests.e2e.http_app import answers, free_port

SPIN = Runtime("spin", "test.invalid/spin:1", "/", "io.containerd.spin.v2")
#: By the portable host, whichever others there are.
PORTABLE_SPIN = replace(SPIN, name=PORTABLE, type=f"io.containerd.{PORTABLE}.v2")
_HOSTS = [SPIN, PORTABLE_SPIN] if NATIVE else [SPIN]
on_spin = pytest.mark.parametrize("runtime", _HOSTS, ids=lambda it: it.name, indirect=True)
#: For what is served by one host, wherever there are two.
on_one_spin = pytest.mark.parametrize("runtime", [SPIN], ids=["spin"], indirect=True)
#: For what containerd has no part in.
on_the_newest = pytest.mark.parametrize("version", VERSIONS[-1:], ids=lambda version: version.name, indirect=True)


def program() -> bytes:
    """With the exports of all triggers."""
    return component("spin", "spin-all").read_bytes()


@dataclass
class App:
    address: str
    output: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{self.address}{path}", timeout=30, trust_env=False)

    def value(self, path: str) -> Any:
        """What a component says."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text + self.output.read_text()[-2000:]
        return answer.json()


#: For what is found wrong before a module is looked at: an image of all of it takes a while to import.
NO_PROGRAM = b"\0asm\x0d\0\1\0"


def image(
    path: Path,
    name: str,
    manifest: str,
    files: Mapping[str, bytes] | None = None,
    links: Mapping[str, str] | None = None,
) -> Path:
    """The archive of an image with a ``/spin.toml``, and files and links of absolute paths."""
    contents = {"/spin.toml": manifest.encode(), **(files or {})}
    if "/app.wasm" not in contents:
        contents["/app.wasm"] = program()
    layer = images.layer(contents, guests.DIRECTORIES, links)
    images.save(path, [images.image(name, [layer], {"Entrypoint": ["/"], "Env": ["PATH=/"]})])
    return path


@contextmanager
def running(
    box: Box, name: str = SPIN.image, mounted: Mapping[str, Path] | None = None, /, **environment: str
) -> Iterator[App]:
    """An application in a container, which answers; ended with TERM and the exit code 0.

    :param mounted: files of this machine, by the container's paths
    """
    address = f"127.0.0.1:{free_port()}"
    variables = {"SPIN_HTTP_LISTEN_ADDR": address, "SPIN_VARIABLE_SECRET": "s3cret", **environment}
    mounted = mounted or {}
    # The usual one mounts this machine's hosts over ours.
    own = f"network:/proc/{os.getpid()}/ns/net"
    flags = ["--with-ns", own] if "/etc/hosts" in mounted else ["--net-host"]
    flags += [item for key, value in variables.items() for item in ("--env", f"{key}={value}")]
    mounts = [f"type=bind,src={file},dst={path},options=rbind:ro" for path, file in mounted.items()]
    flags += [item for mount in mounts for item in ("--mount", mount)]
    output = box.detach("app", flags=tuple(flags), image=name)
    until(lambda: answers(address) or box.status("app") == "STOPPED", "the application to listen")
    assert box.status("app") == "RUNNING", output.read_text()
    yield App(address, output)
    box.kill("app", "SIGTERM")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 0


def check_two_at_a_time(app: App, fetch: str) -> None:
    """An application that may have two requests under way has no more, however many are made.

    :param fetch: the path below which it asks what follows
    """
    with upstream.running() as other, ThreadPoolExecutor(6) as threads:
        other.party = 2
        answers = list(threads.map(app.value, [f"{fetch}/{other.address}/crowd"] * 6))
        assert [status for status, _body in answers] == [200] * 6
        assert other.crowd == 2


def is_native(box: Box) -> bool:
    """Whether the application of :func:`running` is served by wasmtime's native host."""
    return "libshimd_wasmtime.so" in Path(f"/proc/{box.pid('app')}/maps").read_text()


def is_without_python(pid: int) -> bool:
    """Whether a process is a worker of the zygote's."""
    return Path(f"/proc/{pid}/exe").readlink().name.startswith("memfd:shimd-zygote")
