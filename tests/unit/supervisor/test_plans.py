"""What of a container's files a worker is told."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from shimd.engine import Preopen
from shimd.oci import Mount, Spec
from shimd.supervisor.task import plans


class NoCgroup:
    directories: tuple[str, ...] = ()
    unified = None


def preopens(readonly: bool, *mounts: Mount) -> Sequence[Preopen]:
    spec: Spec = {
        "root": {"path": "rootfs", "readonly": readonly},
        "process": {"args": ["/app.wasm"], "cwd": "/"},
        "mounts": list(mounts),
    }
    plan = plans.init("app", Path("/bundle"), spec, [], NoCgroup(), terminal=False)  # type: ignore[arg-type]
    return plan.preopens


@pytest.mark.parametrize("readonly", [True, False])
def test_the_root_is_never_given_read_only(readonly: bool) -> None:
    """It is so by the kernel's mount, which has no say in a volume below."""
    assert preopens(readonly) == [Preopen("/", "/")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["rbind", "ro"], True),
        (["bind", "rw"], False),
        (["bind", "ro", "rw"], False),  # the last one counts, as in mount(8)
        (["rbind", "rro"], True),
        ([], False),
    ],
)
def test_each_bind_mount_is_told_for_itself(options: list[str], expected: bool) -> None:
    bind: Mount = {"destination": "data/", "type": "bind", "source": "/x", "options": options}
    tmpfs: Mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}
    assert preopens(True, bind, tmpfs) == [Preopen("/", "/"), Preopen("/data", "/data", expected)]
