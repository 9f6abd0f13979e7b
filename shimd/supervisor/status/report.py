"""The supervisor as an operator sees it: its state as the messages of ``shimd.status.v1``."""

import itertools
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import shimd
from shimd import paths, release
from shimd.api.io.containerd.cgroups import v1, v2
from shimd.api.shimd.status import v1 as api
from shimd.engines.registry import engine_names, engine_version
from shimd.errors import ShimdError
from shimd.supervisor.endpoint import Endpoint
from shimd.supervisor.modules.compilations import Compilation, Wait
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.task.container import Container
from shimd.supervisor.task.metrics import metrics
from shimd.supervisor.task.plans import is_sandbox
from shimd.supervisor.task.process import Process
from shimd.supervisor.task.state import State
from shimd.supervisor.workers.fork_servers import ForkServer
from shimd.timestamp import timestamp

_STATES = {
    State.CREATING: api.State.CREATING,
    State.ADDED: api.State.ADDED,
    State.CREATED: api.State.CREATED,
    State.RUNNING: api.State.RUNNING,
    State.PAUSED: api.State.PAUSED,
    State.STOPPED: api.State.STOPPED,
    State.DELETED: api.State.STOPPED,
}
#: v1's page counter at its maximum, and v2's "max", are no limits.
_NO_LIMIT = 1 << 62
_CRI = "io.kubernetes.cri."


def daemon(supervisor: Supervisor, started_at: datetime) -> api.DaemonResponse:
    """Returns all of the daemon's status but the module cache, which takes a walk through a directory."""
    endpoints = list(supervisor.endpoints.values())
    return api.DaemonResponse(
        version=shimd.__version__,
        pid=os.getpid(),
        started_at=started_at,
        memory=_resident(),
        runtime_dir=str(paths.runtime_dir()),
        state_dir=str(paths.state_dir()),
        cache_dir=str(paths.cache_dir()),
        engines=[_engine(name, supervisor.fork_servers.pid(name)) for name in engine_names()],
        endpoints=[_endpoint(endpoint) for endpoint in endpoints],
        tasks=_counts(container for endpoint in endpoints for container in endpoint.service.containers.values()),
        containerds=[
            api.Containerd(events_address=address, events_queued=queued)
            for address, queued in supervisor.bus.queued().items()
        ],
        compiling=[_compilation(supervisor, one) for one in supervisor.modules.compilations.all],
        fork_servers=[_fork_server(one) for one in supervisor.fork_servers],
        release=release.own(),
    )


def _engine(name: str, pid: int) -> api.Engine:
    try:
        return api.Engine(name=name, version=engine_version(name), fork_server_pid=pid)
    except ShimdError as error:
        return api.Engine(name=name, error=str(error), fork_server_pid=pid)
    except Exception as error:  # whatever a package that is broken on this node raises
        return api.Engine(name=name, error=f"{type(error).__name__}: {error}", fork_server_pid=pid)


def _fork_server(one: ForkServer) -> api.ForkServer:
    return api.ForkServer(
        engine=one.engine,
        pid=one.pid,
        version=one.version,
        workers=one.workers,
        retiring=one.retiring,
        release=one.release,
    )


def _endpoint(endpoint: Endpoint) -> api.Endpoint:
    return api.Endpoint(
        engine=endpoint.engine,
        namespace=endpoint.namespace,
        events_address=endpoint.events_address,
        grpc_address=endpoint.grpc_address,
        path=str(endpoint.path),
        tasks=len(endpoint.service.containers),
    )


def _counts(containers: Iterator[Container]) -> api.TaskCounts:
    counted = Counter(_STATES[container.init.state] for container in containers)
    return api.TaskCounts(
        created=counted[api.State.CREATED],
        running=counted[api.State.RUNNING],
        paused=counted[api.State.PAUSED],
        stopped=counted[api.State.STOPPED],
    )


def tasks(supervisor: Supervisor, namespace: str, id: str) -> list[tuple[Container, api.Task]]:
    """The tasks of a namespace (empty: all) whose id begins with ``id``, oldest first."""
    endpoints = [e for e in supervisor.endpoints.values() if namespace in ("", e.namespace)]
    containers = itertools.chain.from_iterable(endpoint.service.containers.values() for endpoint in endpoints)
    found = [container for container in containers if container.id.startswith(id)]
    return [(container, _task(container)) for container in sorted(found, key=lambda c: c.init.created_at)]


def creating(supervisor: Supervisor, namespace: str, id: str) -> list[api.Task]:
    """Containers, chosen likewise, that are no tasks yet, since they wait for their programs to be compiled."""
    waits = [wait for wait in supervisor.modules.compilations.waits if namespace in ("", wait.waiter.namespace)]
    return [_creating(wait) for wait in waits if wait.waiter.container.startswith(id)]


def _creating(wait: Wait) -> api.Task:
    init = api.Process(state=api.State.CREATING, args=[wait.program], created_at=_from_monotonic(wait.since))
    return api.Task(namespace=wait.waiter.namespace, id=wait.waiter.container, engine=wait.waiter.engine, init=init)


def _compilation(supervisor: Supervisor, one: Compilation) -> api.Compilation:
    compilations = supervisor.modules.compilations
    return api.Compilation(
        program=one.program,
        started_at=_from_monotonic(one.since),
        engine=one.engine,
        size=one.size,
        digest=one.digest,
        queued=one.queued,
        containers=[wait.waiter.container for wait in compilations.waits if compilations.of(wait) is one],
    )


def _task(container: Container) -> api.Task:
    annotations = container.spec.get("annotations") or {}
    return api.Task(
        namespace=container.context.namespace,
        id=container.id,
        engine=engine_of(container),
        pod=_pod(annotations),
        image=annotations.get(f"{_CRI}image-name", ""),
        bundle=str(container.bundle),
        init=_process(container.init),
        execs=[_process(process) for process in container.execs.values()],
    )


def engine_of(container: Container) -> str:
    """Returns the engine that runs it; ``sandbox`` and ``native`` are none."""
    if is_sandbox(container.spec):
        return "sandbox"
    return "native" if container.native is not None else container.context.engine


def labels_of(container: Container) -> tuple[str, str, str, str, str]:
    """Returns what tells it from others: containerd's namespace, its id, its pod's namespace and name, its engine."""
    pod = _pod(container.spec.get("annotations") or {}) or api.Pod()
    return container.context.namespace, container.id, pod.namespace, pod.name, engine_of(container)


def _pod(annotations: dict[str, str]) -> api.Pod | None:
    """Returns the pod as containerd's CRI plugin writes it into the spec (its ``internal/cri/annotations``)."""
    if f"{_CRI}sandbox-id" not in annotations:
        return None
    return api.Pod(
        namespace=annotations.get(f"{_CRI}sandbox-namespace", ""),
        name=annotations.get(f"{_CRI}sandbox-name", ""),
        container=annotations.get(f"{_CRI}container-name", ""),
    )


def _process(process: Process) -> api.Process:
    exit, streams = process.exit, process.streams
    return api.Process(
        id=process.name,
        state=_STATES[process.state],
        pid=process.pid,
        args=list(process.spec["args"]),
        created_at=timestamp(process.created_at),
        started_at=timestamp(process.started_at) if process.started_at else None,
        exited_at=timestamp(exit.at) if exit else None,
        exit_status=exit.code if exit else None,
        terminal=streams.terminal,
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
    )


def measure(found: list[tuple[Container, api.Task]]) -> None:
    """Add what each task uses, as far as its cgroup still tells; reads files, so not for the event loop."""
    for container, task in found:
        if container.cgroup is not None:
            with suppress(OSError):
                task.usage = usage(metrics(container.cgroup.stats()), len(container.cgroup.pids()))


def usage(counted: v1.Metrics | v2.Metrics, processes: int) -> api.Usage:
    """The few numbers that people ask for first; the working set is what cAdvisor calls so."""
    used, limit, inactive, time = _v2_usage(counted) if isinstance(counted, v2.Metrics) else _v1_usage(counted)
    return api.Usage(
        memory=used,
        working_set=max(used - inactive, 0),
        memory_limit=limit if limit < _NO_LIMIT else 0,
        cpu_time=time,
        processes=processes,
    )


def _v1_usage(counted: v1.Metrics) -> tuple[int, int, int, int]:
    memory = counted.memory or v1.MemoryStat()
    entry = memory.usage or v1.MemoryEntry()
    cpu = counted.cpu or v1.CpuStat()
    return entry.usage, entry.limit, memory.total_inactive_file, (cpu.usage or v1.CpuUsage()).total


def _v2_usage(counted: v2.Metrics) -> tuple[int, int, int, int]:
    memory, cpu = counted.memory or v2.MemoryStat(), counted.cpu or v2.CpuStat()
    return memory.usage, memory.usage_limit, memory.inactive_file, cpu.usage_usec * 1000


def cache(directory: Path) -> api.Cache:
    """Modules in the cache (``supervisor/modules/cache.py`` has its layout) and their size."""
    sizes = [_size(path) for path in directory.glob("*/*/*") if not path.name.startswith("tmp.")]
    return api.Cache(modules=len(sizes), size=sum(sizes))


def _size(entry: Path) -> int:
    total = 0
    for path in entry.rglob("*"):
        with suppress(OSError):  # pruned meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _from_monotonic(moment: float) -> datetime:
    return datetime.fromtimestamp(time.time() - time.monotonic() + moment, UTC)
