"""shimd.supervisor.sockets: a listener that no shortage ends."""

import socket
from pathlib import Path

import anyio
import pytest

from shimd.supervisor.sockets import accepted, unix_listener
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio


async def test_no_descriptor_is_a_delay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sock"
    got = anyio.Event()

    async def accept() -> None:
        async for stream in accepted(listener):
            await stream.aclose()
            got.set()

    with socket.socket(socket.AF_UNIX) as client:
        async with await unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            await anyio.wait_all_tasks_blocked()
            with no_descriptors():
                client.connect(str(path))
                with anyio.fail_after(30):
                    while "Too many open files" not in caplog.text:  # noqa: ASYNC110
                        await anyio.sleep(0.01)
                assert not got.is_set()
            with anyio.fail_after(30):
                await got.wait()
            tasks.cancel_scope.cancel()
    assert caplog.text.count("no connection can be accepted") == 1
