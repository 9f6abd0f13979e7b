"""The auditor finds each fault that is planted in a record without one."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.auditor import SECOND, audit, words_of
from tests.chaos.plan import LONG, App, Life, Step
from tests.chaos.record import HUNG, Attempt, Call, Event, Look, Record, Struck

#: Microseconds since 1970, when it all begins.
T = 1_700_000_000 * SECOND
SHORT, TALK = App("run", 1.0, 7), App("talk", 1.0, 0, 3)
EXEC = Step(0.2, "exec", App("run", 0.1, 3))
LINES = b"".join(b"line %08d ...\n" % number for number in range(3))


def at(seconds: float) -> int:
    return T + round(seconds * SECOND)


def call(id: str, method: str, begin: float, end: float, exec_id: str = "", **result: int) -> Call:
    return Call(id, exec_id, method, f"life 1, {method}", at(begin), at(end), result=result)


def life(app: App = SHORT, end: int = 0, *steps: Step, engine: str = "wasmtime") -> Life:
    return Life(1, 0.0, engine, app, False, "fifo", steps, end, 0.5)


def sound(app: App = SHORT, code: int = 7) -> Record:
    """A container with an exec, both of which ended by themselves; paused once, looked at once."""
    record = Record()
    record.attempts.append(Attempt(life(app, 0, EXEC), "c1", LINES, stopped=True))
    end, exec_end = at(1.3), at(0.4)
    record.calls += [
        call("c1", "Create", 0.0, 0.1, pid=100),
        call("c1", "Start", 0.1, 0.15, pid=100),
        call("c1", "Exec", 0.2, 0.21, "e0"),
        call("c1", "Start", 0.21, 0.25, "e0", pid=101),
        call("c1", "Wait", 0.25, 0.45, "e0", code=3, at=exec_end),
        call("c1", "Delete", 0.45, 0.5, "e0", pid=101, code=3, at=exec_end),
        call("c1", "Pause", 0.5, 0.55),
        call("c1", "Resume", 0.6, 0.65),
        call("c1", "Wait", 0.1, 1.4, code=code, at=end),
        call("c1", "Delete", 1.4, 1.5, pid=100, code=code, at=end),
    ]
    record.events += [
        Event("create", "c1", ""),
        Event("start", "c1", ""),
        Event("exec-added", "c1", "e0"),
        Event("exec-started", "c1", "e0"),
        Event("exit", "c1", "e0", 101, 3, exec_end),
        Event("paused", "c1", ""),
        Event("resumed", "c1", ""),
        Event("exit", "c1", "c1", 100, code, end),
        Event("delete", "c1", ""),
    ]
    record.looks.append(Look("c1", at(0.8), "RUNNING", "RUNNING", "RUNNING", alive=True))
    return record


def place(record: Record, method: str, exec_id: str = "") -> int:
    return next(i for i, it in enumerate(record.calls) if (it.method, it.exec_id) == (method, exec_id))


def failed(record: Record, method: str, error: str, message: str = "", exec_id: str = "") -> None:
    index = place(record, method, exec_id)
    record.calls[index] = replace(record.calls[index], error=error, message=message, result={})


def changed(record: Record, method: str, exec_id: str = "", **result: int) -> None:
    index = place(record, method, exec_id)
    record.calls[index] = replace(record.calls[index], result={**record.calls[index].result, **result})


def event(record: Record, topic: str, process: str = "") -> int:
    return next(i for i, it in enumerate(record.events) if (it.topic, it.process) == (topic, process))


def other_code(record: Record, code: int) -> None:
    """Told by all, and wrong."""
    changed(record, "Wait", code=code)
    changed(record, "Delete", code=code)
    index = event(record, "exit", "c1")
    record.events[index] = replace(record.events[index], code=code)


def twice(record: Record, topic: str) -> None:
    record.events.append(record.events[event(record, topic)])


def swapped(record: Record, first: tuple[str, str], second: tuple[str, str]) -> None:
    one, two = event(record, *first), event(record, *second)
    record.events[one], record.events[two] = record.events[two], record.events[one]


def output(record: Record, data: bytes) -> None:
    record.attempts[0] = replace(record.attempts[0], output=data)


def look(record: Record, **change: str | bool) -> None:
    record.looks[0] = replace(record.looks[0], **change)  # type: ignore[arg-type]


def later_event(record: Record) -> None:
    index = event(record, "exit", "c1")
    record.events[index] = replace(record.events[index], at=record.events[index].at + 1)


def other_pid(record: Record) -> None:
    index = event(record, "exit", "c1")
    record.events[index] = replace(record.events[index], pid=200)


#: Each with words of the finding that it must be.
FAULTS: dict[str, tuple[Callable[[Record], object], str]] = {
    "a call that hangs": (lambda it: failed(it, "Pause", HUNG), "expected an answer to Pause"),
    "a call that fails": (lambda it: failed(it, "Pause", "UNKNOWN", "no"), "expected Pause to succeed; found UNKNOWN"),
    "a create that fails for no reason": (
        lambda it: failed(it, "Create", "UNAVAILABLE"),
        "expected Create to succeed; found UNAVAILABLE",
    ),
    "a start that fails": (lambda it: failed(it, "Start", "UNKNOWN"), "expected to start in the end"),
    "another code": (lambda it: other_code(it, 137), "expected exit code 7; found 137"),
    "its own code before its time": (
        lambda it: changed(it, "Wait", at=at(0.5)),
        "expected exit code of a process that goes on: none; found 7",
    ),
    "an exec's code": (lambda it: changed(it, "Wait", "e0", code=137), "c1/e0: expected exit code 3; found 137"),
    "an exit from the future": (lambda it: changed(it, "Wait", at=at(9)), "expected an exit before it was told"),
    "Delete tells another code": (lambda it: changed(it, "Delete", code=0), "expected Delete to tell what Wait told"),
    "Delete tells another time": (lambda it: changed(it, "Delete", at=at(2)), "expected Delete to tell what Wait told"),
    "no answer to Wait": (lambda it: it.calls.pop(place(it, "Wait")), "expected Wait to be answered once; found 0"),
    "no answer to Delete": (lambda it: it.calls.pop(place(it, "Delete")), "expected Delete to be answered once"),
    "another pid": (lambda it: changed(it, "Start", pid=99), "expected one pid in all answers"),
    "no exit event": (lambda it: it.events.pop(event(it, "exit", "c1")), "found create, start, delete"),
    "no delete event": (lambda it: it.events.pop(event(it, "delete")), "found create, start, exit"),
    "no start event": (lambda it: it.events.pop(event(it, "start")), "found create, exit, delete"),
    "no exec-added": (lambda it: it.events.pop(event(it, "exec-added", "e0")), "found exec-started, exit"),
    "no exit of an exec": (lambda it: it.events.pop(event(it, "exit", "e0")), "found exec-added, exec-started"),
    "an event twice": (lambda it: twice(it, "delete"), "found create, start, exit, delete, delete"),
    "paused twice": (lambda it: twice(it, "paused"), "expected 1 events paused; found 2"),
    "never resumed": (lambda it: it.events.pop(event(it, "resumed")), "expected 1 events resumed; found 0"),
    "start before create": (lambda it: swapped(it, ("create", ""), ("start", "")), "found start, create"),
    "delete before exit": (lambda it: swapped(it, ("exit", "c1"), ("delete", "")), "start, delete, exit"),
    "exec started before it was added": (
        lambda it: swapped(it, ("exec-added", "e0"), ("exec-started", "e0")),
        "found exec-started, exec-added",
    ),
    "an exec's exit after its init's": (
        lambda it: swapped(it, ("exit", "e0"), ("exit", "c1")),
        "expected its exit before its init's",
    ),
    "an event with another time": (later_event, "expected the event to tell what Wait told"),
    "an event with another pid": (other_pid, "expected the exit of process 100; found that of 200"),
    "containerd has lost it": (lambda it: look(it, containerd=""), "expected containerd to have it RUNNING"),
    "shimd has lost it": (lambda it: look(it, shimd="STOPPED"), "expected shimd to have it RUNNING; found STOPPED"),
    "its process is gone": (lambda it: look(it, alive=False), "expected its process to live"),
    "its process is still there": (
        lambda it: look(it, expected="STOPPED", containerd="STOPPED", shimd="STOPPED"),
        "expected no process of it",
    ),
    "something is left": (lambda it: it.leftovers.append("the mount /x"), "node: expected nothing to be left"),
}


def test_a_sound_record_has_nothing() -> None:
    assert audit(sound()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_it_finds(fault: str) -> None:
    plant, words = FAULTS[fault]
    record = sound()
    plant(record)
    found = [str(finding) for finding in audit(record)]
    assert any(words in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LINES[:14], "expected 3 lines of output; found 0"),
        (LINES.replace(b"00000001", b"00000002"), "expected line 1 after line 0"),
        (LINES + LINES[-15:], "expected line"),
    ],
)
def test_it_finds_lost_output(data: bytes, words: str) -> None:
    record = sound(TALK, 0)
    assert audit(record) == []
    output(record, data)
    assert any(words in str(finding) for finding in audit(record)), audit(record)


def test_an_output_cut_short_by_a_signal_is_whole_as_far_as_it_goes() -> None:
    record = sound(TALK, 137)
    record.calls.append(call("c1", "Kill", 0.7, 0.8, signal=9))
    output(record, LINES[: len(LINES) // 2])
    assert audit(record) == []


def retried(record: Record, message: str = "") -> Record:
    """A first attempt, whose Create fails."""
    record.attempts.insert(0, replace(record.attempts[0], container="c1-0", output=None))
    failure = call("c1-0", "Create", -0.5, -0.4)
    record.calls.insert(0, replace(failure, error="UNAVAILABLE", message=message))
    return record


def strike(act: str = "KILL", part: str = "fork server", begin: float = -0.45, end: float = -0.45) -> Struck:
    return Struck(1, part, act, 1, at(begin), at(end))


def test_what_was_struck_a_moment_ago_may_be_gone() -> None:
    record = sound()
    look(record, alive=False)
    killed = replace(strike(part="app", begin=0.7, end=0.7), pid=100)
    record.strikes.append(replace(killed, begin=at(0.5)))
    assert any("expected its process to live" in str(finding) for finding in audit(record))
    record.strikes.append(killed)
    assert not any("expected its process to live" in str(finding) for finding in audit(record))


def test_what_may_be_asked_again_is_no_finding_if_something_was_struck() -> None:
    record = retried(sound())
    assert len(audit(record)) == 1
    record.strikes.append(strike())
    assert audit(record) == []


def test_but_a_strike_of_long_ago_is_no_reason() -> None:
    record = retried(sound())
    record.strikes.append(strike(begin=-9, end=-9))
    assert len(audit(record)) == 1


def test_nor_is_one_for_what_is_not_being_made() -> None:
    record = sound()
    failed(record, "Pause", "UNAVAILABLE")
    record.strikes.append(strike(begin=0.5, end=0.5))
    assert any("expected Pause to succeed" in str(finding) for finding in audit(record))


def test_events_of_what_has_failed_are_none_or_all() -> None:
    record = retried(sound())
    record.strikes.append(strike())
    record.events.insert(0, Event("create", "c1-0", ""))
    assert [finding.expected for finding in audit(record)] == ["what has failed to be deleted last"]
    record.events.append(Event("delete", "c1-0", ""))
    assert audit(record) == []
    record.events.append(Event("delete", "c1-0", ""))
    assert [finding.expected for finding in audit(record)] == ["no event twice"]


def test_a_shortage_excuses_what_says_for_which_container() -> None:
    record = sound()
    failed(record, "Pause", "UNKNOWN", "container c1: too many open files")
    failed(record, "Resume", "UNKNOWN", "container c1: too many open files")
    record.strikes.append(strike("NOFILE", begin=0.4, end=0.7))
    assert audit(record) == []
    failed(record, "Pause", "UNKNOWN", "too many open files")
    assert len(audit(record)) == 1


def test_what_comes_too_late_for_a_process_that_is_over_may_fail() -> None:
    record = sound()
    record.calls.append(replace(call("c1", "Kill", 1.35, 1.37, signal=9), error="NOT_FOUND"))
    assert audit(record) == []
    record.calls.append(replace(call("c1", "Kill", 0.9, 1.0, signal=9), error="NOT_FOUND"))
    assert len(audit(record)) == 1


@pytest.mark.parametrize(("signal", "code", "findings"), [(9, 137, 0), (15, 143, 0), (15, 137, 1)])
def test_a_signal_ends_it_with_its_number(signal: int, code: int, findings: int) -> None:
    record = sound(App("run", LONG, 7), code)
    record.calls.append(call("c1", "Kill", 1.0, 1.1, signal=signal))
    assert len(audit(record)) == findings


def test_a_server_ends_itself() -> None:
    record = sound(App("serve", LONG), 0)
    record.calls.append(call("c1", "Kill", 1.0, 1.1, signal=15))
    assert audit(record) == []


def test_the_sum_of_its_input_is_its_code() -> None:
    steps = (Step(0.1, "write"), Step(0.2, "write"), Step(0.3, "close"))
    code = (sum(words_of(0)) + sum(words_of(1))) % 100
    record = sound(App("sum", 1.0), code)
    record.calls = [it for it in record.calls if not it.exec_id] + [call("c1", "CloseIO", 0.7, 0.8)]
    record.events = [it for it in record.events if it.process != "e0"]
    record.attempts[0] = replace(record.attempts[0], life=life(App("sum", 1.0), 0, *steps))
    assert audit(record) == []
    other_code(record, (code + 1) % 100)
    assert len(audit(record)) == 1


def test_an_exec_may_end_with_its_init() -> None:
    record = sound()
    record.attempts[0] = replace(record.attempts[0], life=life(SHORT, 0, replace(EXEC, app=App("run", LONG))))
    for method in ("Wait", "Delete"):
        changed(record, method, "e0", code=137, at=at(1.2))
    index = event(record, "exit", "e0")
    record.events[index] = replace(record.events[index], code=137, at=at(1.2))
    wait = place(record, "Wait", "e0")
    record.calls[wait] = replace(record.calls[wait], end=at(1.3))
    assert audit(record) == []
