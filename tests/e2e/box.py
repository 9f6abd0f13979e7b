"""One test's view of containerd: a namespace of its own, with one runtime."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shimd.engines.registry import lacking
from tests import wasmer
from tests.e2e import audit, guests, leftovers
from tests.e2e.containerd import PATIENCE, Containerd, Result

Attached = subprocess.Popen[str]


@dataclass(frozen=True)
class Runtime:
    name: str
    image: str
    program: str
    """The path of ``app`` in the image."""
    type: str
    """containerd's name for it."""

    @property
    def handler(self) -> str:
        """Its name in CRI's configuration (``cri.py``)."""
        return self.type.split(".")[2]

    @property
    def reference(self) -> bool:
        """It is not ours, but what ours is compared with."""
        return self.name == "runc"

    @property
    def native(self) -> bool:
        return self.image == guests.NATIVE


#: Where its library is: in Debian 13 and later (test_trixie.py).
_WASMEDGE = Runtime("wasmedge", guests.WASM, "/app.wasm", "io.containerd.wasmedge.v1")
#: runc first: it shows that what a test expects is right. Then ours, of which one has runc run native containers.
RUNTIMES = [
    Runtime("runc", guests.NATIVE, "/app", "io.containerd.runc.v2"),
    Runtime("native", guests.NATIVE, "/app", "io.containerd.wasmtime.v1"),
    Runtime("wasmtime", guests.WASM, "/app.wasm", "io.containerd.wasmtime.v1"),
    *([] if lacking("wasmedge") else [_WASMEDGE]),
    Runtime("wasmer", guests.WASM, "/app.wasm", "io.containerd.wasmer.v1"),
]
#: wasmer by the binding from PyPI, whatever else is installed, for what it does in its own way.
WASMER_SDK = Runtime("wasmer-sdk", guests.WASM, "/app.wasm", "io.containerd.wasmer-sdk.v1")

BY_NAME = {runtime.name: runtime for runtime in RUNTIMES}
OURS = RUNTIMES[1:]
WASM = RUNTIMES[2:]
#: For what runc cannot show, or shows otherwise.
ours_only = pytest.mark.parametrize("runtime", OURS, ids=lambda runtime: runtime.name, indirect=True)
wasm_only = pytest.mark.parametrize("runtime", WASM, ids=lambda runtime: runtime.name, indirect=True)
#: WASI preview 1 has no working directory: relative paths are wasi-libc's affair, and PWD is all that it could look at.
with_working_directory = pytest.mark.parametrize(
    "runtime", RUNTIMES[:2], ids=lambda runtime: runtime.name, indirect=True
)
#: For what needs the host's directories in the guest, which wasmer-sdk does not offer.
with_directories = pytest.mark.parametrize(
    "runtime", RUNTIMES if wasmer.NATIVE else RUNTIMES[:-1], ids=lambda runtime: runtime.name, indirect=True
)
wasmer_sdk_only = pytest.mark.parametrize("runtime", [WASMER_SDK], ids=lambda runtime: runtime.name, indirect=True)


@dataclass(frozen=True)
class Event:
    topic: str
    payload: dict[str, Any]


@dataclass
class Box:
    containerd: Containerd
    namespace: str
    runtime: Runtime
    started: list[Attached] = field(default_factory=list)

    def ctr(self, *arguments: object, check: bool = True, stdin: str | None = None) -> Result:
        return self.containerd.ctr(*arguments, namespace=self.namespace, check=check, stdin=stdin)

    def run(
        self, id: str, *app: object, flags: tuple[object, ...] = ("--rm",), image: str | None = None, **more: Any
    ) -> Result:
        """``ctr run`` with the arguments of the app; its exit code is in the result."""
        return self.ctr(*self._run(id, app, flags, image), check=False, **more)

    def _run(self, id: str, app: tuple[object, ...], flags: tuple[object, ...], image: str | None) -> list[object]:
        # ctr's arguments take the place of ENTRYPOINT and CMD together.
        command = (self.runtime.program, *app) if app else ()
        return ["run", "--runtime", self.runtime.type, *flags, image or self.runtime.image, id, *command]

    def detach(self, id: str, *app: object, flags: tuple[object, ...] = (), image: str | None = None) -> Path:
        """``ctr run -d``, output into the file that is returned."""
        output = self.containerd.directory / f"{self.namespace}-{id}.out"
        logging = ("-d", "--log-uri", f"file://{output}")
        self.ctr(*self._run(id, app, (*logging, *flags), image))
        return output

    def popen(self, *arguments: object, **more: Any) -> Attached:
        """``ctr`` left running, ended with the test."""
        command = self.containerd.command(*arguments, namespace=self.namespace)
        process = subprocess.Popen(command, env=self.containerd.env, text=True, **more)
        self.started.append(process)
        return process

    def run_attached(self, id: str, *app: object, flags: tuple[object, ...] = (), **more: Any) -> Attached:
        return self.popen(*self._run(id, app, flags, None), **more)

    def exec(self, id: str, exec_id: str, *app: object, flags: tuple[object, ...] = (), **more: Any) -> Result:
        return self.ctr(
            "tasks", "exec", *flags, "--exec-id", exec_id, id, self.runtime.program, *app, check=False, **more
        )

    def tasks(self) -> dict[str, tuple[int, str]]:
        """Of each task, its pid and status."""
        rows = [line.split() for line in self.ctr("tasks", "ls").out.splitlines()[1:]]
        return {id: (int(pid), status) for id, pid, status in rows}

    def status(self, id: str) -> str | None:
        return self.tasks().get(id, (0, None))[1]

    def pid(self, id: str) -> int:
        return self.tasks()[id][0]

    def wait_status(self, id: str, status: str | None) -> None:
        until(lambda: self.status(id) == status, f"{id} to be {status}")

    def kill(self, id: str, signal: object = "SIGKILL", *flags: object) -> Result:
        return self.ctr("tasks", "kill", "--signal", signal, *flags, id, check=False)

    def delete(self, id: str) -> int:
        """Delete a stopped task and return its exit code, which ``ctr`` tells only in words."""
        said = self.ctr("tasks", "delete", id).err
        found = re.search(r"non-zero exit code (\d+)", said)
        return int(found[1]) if found else 0

    def remove(self, id: str) -> None:
        """Task and container, whatever their state."""
        self.ctr("tasks", "delete", "--force", id, check=False)
        self.ctr("containers", "delete", id, check=False)

    def events(self, id: str) -> list[Event]:
        """The task events of one container, so far."""
        # DATE TIME ZONE ZONE NAMESPACE TOPIC JSON
        lines = [line.split(" ", 6) for line in self.containerd.events_log.read_text().splitlines()]
        found = [Event(line[5], json.loads(line[6])) for line in lines if len(line) == 7 and line[4] == self.namespace]
        return [event for event in found if id == event.payload.get("container_id") and "/tasks/" in event.topic]

    def wait_event(self, id: str, topic: str) -> Event:
        until(lambda: any(event.topic == topic for event in self.events(id)), f"{topic} of {id}")
        return next(event for event in self.events(id) if event.topic == topic)

    def leftovers(self) -> dict[str, object]:
        """What is on the machine of this box's tasks; nothing once they are deleted."""
        seen = {
            "bundles": self.containerd.bundles(self.namespace),
            "mounts": leftovers.mounts(str(self.containerd.bundle(self.namespace, ""))),
            "cgroups": leftovers.cgroups(self.namespace),
            "processes": leftovers.processes_in(self.namespace),
        }
        return {kind: things for kind, things in seen.items() if things}

    def close(self) -> None:
        """Remove all that the test left, the ordinary way."""
        for process in self.started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        for kind in ("tasks", "containers"):
            for id in self.ctr(kind, "ls", "-q").out.split():
                self.remove(id)
        left = leftovers.settled(self.leftovers)
        for image in self.ctr("images", "ls", "-q").out.split():
            self.ctr("images", "rm", image)
        assert not left
        audit.check(self.containerd.audit)


def happens(condition: Callable[[], object], patience: float) -> bool:
    """Whether a condition comes true within so many seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, however slow the machine is; a hang is a failure."""
    assert happens(condition, PATIENCE), f"waited {PATIENCE} s for {what}"


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""
