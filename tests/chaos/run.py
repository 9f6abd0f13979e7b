"""A run of chaos: a plan carried out on a containerd of its own, and the audit of what became of it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio

from tests.chaos import kernel
from tests.chaos.auditor import Finding, audit
from tests.chaos.lives import Lives, Running
from tests.chaos.place import Place, engines, now, processors
from tests.chaos.plan import LONG, SERVERS, App, Life, Plan, Step
from tests.chaos.record import Look, Record
from tests.chaos.strikes import SmallDisk, Strikes
from tests.e2e import leftovers
from tests.e2e.containerd import Containerd, Version, running

#: Seconds until a call counts as hanging, however slow the machine is.
PATIENCE = float(os.environ.get("SHIMD_TEST_PATIENCE", "60"))


class ChaosContainerd(Containerd):
    """With shimd's directories on a disk that can be filled."""

    def __init__(self, version: Version, directory: Path) -> None:
        super().__init__(version, directory)
        self._disk: SmallDisk | None = SmallDisk(directory)

    def stop_daemon(self) -> None:
        """And what it is on: the harness wants no mount."""
        super().stop_daemon()
        leftovers.settled(lambda: leftovers.processes_of(self.directory))
        self._unmount()

    def close(self) -> None:
        self._unmount()

    def _unmount(self) -> None:
        if self._disk is not None:
            self._disk.close()
            self._disk = None


@contextmanager
def chaos_containerd(version: Version) -> Iterator[Containerd]:
    with running(version, ChaosContainerd) as containerd:
        yield containerd


def carry_out(plan: Plan, containerd: Containerd) -> Record:
    run = _Run(plan, containerd)
    try:
        anyio.run(run.run)
    finally:
        _end_all(run.place)
    with suppress(OSError):  # of what is left the record tells
        leftovers.remove_parents(run.place.namespace)
    return run.record


def _end_all(place: Place) -> None:
    """What a run has left that broke off, or has found that apps stay: also those that are frozen."""
    for cgroup in leftovers.cgroups(place.namespace):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (cgroup / name).exists():
                (cgroup / name).write_text(word)
    leftovers.end(list(leftovers.processes_in(place.namespace)))
    leftovers.settled(lambda: leftovers.processes_in(place.namespace))
    for cgroup in leftovers.cgroups(place.namespace):
        with suppress(OSError):
            cgroup.rmdir()


class _Run:
    def __init__(self, plan: Plan, containerd: Containerd) -> None:
        self.plan, self.record = plan, Record()
        self.place = Place(containerd, f"chaos-{os.getpid()}-{time.monotonic_ns()}", self.record, PATIENCE)
        self._strikes = Strikes(self.place)
        self._lives = Lives(self.place)

    async def run(self) -> None:
        async with self.place, anyio.create_task_group() as listening:
            await listening.start(self.place.listen)
            await self._warm(0)
            before = self._node()
            await self._chaos()
            await self._warm(1)
            await self._all_told()
            self.record.leftovers += await self._left(before)
            listening.cancel_scope.cancel()

    async def _warm(self, generation: int) -> None:
        """An app of each engine, with an exec, and as many jailers as there can be: what is made once is there then."""
        async with anyio.create_task_group() as tasks:
            for place, engine in enumerate([*sorted(engines()), *["wasmtime"] * processors()]):
                number = -1 - place - 100 * generation
                app, steps, end = App("run", 1.0), [Step(0.0, "exec", App("run"))], 0
                if engine in SERVERS:
                    app, steps, end = App("serve", LONG), [], 15
                life = Life(number, 0.0, engine, app, False, "program", tuple(steps), end, 0.0)
                tasks.start_soon(self._lives.lead, life)

    async def _chaos(self) -> None:
        self._began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for life in self.plan.lives:
                tasks.start_soon(self._lead, life)
            for strike in self.plan.strikes:
                tasks.start_soon(self._at, strike.at, self._strikes.fall, strike)
            for at in self.plan.looks:
                tasks.start_soon(self._at, at, self._look)

    async def _lead(self, life: Life) -> None:
        engine = life.engine if life.engine in engines() else "wasmtime"
        if engine != life.engine:  # wasmedge, whose library the machine has not
            life = Life(**{**vars(life), "engine": engine})
        await self._at(life.at, self._lives.lead, life)

    async def _at(self, seconds: float, act, *arguments) -> None:  # type: ignore[no-untyped-def]
        await anyio.sleep(max(0.0, self._began + seconds - time.monotonic()))
        await act(*arguments)

    async def _look(self) -> None:
        before = {one.id: (one.state, one.asked) for one in self._lives.running.values()}
        theirs = await self._containerd()
        ours = await self.place.shimd()
        looked = list(self._lives.running.values())
        alive = {one.id: kernel.lives(one.pid, self.place.namespace, one.id) for one in looked}
        for one in looked:
            state, asked = before.get(one.id, ("", 0))
            if state and (one.state, one.asked) == (state, asked) and not _may_end(one):
                seen = (theirs.get(one.id, ""), ours.get(one.id, ""), alive[one.id])
                self.record.looks.append(Look(one.id, now(), state, *seen))

    async def _containerd(self) -> dict[str, str]:
        """containerd waits for a state no longer than two seconds, and says then that it does not know."""
        with anyio.move_on_after(PATIENCE):
            while True:
                found = {task.id: task.status.name for task in (await self.place.tasks.list()).tasks}
                if "UNKNOWN" not in found.values():
                    return found
        return {}

    async def _all_told(self) -> None:
        """Events may come after what they tell of."""
        wanted = sum(call.method == "Delete" and not (call.error or call.exec_id) for call in self.record.calls)
        for _ in range(200):
            if sum(event.topic == "delete" for event in self.record.events) >= wanted:
                return
            await anyio.sleep(0.05)

    def _node(self) -> kernel.Node:
        return kernel.look(self.place.containerd.directory, self.place.namespace)

    async def _left(self, before: kernel.Node) -> list[str]:
        """What is there still after a while: processes take a moment to end."""
        left: list[str] = []
        for _ in range(60):
            left = kernel.left(before, self._node(), processors())
            if not left:
                break
            await anyio.sleep(0.25)
        return left


def _may_end(one: Running) -> bool:
    """By itself, at any moment: what is seen of it depends on when it is looked at."""
    return one.life.app.seconds < LONG and one.state != "STOPPED"


def judge(plan: Plan, record: Record) -> list[Finding]:
    """The audit, told in a way that can be replayed."""
    findings = audit(record)
    for finding in findings:
        print(f"FINDING {finding}")
    print(
        f"seed {plan.seed}: {len(record.attempts)} containers, {len(record.calls)} calls, {len(record.events)} events, "
        f"{len(record.strikes)} strikes, {len(record.looks)} looks, {len(findings)} findings"
    )
    return findings
