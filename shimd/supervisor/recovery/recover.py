"""The way back: a supervisor goes on where an earlier one has ended.

The order matters. What others kept is known first: the keeper's descriptors, the journal's records, and the fork
servers' workers. Then the containers come back as the journal tells of them, which claims their workers. What nobody
claims was being made when the earlier supervisor ended, and is ended. Only then is containerd served again: by the
connections that it has, the requests that have no answer yet first, and who waits to be connected.

A shortage here (of descriptors, of memory) is waited out: all the while nobody is answered, and nothing is ended.
"""

import shutil
from base64 import b64decode

import anyio

from shimd import paths
from shimd.api.containerd import events as api
from shimd.errors import NotFound
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord, ProcessRecord, Published, TaskRecord
from shimd.supervisor.events import is_outbox
from shimd.supervisor.recovery.connections import server_of
from shimd.supervisor.recovery.keeper_link import close_all
from shimd.supervisor.shortage import once_there_is_room
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.task.stdio import OPENED
from shimd.supervisor.workers.fork_client import Worker
from shimd.timestamp import timestamp

_log = logger(__name__)
#: Seconds until all requests that are to be replayed have been begun with.
_REPLAYED = 10.0
_TAKEOVER = "taking over from an earlier daemon"


class Earlier:
    """What an earlier supervisor has left of a container (:class:`shimd.supervisor.task.container.Earlier`), however
    often it is asked for."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._workers: dict[str, Worker] = {}
        self._taken: dict[str, list[int] | None] = {}

    def worker(self, record: ProcessRecord) -> Worker:
        worker = self._workers.get(record.key)
        if worker is None:
            fork_servers = self._supervisor.fork_servers
            worker = fork_servers.adopted(record.key)
            if worker is None:
                worker = fork_servers.orphan(record.key, record.pid, record.start)
            worker.handled, worker.alone = frozenset(record.handled), record.alone
            self._workers[record.key] = worker
        return worker

    def take(self, name: str) -> list[int] | None:
        if name not in self._taken:
            self._taken[name] = self._supervisor.keeper.take(name)
        return self._taken[name]

    def give_up(self, task: TaskRecord) -> None:
        """End all its processes. Descriptors of theirs stay open here: what has begun with them may use them yet."""
        for process in task.processes:
            if process.key:
                self.worker(process).abandon()
        for name, fds in self._taken.items():
            self._supervisor.keeper.drop(name)
            if name.startswith(f"{OPENED}:"):
                close_all(fds or ())


async def recover(supervisor: Supervisor) -> None:
    """Take over from an earlier supervisor, if there was one."""
    shutil.rmtree(paths.scratch_dir(), ignore_errors=True)
    records = await once_there_is_room(lambda: list(supervisor.journal.read()), _TAKEOVER)
    tasks = [record for record in records if isinstance(record, TaskRecord)]
    await supervisor.fork_servers.find({one.key for task in tasks for one in task.processes if one.started_at})
    await _resume_events(supervisor)
    for record in records:
        if isinstance(record, EndpointRecord):
            supervisor.earlier_endpoint(record)
    published = [(one, task) for task in tasks for one in task.published]
    for one, task in sorted(published, key=lambda pair: pair[0].number):
        try:
            _publish_again(supervisor, task, one)
        except Exception as error:  # of another version, say
            _log.error("container %s: an event cannot be told again, and is lost: %s", task.id, error)
    for task in tasks:
        await _recover_task(supervisor, task)
    supervisor.parts.tasks.start_soon(_undo, supervisor)
    _resume_connections(supervisor)
    await supervisor.serve_earlier()
    if supervisor.journal.is_whole:  # else a later supervisor may find out whose they are
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
    """Those of an endpoint that is not known are dropped: containerd then knows that nobody is there."""
    for name in list(supervisor.keeper.kept):
        endpoint = supervisor.endpoints.get(server_of(name) or "")
        if endpoint is not None:
            fds = supervisor.keeper.take(name) or []
            supervisor.parts.tasks.start_soon(endpoint.connections.resume, name, fds)


async def _recover_task(supervisor: Supervisor, record: TaskRecord) -> None:
    """One that cannot be recovered costs no others anything: its processes are ended."""
    earlier = Earlier(supervisor)
    try:
        of = EndpointRecord(record.engine, record.namespace, record.events_address, record.grpc_address)
        endpoint = supervisor.earlier_endpoint(of)
        await once_there_is_room(lambda: endpoint.service.recover(record, earlier), _TAKEOVER)
    except NotFound as error:
        _log.info("container %s is not gone on with: %s", record.id, error)
        earlier.give_up(record)
        supervisor.journal.remove(record)
    except Exception as error:
        _log.exception("container %s cannot be recovered, and is ended: %s", record.id, error)
        earlier.give_up(record)
        supervisor.journal.remove(record)


async def _undo(supervisor: Supervisor) -> None:
    """End what was being made, then remove what it was made in."""
    whole = supervisor.journal.is_whole
    if whole:  # else a later supervisor may find out whose they are
        await supervisor.fork_servers.end_unclaimed()
    for endpoint in list(supervisor.endpoints.values()):
        endpoint.service.undo(all_known=whole)


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
    supervisor.forget_unused()
