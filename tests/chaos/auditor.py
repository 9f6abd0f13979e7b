"""Compares what was asked for with what containerd, shimd and the kernel say became of it.

Pure functions of a record: each finding is a sentence. ``test_auditor.py`` plants every fault and has it found.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.plan import LONG, App, Step
from tests.chaos.record import HUNG, Attempt, Call, Event, Record, Struck

SECOND = 1_000_000
#: A strike is still in the way of what is asked so long after it.
_AFTERMATH = 2 * SECOND
#: An end is told by who saw it, so much later at the most.
_SEEN_LATER = SECOND // 4
_DEADLY = frozenset({"KILL", "TERM", "ABRT", "UPGRADE", "MEMORY"})
#: Those that make something, which may be asked for again by who got an error.
_MAKES = frozenset({"Create", "Exec", "Start"})
#: What says so, of gRPC's codes; and what a connection's end is called by containerd, which has no code for it.
_RETRYABLE = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
_HUNG_UP = ("ttrpc: closed", "connection reset by peer", "broken pipe")
#: Of a process that is over.
_TOO_LATE = frozenset({"NOT_FOUND", "FAILED_PRECONDITION"})


@dataclass(frozen=True)
class Finding:
    container: str
    expected: str
    found: str
    step: str

    def __str__(self) -> str:
        return f"{self.container}: expected {self.expected}; found {self.found} ({self.step})"


@dataclass(frozen=True)
class Process:
    """An init or an exec, and all that is known of it."""

    attempt: Attempt
    exec_id: str
    app: App
    end: int
    calls: list[Call]

    @property
    def name(self) -> str:
        return f"{self.attempt.container}/{self.exec_id}" if self.exec_id else self.attempt.container

    def answered(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method and not call.error]

    @property
    def started(self) -> Call | None:
        return next(iter(self.answered("Start")), None)

    @property
    def exit(self) -> Call | None:
        return next(iter(self.answered("Wait")), None)


Check = Callable[[Record], Iterator[Finding]]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def audit(record: Record) -> list[Finding]:
    """All that is wrong, without repetition."""
    return list(dict.fromkeys(finding for one in CHECKS for finding in one(record)))


def processes(record: Record) -> Iterator[Process]:
    for attempt in record.attempts:
        calls = record.calls_of(attempt.container)
        of = [call for call in calls if not call.exec_id]
        yield Process(attempt, "", attempt.life.app, attempt.life.end, of)
        for exec_id in dict.fromkeys(call.exec_id for call in calls if call.exec_id):
            step = step_of(attempt, exec_id)
            assert step.app is not None
            yield Process(attempt, exec_id, step.app, step.end, [it for it in calls if it.exec_id == exec_id])


def step_of(attempt: Attempt, exec_id: str) -> Step:
    """An exec's id is ``e`` and its step's place in the plan, and what attempt it is."""
    return attempt.life.steps[int(exec_id.removeprefix("e").partition("-")[0])]


@check
def every_call_is_answered(record: Record) -> Iterator[Finding]:
    for call in record.calls:
        if call.error == HUNG:
            waited = (call.end - call.begin) / SECOND
            yield Finding(call.container, f"an answer to {call.method}", f"none in {waited:.0f} s", call.step)


@check
def errors_have_a_reason(record: Record) -> Iterator[Finding]:
    ends = {(it.attempt.container, it.exec_id): _earliest_exit(it, record) for it in processes(record) if it.exit}
    for call in record.calls:
        if not call.error or call.error == HUNG:
            continue
        over = min(ends.get((call.container, id), call.end + SECOND) for id in {"", call.exec_id})
        if over <= call.end + _SEEN_LATER and (call.error in _TOO_LATE or call.method in _MAKES):
            continue
        if not excused(call, record.strikes):
            said = f"{call.error}: {call.message}"
            yield Finding(call.container, f"{call.method} to succeed", said, call.step)


def _earliest_exit(process: Process, record: Record) -> int:
    assert process.exit is not None
    if process.started is not None and _is_unknown(process, record):
        return process.started.begin
    return process.exit.result["at"]


def excused(call: Call, strikes: Iterable[Struck]) -> bool:
    """It may be asked again, and something was in its way: it was being made, or there was a shortage."""
    around = [strike for strike in strikes if strike.begin <= call.end and strike.end + _AFTERMATH >= call.begin]
    parts = {strike.part for strike in around}
    if call.method == "Get" and call.error == "DEADLINE_EXCEEDED":  # containerd 2.x waits for two seconds
        return "daemon" in parts
    if "cannot start a stopped process" in call.message:  # who had its socket are both gone before it was started
        return "app" in parts or parts >= {"daemon", "fork server"}
    if around and call.method == "Create" and "failed to start shim" in call.message:  # the launcher has only words
        return True
    if any(strike.starves for strike in around) and (call.container in call.message or call.error in _RETRYABLE):
        return True
    if call.method in _MAKES and "log program" in call.message:
        return any(strike.part == "log program" for strike in around)
    retryable = call.error in _RETRYABLE or any(words in call.message for words in _HUNG_UP)
    return bool(around) and call.method in _MAKES and retryable


@check
def nothing_is_given_up(record: Record) -> Iterator[Finding]:
    """A life whose Create, or whose exec, failed in a way that may be repeated, succeeds in the end."""
    for life in {attempt.life.number: attempt.life for attempt in record.attempts}.values():
        mine = [attempt for attempt in record.attempts if attempt.life.number == life.number]
        calls = record.calls_of(mine[-1].container, "")
        if not any(call.method == "Start" and not call.error for call in calls):
            words = f"none of {len(mine)} attempts started"
            yield Finding(mine[-1].container, "to start in the end", words, f"life {life.number}")


@check
def exits_are_true(record: Record) -> Iterator[Finding]:
    for process in processes(record):
        if process.started is None or (exit := process.exit) is None:
            continue
        step, code, at = exit.step, exit.result["code"], exit.result["at"]
        if code not in (expected := codes(process, record)):
            found = f"{code}, {(at - process.started.begin) / SECOND:.2f} s after its start"
            yield Finding(process.name, f"exit code {_either(expected)}", found, step)
        if at > exit.end:
            yield Finding(process.name, "an exit before it was told", f"one {at - exit.end} µs later", step)
        for deleted in process.answered("Delete"):
            if (told := (deleted.result["code"], deleted.result["at"])) != (code, at):
                yield Finding(process.name, f"Delete to tell what Wait told, {code} at {at}", f"{told}", deleted.step)


def codes(process: Process, record: Record) -> set[int]:
    """What it may have ended with: its own code if its time had come, and that of each signal sent before its end."""
    assert process.exit is not None
    at = process.exit.result["at"]
    found = {137} if any(begin <= at for begin in _struck(process, record)) or _is_unknown(process, record) else set()
    sent = {it.result["signal"] for it in process.calls if it.method == "Kill" and it.begin <= at}
    found |= {_code(number, process) for number in sent}
    if process.app.kind == "serve" and 15 in sent:
        found.add(143)  # Slight's listens before it handles signals
    if at >= own_end(process):
        found |= _own_codes(process)
    if process.exec_id and at >= earliest_end(_init_of(process, record), record):
        found.add(137)  # the container's processes end with its first
    return found


def own_end(process: Process) -> float:
    """Before this it does not end by itself."""
    if process.started is None or process.app.seconds >= LONG:
        return math.inf
    if process.app.kind == "sum":
        return min((it.begin for it in process.calls if it.method == "CloseIO"), default=math.inf)
    return process.started.begin + round(process.app.seconds * SECOND)


def earliest_end(process: Process, record: Record) -> float:
    kills = [it.begin for it in process.calls if it.method == "Kill"]
    return min([own_end(process), *kills, *_struck(process, record)])


def _is_unknown(process: Process, record: Record) -> bool:
    """Whether nobody could know its end: fork server and daemon were killed while it ran, the keeper before."""
    assert process.exit is not None and process.started is not None
    begin, end = process.started.begin, process.exit.end
    deadly = [it for it in record.strikes if it.act in _DEADLY and it.begin <= end]
    killed = {it.part for it in deadly if begin <= it.begin}
    orphaned = any((it.part, it.act) == ("keeper", "KILL") for it in deadly)  # whose child the fork server was
    return orphaned and killed >= {"fork server", "daemon"}


def _struck(process: Process, record: Record) -> list[int]:
    """When it was killed by a strike."""
    return _killed({call.result["pid"] for call in process.answered("Start")}, record)


def _killed(pids: set[int], record: Record) -> list[int]:
    return [it.begin for it in record.strikes if it.part == "app" and it.act == "KILL" and it.pid in pids]


def _init_of(process: Process, record: Record) -> Process:
    calls = record.calls_of(process.attempt.container, "")
    return Process(process.attempt, "", process.attempt.life.app, process.attempt.life.end, calls)


def _own_codes(process: Process) -> set[int]:
    """Process 1 of a pid namespace is not ended by its own SIGABRT: abort(3) then has it run into a fault."""
    if process.app.kind == "abort":
        return {134, 139} if process.attempt.life.engine == "native" else {134}
    if process.app.kind == "sum":
        written = [index for index, step in enumerate(process.attempt.life.steps) if step.do == "write"]
        return {sum(map(portion, written)) % 100}
    return {process.app.code}


def portion(index: int) -> int:
    """The sum of the bytes that a step writes."""
    return sum(words_of(index))


def words_of(index: int) -> bytes:
    return b"portion %d of what is to be summed\n" % index


def _code(signal: int, process: Process) -> int:
    return 0 if process.app.kind == "serve" and signal == 15 else 128 + signal


def _either(expected: set[int]) -> str:
    return " or ".join(map(str, sorted(expected))) or "of a process that goes on: none"


@check
def every_exit_is_told(record: Record) -> Iterator[Finding]:
    """By Wait and by Delete; what is over at the run's end only."""
    for process in processes(record):
        if process.started is None or not process.attempt.stopped:
            continue
        for method in ("Wait", "Delete"):
            if len(process.answered(method)) != 1 and not any(it.error == HUNG for it in process.calls):
                found = f"{len(process.answered(method))}"
                yield Finding(process.name, f"{method} to be answered once", found, process.started.step)


def _of(record: Record, container: str) -> list[Event]:
    return [event for event in record.events if event.container == container]


@check
def every_event_comes_once_and_in_order(record: Record) -> Iterator[Finding]:
    for attempt in record.attempts:
        if not attempt.stopped:
            continue
        events = _of(record, attempt.container)
        life = [process for process in processes(record) if process.attempt is attempt]
        yield from _init_events(attempt, life[0], events)
        for process in life[1:]:
            yield from _exec_events(process, events)
        yield from _pauses(attempt, record, events)


def _init_events(attempt: Attempt, init: Process, events: list[Event]) -> Iterator[Finding]:
    made = bool(init.answered("Create"))
    found = [event.topic for event in events if event.process in ("", attempt.container)]
    line = [topic for topic in found if topic in ("create", "start", "exit", "delete")]
    step = f"life {attempt.life.number}"
    if init.started:
        if line != (expected := ["create", "start", "exit", "delete"]):
            yield Finding(attempt.container, f"the events {', '.join(expected)}", ", ".join(line) or "none", step)
    elif twice := [topic for topic, count in Counter(line).items() if count > 1]:
        yield Finding(attempt.container, "no event twice", ", ".join(line) + f": {', '.join(twice)}", step)
    elif line and line[-1] != "delete":
        yield Finding(attempt.container, "what has failed to be deleted last", ", ".join(line), step)
    elif made and not line:
        yield Finding(attempt.container, "events of what was created", "none", step)
    yield from _same_exit(init, [it for it in events if it.topic == "exit" and it.process == attempt.container])


def _exec_events(process: Process, events: list[Event]) -> Iterator[Finding]:
    mine = [event for event in events if event.process == process.exec_id]
    line = [event.topic for event in mine]
    if process.started:
        expected = ["exec-added", "exec-started", "exit"]
        if line != expected:
            yield Finding(process.name, f"the events {', '.join(expected)}", ", ".join(line), process.started.step)
    elif len(set(line)) != len(line):
        yield Finding(process.name, "no event twice", ", ".join(line), process.calls[0].step)
    topics = [(event.topic, event.process) for event in events]
    exit, init = ("exit", process.exec_id), ("exit", process.attempt.container)
    if exit in topics and init in topics and topics.index(exit) > topics.index(init):
        yield Finding(process.name, "its exit before its init's", "it after that", process.calls[0].step)
    yield from _same_exit(process, [event for event in mine if event.topic == "exit"])


def _same_exit(process: Process, exits: list[Event]) -> Iterator[Finding]:
    if process.exit is None or process.started is None:
        return
    told = process.exit.result
    for event in exits:
        if (event.code, event.at) != (told["code"], told["at"]):
            words = f"the event to tell what Wait told, {told['code']} at {told['at']}"
            yield Finding(process.name, words, f"{event.code} at {event.at}", process.exit.step)
        if event.pid != process.started.result["pid"]:
            words = f"the exit of process {process.started.result['pid']}"
            yield Finding(process.name, words, f"that of {event.pid}", process.exit.step)


def _pauses(attempt: Attempt, record: Record, events: list[Event]) -> Iterator[Finding]:
    for method, topic in (("Pause", "paused"), ("Resume", "resumed")):
        calls = [it for it in record.calls_of(attempt.container) if it.method == method]
        done = sum(not call.error for call in calls)
        told = sum(event.topic == topic for event in events)
        if told != done and not any(call.error for call in calls):
            yield Finding(attempt.container, f"{done} events {topic}", f"{told}", f"life {attempt.life.number}")


@check
def a_process_has_one_pid(record: Record) -> Iterator[Finding]:
    for process in processes(record):
        pids = {call.result["pid"] for method in ("Create", "Start", "Delete") for call in process.answered(method)}
        if len(pids) > 1:
            yield Finding(process.name, "one pid in all answers", ", ".join(map(str, pids)), process.calls[0].step)


@check
def nothing_written_is_lost(record: Record) -> Iterator[Finding]:
    for attempt in record.attempts:
        if attempt.output is None or attempt.life.app.kind != "talk":
            continue
        ended = record.calls_of(attempt.container, "")
        whole = any(it.method == "Wait" and it.result.get("code") == attempt.life.app.code for it in ended)
        whole = whole and not any(it.method == "Kill" for it in ended)
        lines = attempt.output.replace(b"\r", b"").split(b"\n")
        numbers = [line.split()[1:2] for line in lines[:-1]]
        if numbers != [[b"%08d" % number] for number in range(len(numbers))]:
            at = next(place for place, number in enumerate(numbers) if number != [b"%08d" % place])
            yield Finding(attempt.container, f"line {at} after line {at - 1}", f"{lines[at]!r}", _life(attempt))
        elif whole and len(numbers) != attempt.life.app.lines:
            expected = f"{attempt.life.app.lines} lines of output"
            yield Finding(attempt.container, expected, f"{len(numbers)}", _life(attempt))


def _life(attempt: Attempt) -> str:
    return f"life {attempt.life.number}"


@check
def all_see_the_same(record: Record) -> Iterator[Finding]:
    for look in record.looks:
        pids = {call.result["pid"] for call in record.calls_of(look.container, "") if "pid" in call.result}
        if any(at <= look.at <= at + _SEEN_LATER for at in _killed(pids, record)):
            continue  # it is about to be seen
        step = f"look at {look.at}"
        for who, found in (("containerd", look.containerd), ("shimd", look.shimd)):
            if found != look.expected:
                yield Finding(look.container, f"{who} to have it {look.expected}", found or "nothing", step)
        if look.alive != (look.expected in ("RUNNING", "PAUSED")):
            expected = "its process to live" if not look.alive else "no process of it"
            yield Finding(look.container, expected, "a process" if look.alive else "none", step)


@check
def nothing_is_left(record: Record) -> Iterator[Finding]:
    for sentence in record.leftovers:
        yield Finding("node", "nothing to be left", sentence, "the end")
