"""Requests of HTTP apps, as their processes count them (:mod:`shimd.formats.tally`): nobody tells the daemon of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shimd.formats import tally
from shimd.supervisor.status import report
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.task.state import State

_LINK = f"/memfd:{tally.NAME} (deleted)"
_LABELS = ("namespace", "container", "pod_namespace", "pod", "engine")
#: Descriptors of a process that are looked at: an app's server has a few when it begins.
_DESCRIPTORS = 1024
_ALIVE = (State.RUNNING, State.PAUSED)


class App(NamedTuple):
    """One that may serve."""

    labels: tuple[str, ...]
    pid: int


def apps(supervisor: Supervisor) -> list[App]:
    """Returns all that run. Called in the event loop's thread."""
    return [
        App(report.labels_of(container), container.init.pid)
        for endpoint in supervisor.endpoints.values()
        for container in endpoint.service.containers.values()
        if container.init.state in _ALIVE and container.native is None
    ]


class Requests(Collector):
    """Those of some apps. Reads files, so not for the event loop."""

    def __init__(self, found: list[App]) -> None:
        self._apps = found

    def collect(self) -> Iterator[Metric]:
        words = "Requests that were answered, by the class of the status."
        requests = CounterMetricFamily("shimd_http_requests_total", words, labels=(*_LABELS, "status"))
        words = "Time until an answer began."
        times = HistogramMetricFamily("shimd_http_request_duration_seconds", words, labels=_LABELS)
        for app in self._apps:
            counted = counts(app.pid)
            if counted is None:
                continue
            for number, count in enumerate(counted.classes, 1):
                requests.add_metric([*app.labels, f"{number}xx"], count)
            times.add_metric(app.labels, list(_cumulative(counted.buckets)), counted.microseconds / 1e6)
        yield requests
        yield times


def counts(pid: int) -> tally.Tally | None:
    """Returns what the process has counted; ``None``: it serves no HTTP, or is gone."""
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as found:
        for entry in islice(found, _DESCRIPTORS):
            with suppress(OSError):  # closed meanwhile
                if os.readlink(entry.path) == _LINK:
                    return _read(entry.path)
    return None


def _read(path: str) -> tally.Tally | None:
    """What it leads to is the app's to change at any time: only what is known for a file in memory is opened."""
    with _opened(path, os.O_PATH) as held:
        if os.fstat(held).st_dev != _in_memory():
            return None
        with _opened(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK) as fd:
            return tally.read(os.pread(fd, tally.SLOT * tally.MOST, 0))


@contextmanager
def _opened(path: str, how: int) -> Iterator[int]:
    fd = os.open(path, how | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@cache
def _in_memory() -> int:
    """The device that all files of memfd_create(2) are on, and no others."""
    fd = os.memfd_create("shimd-device", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _cumulative(buckets: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    total = 0
    bounds = [*(str(bound / 1e6) for bound in tally.BOUNDS), "+Inf"]
    for bound, count in zip(bounds, buckets, strict=True):
        total += count
        yield bound, total
