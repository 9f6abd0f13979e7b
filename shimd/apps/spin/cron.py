"""The cron trigger (https://github.com/spinframework/spin-trigger-cron): six fields, seconds first, in UTC."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio
from cronsim import CronSim, CronSimError

from shimd.apps.serving import StopScope
from shimd.apps.spin.telemetry import Call

#: What a component exports.
FUNCTION = "handle-cron-event"
#: Longest sleep, seconds: the clock may be set meanwhile.
_NAP = 60.0


def parse(expression: str) -> None:
    """:raises ValueError: it is no schedule"""
    try:
        next(CronSim(expression, datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"is no cron expression: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError("is a cron expression that no moment matches") from None


class Schedule:
    """A service: calls components at their moments. A call that takes long does not put off the next."""

    def __init__(self, entries: Sequence[tuple[str, Call]]) -> None:
        """:param entries: expressions, and what they call"""
        self._entries = entries
        self._work = StopScope()

    async def run(self) -> None:
        async with anyio.create_task_group() as calls:
            with self._work.waiting():
                async with anyio.create_task_group() as waits:
                    for expression, call in self._entries:
                        waits.start_soon(self._follow, expression, call, calls)

    def stop(self) -> None:
        self._work.stop()

    async def _follow(self, expression: str, call: Call, calls: anyio.abc.TaskGroup) -> None:
        moments = CronSim(expression, datetime.now(UTC))
        for moment in moments:
            await _reach(moment.timestamp())
            calls.start_soon(call, "", FUNCTION, {"timestamp": int(time.time())})


async def _reach(moment: float) -> None:
    """:param moment: seconds since the epoch"""
    while True:
        left = moment - time.time()
        if left <= 0:
            return
        await anyio.sleep(min(left, _NAP))
