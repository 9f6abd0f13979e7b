"""What a user waits for: ``ctr run --rm`` of an app that prints one line, through a containerd of its own."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.shims import Shim, programs
from tests.e2e import images
from tests.e2e.containerd import VERSIONS, Containerd, running

IMAGE = "test.invalid/bench:1"


@contextmanager
def containerd(version: str) -> Iterator[Containerd]:
    """A private one with the image of all programs; ``version`` as the end-to-end tests call it."""
    with running(next(known for known in VERSIONS if known.name == version), Containerd) as daemon:
        contents = images.layer(programs(daemon.directory), ("proc", "dev", "sys", "run"))
        archive = daemon.directory / "image.tar"
        images.save(archive, [images.image(IMAGE, [contents], {"Env": ["PATH=/"]})])
        daemon.import_image(archive, "default")
        yield daemon


def run_once(daemon: Containerd, shim: Shim, serial: int) -> float:
    """Milliseconds from the command's start to its end."""
    command = daemon.command("run", "--rm", *shim.ctr_flags(), IMAGE, f"{shim.name}{serial}", *shim.hello)
    began = time.perf_counter()
    done = subprocess.run(command, env=daemon.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    took = (time.perf_counter() - began) * 1000
    if done.stdout != "hello\n":
        raise RuntimeError(f"{shim.name}: {done.stdout}{done.stderr}")
    return took


def latencies(version: str, shims: list[Shim], rounds: int) -> dict[str, list[float]]:
    """Of each shim, sorted; the first run, which compiles and starts what has to be there, is not counted."""
    found: dict[str, list[float]] = {shim.name: [] for shim in shims}
    with containerd(version) as daemon:
        for serial in range(rounds + 1):
            for shim in shims:
                took = run_once(daemon, shim, serial)
                if serial:
                    found[shim.name].append(took)
    return {name: sorted(values) for name, values in found.items()}
