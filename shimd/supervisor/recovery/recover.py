"""The way back: a supervisor goes on where an earlier one has ended.

The order matters. What others kept is known first: the keeper's descriptors, and the fork servers' workers. Then the
containers come back as the journal tells of them, which claims their workers. What nobody claims was being made when the
earlier supervisor ended, and is ended. Only then is containerd served again: by the connections that it has, the
requests that have no answer yet first.
"""

from base64 import b64decode

import anyio

from shimd.api.containerd import events as api
from shimd.errors import ShimdError
from shimd.log import logger
from shimd.protocol.journal import EndpointRecord, ProcessRecord, Published, TaskRecord
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.workers.fork_client import Worker

_log = logger(__name__)
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
    await supervisor.fork_servers.find()
    records = list(supervisor.journal.read())
    tasks = [record for record in records if isinstance(record, TaskRecord)]
    for endpoint in records:
        if isinstance(endpoint, EndpointRecord):
            await _recover_endpoint(supervisor, endpoint)
    for number, task in sorted((one.number, task) for task in tasks for one in task.published):
        for one in task.published:
            _publish_again(supervisor, task, one)
    for task in tasks:
        await _recover_task(supervisor, task)
    supervisor.fork_servers.end_unclaimed()
    for endpoint in supervisor.endpoints.values():
        endpoint.resume_connections()
    supervisor.keeper.drop_untaken()
    if tasks:
        _log.info("found %d tasks of an earlier daemon", len(tasks))
    supervisor.parts.tasks.start_soon(_forget_replays, supervisor)


async def _recover_endpoint(supervisor: Supervisor, record: EndpointRecord) -> None:
    try:
        await supervisor.endpoint(record)
    except (ShimdError, OSError) as error:
        _log.error("the task socket of %s for %s cannot be served: %s", record.engine, record.namespace, error)


async def _recover_task(supervisor: Supervisor, record: TaskRecord) -> None:
    """One that cannot be recovered costs no others anything: its processes are ended, as nobody claims them."""
    try:
        of = EndpointRecord(record.engine, record.namespace, record.events_address, record.grpc_address)
        endpoint = await supervisor.endpoint(of)
        endpoint.service.recover(record, Earlier(supervisor))
    except Exception as error:
        _log.exception("container %s cannot be recovered, and is ended: %s", record.id, error)
        supervisor.journal.remove(record)


def _publish_again(supervisor: Supervisor, record: TaskRecord, published: Published) -> None:
    """An event that was recorded, and perhaps not queued any more."""
    message = getattr(api, published.message).parse(b64decode(published.data))
    supervisor.bus.publish_again(
        record.events_address, record.namespace, message, published.number, published.at
    )


async def _forget_replays(supervisor: Supervisor) -> None:
    await anyio.sleep(_REPLAYED)
    for endpoint in list(supervisor.endpoints.values()):
        endpoint.service.recovered()
