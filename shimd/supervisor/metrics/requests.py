"""Requests of HTTP apps, as their processes count them (:mod:`shimd.formats.tally`): nobody tells the daemon of one."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shimd.formats import tally
from shimd.supervisor.status import report
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.task.state import State

_LINK = f"/memfd:{tally.NAME} (deleted)"
_LABELS = ("namespace", "container", "pod_namespace", "pod", "engine")
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
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            with suppress(OSError):  # closed meanwhile
                if os.readlink(path) == _LINK:
                    return _read(path)
    return None


def _read(path: str) -> tally.Tally | None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return tally.read(os.pread(fd, tally.SLOT * tally.MOST, 0))
    finally:
        os.close(fd)


def _cumulative(buckets: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    total = 0
    bounds = [*(str(bound / 1e6) for bound in tally.BOUNDS), "+Inf"]
    for bound, count in zip(bounds, buckets, strict=True):
        total += count
        yield bound, total
