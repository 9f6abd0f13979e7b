"""How the daemon ends that cannot begin: with a sentence."""

from pathlib import Path

import anyio
import pytest

from shimd.errors import Unavailable
from shimd.supervisor import serve as module


@pytest.mark.parametrize("error", [Unavailable("the keeper does not answer"), OSError(24, "Too many open files")])
def test_what_keeps_it_from_serving_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Not where in the code."""

    async def serve() -> None:
        async with anyio.create_task_group(), anyio.create_task_group():
            raise error

    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path))
    for name in ("log.configure", "faulthandler.enable", "limits.raise_descriptors", "release.mark", "gc.freeze"):
        monkeypatch.setattr(f"shimd.supervisor.serve.{name}", lambda: None)
    monkeypatch.setattr("shimd.supervisor.serve.release.is_whole", lambda: True)  # else main() executes pytest
    monkeypatch.setattr(module, "serve", serve)
    assert module.main() == 1
    assert caplog.messages[-1].lower().startswith(str(error).lower().removeprefix("[errno 24] "))
