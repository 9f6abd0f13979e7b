"""The way back: a supervisor goes on where an earlier one has ended.

The order matters. What others kept is known first: the keeper's descriptors, and the fork servers' workers. Then the
containers come back as the journal tells of them, which claims their workers. What nobody claims was being made when
the earlier supervisor ended, and is ended. Only then is containerd served again: by the connections that it has, the
requests that have no answer yet first.
"""

import shutil
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from shimd import paths
from shimd.api.containerd import events as api
from shimd.errors import ResourceExhausted, ShimdError, is_shortage
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord, ProcessRecord, Published, Record, TaskRecord
from shimd.supervisor.events import is_outbox
from shimd.supervisor.recovery.connections import server_of
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.workers.fork_client import Worker
from shimd.timestamp import timestamp

_log = logger(__name__)
T = TypeVar("T")
#: Seconds for which what has run out may be missing, and between two attempts.
_SHORTAGE, _PAUSE = 60.0, 0.25
#: Seconds until all requests that are to be replayed have been begun with.
_REPLAYED = 10.0


class Earlier:
    """What an earlier supervisor has left (:class:`shimd.supervisor.task.container.Earlier`)."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def worker(self, record: ProcessRecord) -> Worker:
        fork_servers = self._supervisor.fork_servers
        worker = fork_servers.adopted(record.key)
        if worker is None:
            worker = fork_servers.orphan(record.key, record.pid, record.start)
        worker.handled, worker.alone = frozenset(record.handled), record.alone
        return worker

    def take(self, name: str) -> list[int] | None:
        return self._supervisor.keeper.take(name)


async def recover(supervisor: Supervisor) -> None:
    """Take over from an earlier supervisor, if there was one."""
    shutil.rmtree(paths.scratch_dir(), ignore_errors=True)
    await supervisor.fork_servers.find()
    await _resume_events(supervisor)
    records = await _when_there_is_room(lambda: _read(supervisor))
    tasks = [record for record in records if isinstance(record, TaskRecord)]
    for record in records:
        if isinstance(record, EndpointRecord):
            await _recover_endpoint(supervisor, record)
    published = [(one, task) for task in tasks for one in task.published]
    for one, task in sorted(published, key=lambda pair: pair[0].number):
        try:
            _publish_again(supervisor, task, one)
        except Exception as error:  # of another version, say
            _log.error("container %s: an event cannot be told again, and is lost: %s", task.id, error)
    for task in tasks:
        await _recover_task(supervisor, task)
    supervisor.fork_servers.end_unclaimed()
    _resume_connections(supervisor)
    supervisor.keeper.drop_untaken()
    supervisor.keep_exits()
    if tasks:
        _log.info("found %d tasks of an earlier daemon", len(tasks))
    supervisor.parts.tasks.start_soon(_forget_replays, supervisor)


async def _resume_events(supervisor: Supervisor) -> None:
    for name in list(supervisor.keeper.kept):
        if is_outbox(name):
            await supervisor.bus.resume(name, supervisor.keeper.take(name) or [])


def _resume_connections(supervisor: Supervisor) -> None:
    """Those of an endpoint that is not served are dropped: containerd then knows that nobody is there."""
    for name in list(supervisor.keeper.kept):
        endpoint = supervisor.endpoints.get(server_of(name) or "")
        if endpoint is not None:
            fds = supervisor.keeper.take(name) or []
            supervisor.parts.tasks.start_soon(endpoint.connections.resume, name, fds)


async def _recover_endpoint(supervisor: Supervisor, record: EndpointRecord) -> None:
    try:
        await _when_there_is_room(lambda: supervisor.endpoint(record, earlier=True))
    except (ShimdError, OSError) as error:
        _log.error("the task socket of %s for %s cannot be served: %s", record.engine, record.namespace, error)


async def _recover_task(supervisor: Supervisor, record: TaskRecord) -> None:
    """One that cannot be recovered costs no others anything: its processes are ended, as nobody claims them."""
    try:
        await _when_there_is_room(lambda: _go_on_with(supervisor, record))
    except Exception as error:
        _log.exception("container %s cannot be recovered, and is ended: %s", record.id, error)
        supervisor.journal.remove(record)


async def _go_on_with(supervisor: Supervisor, record: TaskRecord) -> None:
    of = EndpointRecord(record.engine, record.namespace, record.events_address, record.grpc_address)
    endpoint = await supervisor.endpoint(of, earlier=True)
    endpoint.service.recover(record, Earlier(supervisor))


async def _read(supervisor: Supervisor) -> list[Record]:
    return list(supervisor.journal.read())


async def _when_there_is_room(act: Callable[[], Awaitable[T]]) -> T:
    """What fails for want of descriptors, memory or room is done again: tasks are not given up for that. Whatever is
    taken from the earlier supervisor is taken after all that may fail so."""
    deadline, told = anyio.current_time() + _SHORTAGE, False
    while True:
        try:
            return await act()
        except Exception as error:
            if not _is_for_want(error) or anyio.current_time() > deadline:
                raise
            if not told:
                _log.error("an earlier daemon's tasks have to wait: %s", error)
                told = True
        await anyio.sleep(_PAUSE)


def _is_for_want(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ResourceExhausted) or (isinstance(error, OSError) and is_shortage(error)):
            return True
        error = error.__cause__
    return False


def _publish_again(supervisor: Supervisor, record: TaskRecord, published: Published) -> None:
    """An event that was recorded, and perhaps not queued any more."""
    message = getattr(api, published.message).parse(b64decode(published.data))
    supervisor.bus.publish_again(
        record.events_address, record.namespace, message, published.number, timestamp(published.at)
    )


async def _forget_replays(supervisor: Supervisor) -> None:
    await anyio.sleep(_REPLAYED)
    for endpoint in list(supervisor.endpoints.values()):
        endpoint.service.recovered()
