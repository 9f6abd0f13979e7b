"""Parts of shimd killed or held up at random, in the middle of whatever they do.

Apps may fail; but nobody waits for ever, nothing is left of them, and the next one runs. ``SHIMD_TEST_CHAOS=20`` tries
as many sequences of chances.
"""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.e2e import leftovers
from tests.e2e.box import Attached, Box, until, wasm_only
from tests.e2e.containerd import PATIENCE

pytestmark = wasm_only
APPS, STRIKES = 4, 25
SEEDS = range(int(os.environ.get("SHIMD_TEST_CHAOS", "1")))


@dataclass
class Client:
    """``ctr run`` of one app after the other."""

    box: Box
    name: str
    chance: random.Random
    serial: int = 0
    process: Attached | None = None

    def go_on(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.serial += 1
            app = self.chance.choice([("hello",), ("exit", 7), ("sleep", 1)])
            self.process = self.box.run_attached(f"{self.name}-{self.serial}", *app, flags=("--rm",))

    def ends(self) -> None:
        assert self.process is not None
        self.process.wait(3 * PATIENCE)


def is_ours(line: str) -> bool:
    """By a command line; launchers are not: what becomes of a task whose launcher is killed is containerd's affair."""
    return line.startswith("shimd-zygote") or " -m shimd." in line or line.endswith("shimd serve")


def strike(box: Box, chance: random.Random) -> None:
    found = leftovers.processes_of(box.containerd.directory) | leftovers.processes_in(box.namespace)
    victims = sorted(pid for pid, line in found.items() if is_ours(line))
    if not victims:
        return
    pid = chance.choice(victims)
    number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    print(time.time(), number.name, pid, found[pid])
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(chance.uniform(0, 0.5))
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_struck(own_box: Box, seed: int) -> None:
    chance = random.Random(seed)
    clients = [Client(own_box, f"app{number}", chance) for number in range(APPS)]
    for _ in range(STRIKES):
        for client in clients:
            client.go_on()
        time.sleep(chance.uniform(0, 0.3))
        strike(own_box, chance)
    for client in clients:
        client.ends()
    until(lambda: own_box.run("last").code == 0, "an app to run as ever")
    for id in own_box.ctr("containers", "ls", "-q").out.split():
        own_box.remove(id)
    assert not leftovers.settled(own_box.leftovers), own_box.containerd.daemon_log()
