"""Measures and states of the daemon, in the types of Prometheus' client library."""

import platform
import time
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import shimd
from shimd import release
from shimd.api.containerd import events as api
from shimd.errors import Code
from shimd.rpc import Func, Implementation, Wrapped, status_of
from shimd.supervisor.events import Event
from shimd.supervisor.metrics.measures import Measures
from shimd.supervisor.status import report
from shimd.supervisor.supervisor import Supervisor

#: Seconds: what is fast takes some milliseconds, what compiles takes minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: They wait for what apps do.
_UNTIMED = frozenset({"Wait"})


class PrometheusMeasures(Measures):
    """To be subscribed to the event bus, too (:meth:`happened`)."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each, of no use
        self.registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        self._calls = Histogram(
            "shimd_task_call_duration_seconds",
            "Time of a call of containerd's Task service, but for Wait.",
            ["engine", "method"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "shimd_task_call_errors_total", "Calls that failed.", ["engine", "method", "code"], registry=registry
        )
        self._compilations = Histogram(
            "shimd_compile_duration_seconds",
            "Time of a compilation, from its turn to its end.",
            ["engine"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._forks = Histogram(
            "shimd_fork_duration_seconds",
            "Time from the request for a worker until it is there.",
            ["engine"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._starts = Counter("shimd_task_starts_total", "Tasks that were started.", ["engine"], registry=registry)
        self._exits = Counter(
            "shimd_task_exits_total", "Tasks that ended, by exit code.", ["engine", "code"], registry=registry
        )
        self._kills = Counter(
            "shimd_task_oom_kills_total", "Tasks that had too little memory.", ["engine"], registry=registry
        )
        self.lag = Histogram(
            "shimd_event_loop_lag_seconds",
            "How late the daemon's event loop is, looked at each second.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._supervisor: Supervisor | None = None

    def watch(self, supervisor: Supervisor) -> None:
        """Measure a daemon, and what is there of it."""
        self._supervisor = supervisor
        supervisor.bus.subscribers.add(self.happened)

    def calls(self, engine: str, service: Implementation) -> Implementation:
        return Wrapped(service, partial(self._measured, engine))

    def _measured(self, engine: str, route: str, func: Func) -> Func:
        method = route.rpartition("/")[2]

        async def measured(stream: Any) -> None:
            begun = time.perf_counter()
            try:
                await func(stream)
            except Exception as error:
                self._errors.labels(engine, method, Code(status_of(error, route)[0]).name).inc()
                raise
            finally:
                if method not in _UNTIMED:
                    self._calls.labels(engine, method).observe(time.perf_counter() - begun)

        return measured

    @contextmanager
    def compiling(self, engine: str) -> Iterator[None]:
        with self._compilations.labels(engine).time():
            yield

    def forked(self, engine: str, seconds: float) -> None:
        self._forks.labels(engine).observe(seconds)

    def happened(self, event: Event) -> None:
        """Count what becomes of tasks; execs are none."""
        message = event.message
        match message:
            case api.TaskStart():
                self._starts.labels(self._engine(event.namespace, message.container_id)).inc()
            case api.TaskOom():
                self._kills.labels(self._engine(event.namespace, message.container_id)).inc()
            case api.TaskExit() if message.id in ("", message.container_id):
                engine = self._engine(event.namespace, message.container_id)
                self._exits.labels(engine, str(message.exit_status)).inc()

    def _engine(self, namespace: str, container: str) -> str:
        endpoints = self._supervisor.endpoints.values() if self._supervisor is not None else ()
        for endpoint in endpoints:
            if endpoint.namespace == namespace and (found := endpoint.service.containers.get(container)) is not None:
                return report.engine_of(found)
        return "unknown"  # it is not taken over yet


class State(Collector):
    """What is there of a daemon at a moment. To be made in the event loop's thread, and asked for in any."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._found = list(_state(supervisor))

    def collect(self) -> Iterator[Metric]:
        return iter(self._found)


def _state(supervisor: Supervisor) -> Iterator[Metric]:
    about = {"version": shimd.__version__, "release": release.own(), "python": platform.python_version()}
    yield _gauge("shimd_build_info", "What runs.", {tuple(about.values()): 1}, *about)
    tasks: Counts[tuple[str, ...]] = Counts()
    for endpoint in supervisor.endpoints.values():
        for container in endpoint.service.containers.values():
            tasks[report.engine_of(container), endpoint.namespace, container.init.state.name.lower()] += 1
    yield _gauge("shimd_tasks", "Tasks that are there.", tasks, "engine", "namespace", "state")
    compilations: Counts[tuple[str, ...]] = Counts({("queued",): 0, ("running",): 0})
    for one in supervisor.modules.compilations.all:
        compilations["queued" if one.queued else "running",] += 1
    yield _gauge("shimd_compilations", "Compilations that wait for a processor, or go on.", compilations, "state")
    cache = supervisor.modules.cache
    yield _counter("shimd_module_cache_hits_total", "Programs whose compiled form was there.", {(): cache.hits})
    yield _counter("shimd_module_cache_misses_total", "Those that had to be compiled.", {(): cache.misses})
    yield _counter("shimd_module_cache_evictions_total", "Those that made room for others.", {(): cache.evictions})
    waiting, dropped = supervisor.bus.queued(), supervisor.bus.dropped()
    about_containerd = {(address,): number for address, number in waiting.items()}
    yield _gauge("shimd_events_waiting", "Events that a containerd has not taken.", about_containerd, "containerd")
    lost = {(address,): number for address, number in dropped.items()}
    yield _counter("shimd_events_dropped_total", "Events that no containerd will have.", lost, "containerd")
    yield from _processes(supervisor)


def _processes(supervisor: Supervisor) -> Iterator[Metric]:
    workers: Counts[tuple[str, ...]] = Counts()
    servers: Counts[tuple[str, ...]] = Counts()
    started: dict[tuple[str, ...], float] = {}
    for one in supervisor.fork_servers:
        workers[one.engine,] += one.workers
        servers[one.engine, one.version, one.release, "retiring" if one.retiring else "current"] += 1
        if not one.retiring and one.started_at:
            started[one.engine,] = one.started_at
    yield _gauge("shimd_workers", "Processes of apps.", workers, "engine")
    labels = ("engine", "version", "release", "state")
    yield _gauge("shimd_fork_servers", "Those that make workers, and those that only have some.", servers, *labels)
    words = "When the one that makes workers was started, seconds since the epoch."
    yield _gauge("shimd_fork_server_start_time_seconds", words, started, "engine")


Values = Mapping[Any, float]
"""By the values of labels, a tuple."""


def _gauge(name: str, words: str, values: Values, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(name, words, labels=labels), values)


def _counter(name: str, words: str, values: Values, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(name, words, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for key, value in values.items():
        family.add_metric(key, value)
    return family


class Cache(Collector):
    """The module cache on disk, which takes a walk through a directory: not for the event loop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._directory = supervisor.modules.cache.directory

    def collect(self) -> Iterator[Metric]:
        found = report.cache(self._directory)
        yield _gauge("shimd_module_cache_modules", "Compiled programs on disk.", {(): found.modules})
        yield _gauge("shimd_module_cache_size_bytes", "What they take.", {(): found.size})
