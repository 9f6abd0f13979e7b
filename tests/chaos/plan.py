"""What a run of chaos does, drawn from its seed: apart from its execution, so that the same seed is the same plan.

Nothing here looks at the machine. What it lacks, and what is switched off, is left out when the plan is carried out;
so one that is switched on changes nothing of the rest.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

#: Each with its weight: a server takes as long to start as many a command does to run.
ENGINES = {"wasmtime": 6, "wasmer": 5, "wasmedge": 2, "native": 4, "spin": 1, "slight": 1}
SERVERS = frozenset({"spin", "slight"})
#: Parts of shimd, and the apps, and what is done to them. ``node``: the disk that all of them have.
ACTS: dict[str, dict[str, int]] = {
    "daemon": {"KILL": 4, "TERM": 3, "ABRT": 1, "UPGRADE": 2, "STOP": 2, "NOFILE": 2, "MEMORY": 1},
    "keeper": {"KILL": 2, "TERM": 1, "STOP": 1, "NOFILE": 1},
    "fork server": {"KILL": 4, "TERM": 2, "ABRT": 1, "STOP": 3, "NOFILE": 2, "MEMORY": 1},
    "zygote": {"KILL": 3, "TERM": 1, "STOP": 2, "NOFILE": 1},
    "jailer": {"KILL": 3, "TERM": 1, "ABRT": 1, "STOP": 2, "NOFILE": 1, "MEMORY": 1},
    "app": {"KILL": 3, "STOP": 1},
    "log program": {"KILL": 2, "STOP": 1},
    "node": {"DISK": 1},
}
PARTS = {"daemon": 4, "keeper": 2, "fork server": 6, "zygote": 4, "jailer": 4, "app": 2, "log program": 2, "node": 1}
#: They last; others are over at once.
LASTING = frozenset({"STOP", "NOFILE", "MEMORY", "DISK"})
#: What an app that is not ended by somebody else runs for, and one that is, in seconds.
SHORT, LONG = (0.0, 3.0), 600.0

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class App:
    """A process whose end is known.

    ``run``: nothing for so long, then its code. ``talk``: lines meanwhile. ``sum``: its input, whose sum is its code.
    ``abort``: a crash. ``serve``: HTTP, until it is told to end.
    """

    kind: str
    seconds: float = 0.0
    code: int = 0
    lines: int = 0

    @property
    def arguments(self) -> list[str]:
        return [self.kind, str(round(self.seconds * 1000)), str(self.code), str(self.lines)]


@dataclass(frozen=True)
class Step:
    """Something that is asked of a container, so many seconds after its start."""

    at: float
    do: str
    """exec, pause, update, state, metrics, pids, resize, write, get, stall"""
    app: App | None = None
    seconds: float = 0.0
    """Of a pause or a stall."""
    end: int = 0
    """The signal that ends an exec; 0: it ends by itself."""


@dataclass(frozen=True)
class Life:
    """A container from Create to Delete."""

    number: int
    at: float
    engine: str
    app: App
    terminal: bool
    logs: str
    """fifo, file or program"""
    steps: tuple[Step, ...]
    end: int
    """The signal that ends it; 0: it ends by itself."""
    end_at: float

    @property
    def name(self) -> str:
        return f"c{self.number}"


@dataclass(frozen=True)
class Strike:
    """Something that befalls a part of shimd."""

    number: int
    at: float
    part: str
    act: str
    pick: float
    """Which of those that are there then: 0 the first, nearly 1 the last."""
    seconds: float
    """How long it lasts."""
    amount: int
    """Of what is starved, how much is left: descriptors, or MiB."""


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    lives: tuple[Life, ...]
    strikes: tuple[Strike, ...]
    looks: tuple[float, ...]
    """When containerd's, shimd's and the kernel's views are compared."""
    rate: float
    strike_rate: float
    """Lives and strikes a second."""

    def replay(self, containerd: str) -> str:
        """The command that does the same once more."""
        return (
            f"python -m tests.chaos --seed {self.seed} --seconds 1 --length {self.seconds:g} --rate {self.rate:g}"
            f" --strike-rate {self.strike_rate:g} --containerd {containerd}"
        )

    def only(self, lives: Collection[int] | None, strikes: Collection[int] | None) -> "Plan":
        """A part of it, for a replay as small as can be; None: all."""
        return replace(
            self,
            lives=tuple(life for life in self.lives if lives is None or life.number in lives),
            strikes=tuple(strike for strike in self.strikes if strikes is None or strike.number in strikes),
        )

    def lines(self) -> Iterator[str]:
        yield f"seed {self.seed}, {self.seconds:.0f} s, {len(self.lives)} lives, {len(self.strikes)} strikes"
        things: list[tuple[float, str]] = [(life.at, _tell_life(life)) for life in self.lives]
        things += [(strike.at, _tell_strike(strike)) for strike in self.strikes]
        yield from (f"{at:7.2f} {what}" for at, what in sorted(things))


def _tell_life(life: Life) -> str:
    end = f"ended by {life.end} after {life.end_at:.2f} s" if life.end else "ends by itself"
    steps = ", ".join(f"{step.do} at {step.at:.2f}" for step in life.steps)
    terminal = " terminal" if life.terminal else ""
    return f"life {life.number}: {life.engine}, {' '.join(life.app.arguments)}{terminal} {life.logs}, {end}: {steps}"


def _tell_strike(strike: Strike) -> str:
    lasts = f" for {strike.seconds:.2f} s" if strike.act in LASTING else ""
    return f"strike {strike.number}: {strike.act} of {strike.part}{lasts}"


def draw(seed: int, seconds: float, lives_a_second: float = 3.0, strikes_a_second: float = 1.0) -> Plan:
    """The plan of a seed. Lives begin, and strikes fall, for so many seconds; what has begun takes a while longer."""
    lives = _spread(random.Random(f"lives {seed}"), seconds, lives_a_second, _life)
    strikes = _spread(random.Random(f"strikes {seed}"), seconds, strikes_a_second, _strike)
    chance = random.Random(f"looks {seed}")
    looks = tuple(sorted(chance.uniform(1, seconds) for _ in range(max(1, int(seconds / 5)))))
    return Plan(seed, seconds, tuple(lives), tuple(strikes), looks, lives_a_second, strikes_a_second)


def _spread(
    chance: random.Random, seconds: float, rate: float, make: Callable[[random.Random, int, float], Thing]
) -> list[Thing]:
    moments = sorted(chance.uniform(0, seconds) for _ in range(max(1, round(seconds * rate))))
    return [make(chance, number, at) for number, at in enumerate(moments, 1)]


def _weighted(chance: random.Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


def _strike(chance: random.Random, number: int, at: float) -> Strike:
    part = _weighted(chance, PARTS)
    act = _weighted(chance, ACTS[part])
    return Strike(number, at, part, act, chance.random(), chance.uniform(0.1, 2.0), chance.randrange(4))


def _life(chance: random.Random, number: int, at: float) -> Life:
    engine = _weighted(chance, ENGINES)
    terminal = engine not in SERVERS and chance.random() < 0.15
    logs = "fifo" if terminal else _weighted(chance, {"fifo": 5, "file": 2, "program": 2})
    app = _app(chance, engine, logs, terminal)
    end = _end(chance, engine, app)
    end_at = chance.uniform(0.0, 4.0) + (1.0 if engine in SERVERS else 0.0)
    over = end_at if end else app.seconds
    return Life(number, at, engine, app, terminal, logs, _steps(chance, engine, app, terminal, over), end, end_at)


def _app(chance: random.Random, engine: str, logs: str, terminal: bool) -> App:
    if engine in SERVERS:
        return App("serve", LONG)
    # Without a reader for its output an app may end: what is logged by a program, which may be killed, says nothing.
    kinds = {"run": 4, "idle": 4, "abort": 1, **({"talk": 4} if logs != "program" else {})}
    if not terminal and logs == "fifo":
        kinds["sum"] = 2
    kind = _weighted(chance, kinds)
    if kind == "idle":
        return App("run", LONG)
    seconds = chance.uniform(*SHORT)
    if kind == "talk":
        return App(kind, seconds, chance.randrange(100), chance.choice([10, 100, 3000]))
    if kind == "sum":
        return App(kind, seconds)
    return App(kind, seconds, 0 if kind == "abort" else chance.choice([0, 0, 1, 7, 9, 42, 99]))


def _end(chance: random.Random, engine: str, app: App) -> int:
    """TERM is for servers, and for guests whose handlers are the default ones; a native init is not ended by it."""
    if app.kind == "serve":
        return 15
    if app.seconds < LONG and chance.random() < 0.8:
        return 0
    return 9 if engine == "native" else chance.choice([9, 15, 2])


def _steps(chance: random.Random, engine: str, app: App, terminal: bool, over: float) -> tuple[Step, ...]:
    if app.kind == "sum":  # in two portions, and the end of the input
        first, second, last = sorted(chance.uniform(0, max(app.seconds, 0.3)) for _ in range(3))
        return (Step(first, "write"), Step(second, "write"), Step(last, "close"))
    kinds = {"state": 2, "metrics": 1, "pids": 1, "pause": 2, "update": 1}
    if engine in SERVERS:
        kinds["get"] = 8
    else:
        kinds["exec"] = 4
    if terminal:
        kinds["resize"] = 2
    if app.kind == "talk":
        kinds["stall"] = 3
    steps = [_step(chance, _weighted(chance, kinds), over) for _ in range(chance.randrange(4))]
    return tuple(sorted(steps, key=lambda step: step.at))


def _step(chance: random.Random, do: str, over: float) -> Step:
    at = chance.uniform(0.0, over)
    if do == "exec":
        long = chance.random() < 0.3
        app = App("run", LONG if long else chance.uniform(0, 1), chance.choice([0, 3, 21]))
        return Step(at, do, app, 0.0, chance.choice([0, 9]) if long else 0)
    return Step(at, do, None, chance.uniform(0.05, 1.0) if do in ("pause", "stall") else 0.0)


def chosen(words: str) -> set[int] | None:
    """Numbers as ``3,7-9`` names them; nothing: all of them."""
    if not words:
        return None
    spans: Sequence[tuple[str, str, str]] = [word.partition("-") for word in words.split(",") if word != "none"]
    return {number for first, _, last in spans for number in range(int(first), int(last or first) + 1)}
