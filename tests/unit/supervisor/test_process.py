"""Exit codes and the emulation of default actions."""

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from shimd.errors import FailedPrecondition, NotFound, ResourceExhausted
from shimd.linux.pidfd import start_time
from shimd.supervisor.task.process import Exit, Process, exit_code
from shimd.supervisor.task.state import State, Step
from shimd.supervisor.task.stdio import Streams
from shimd.supervisor.workers.fork_client import ForkClient, Worker
from tests.unit.short import no_descriptors


def wait_status(code: int = 0, killed_by: int = 0) -> int:
    return code << 8 | killed_by


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 128, 134, 255])
def test_exit_codes_pass_through(code: int) -> None:
    assert exit_code(wait_status(code)) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_signals_are_128_plus_n(number: int) -> None:
    assert exit_code(wait_status(killed_by=number)) == 128 + number


def test_an_emulated_signal_stands_for_the_kill() -> None:
    assert exit_code(wait_status(killed_by=signal.SIGKILL), signal.SIGTERM) == 128 + signal.SIGTERM


def test_an_exit_before_the_emulated_signal_arrived_wins() -> None:
    assert exit_code(wait_status(3), signal.SIGTERM) == 3


def test_another_death_is_not_taken_for_the_emulated_signal() -> None:
    assert exit_code(wait_status(killed_by=signal.SIGSEGV), signal.SIGTERM) == 128 + signal.SIGSEGV


@pytest.fixture
def process() -> Iterator[Process]:
    """A process with a real, sleeping child for a worker."""
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(10)
    ours, theirs = socket.socketpair()
    process = Process("", {"args": ["x"], "cwd": "/"}, Streams())
    process.advance(Step.CREATE)
    process.worker = Worker("key", pid, start_time(pid), ours, ForkClient(theirs))
    yield process
    if process.worker.status is None:
        os.kill(pid, signal.SIGKILL)
        reap(process)
    ours.close()
    theirs.close()


def reap(process: Process) -> None:
    assert process.worker is not None
    _pid, status = os.waitpid(process.worker.pid, 0)
    process.worker.gone(status, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1])
def test_process_one_dies_of_what_would_kill_it_elsewhere(process: Process, number: int) -> None:
    process.emulate_signals = True
    process.kill(number)
    reap(process)
    assert process.has_exited().code == 128 + number
    assert process.state is State.STOPPED


def test_the_first_of_several_signals_counts(process: Process) -> None:
    process.emulate_signals = True
    process.kill(signal.SIGTERM)
    with suppress(NotFound):  # it may have ended by now
        process.kill(signal.SIGKILL)
    reap(process)
    assert process.has_exited().code == 128 + signal.SIGTERM


def test_ignored_by_default_is_not_delivered(process: Process) -> None:
    process.emulate_signals = True
    process.kill(signal.SIGCHLD)
    process.kill(signal.SIGWINCH)
    assert os.waitpid(process.pid, os.WNOHANG) == (0, 0)


def test_kill_of_the_dead_is_not_found(process: Process) -> None:
    process.kill(signal.SIGKILL)
    reap(process)
    with pytest.raises(NotFound, match="already finished"):
        process.kill(signal.SIGTERM)


def test_one_whose_exit_is_on_record_is_signalled_no_more(process: Process) -> None:
    """Its fork server has forgotten it, perhaps: another process may have its number."""
    process.exit = Exit(0, 1)
    with pytest.raises(NotFound, match="already finished"):
        process.kill(signal.SIGKILL)
    assert os.waitpid(process.pid, os.WNOHANG) == (0, 0)


def test_what_has_ended_dies_of_no_further_signal(process: Process) -> None:
    """Though nobody has waited for it yet: its fork server may be stopped."""
    assert process.worker is not None
    process.emulate_signals = True
    process.worker.pidfd = os.pidfd_open(process.worker.pid)
    os.kill(process.worker.pid, signal.SIGKILL)
    select.select([process.worker.pidfd], [], [])
    assert not process.notes_signal(signal.SIGINT)
    with pytest.raises(NotFound):
        process.kill(signal.SIGINT)
    reap(process)
    assert process.has_exited().code == 137


def test_whoever_has_its_number_now_is_not_signalled(process: Process) -> None:
    assert process.worker is not None
    process.worker.start += 1
    with pytest.raises(NotFound, match="already finished"):
        process.kill(signal.SIGKILL)
    assert os.waitpid(process.pid, os.WNOHANG) == (0, 0)


def test_without_a_descriptor_nothing_is_signalled_for_now(process: Process) -> None:
    with no_descriptors(), pytest.raises(ResourceExhausted):
        process.kill(signal.SIGKILL)
    assert os.waitpid(process.pid, os.WNOHANG) == (0, 0)
    process.kill(signal.SIGKILL)
    reap(process)


def test_an_illegal_step_is_a_failed_precondition(process: Process) -> None:
    with pytest.raises(FailedPrecondition, match="cannot delete a created process"):
        process.advance(Step.DELETE)
