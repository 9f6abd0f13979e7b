"""A runtime's options, in the forms in which containerds hand them over."""

import pytest

from shimd.api.containerd.runc.v1 import Options as RuncOptions
from shimd.api.google.protobuf import Any
from shimd.api.runtimeoptions.v1 import Options as RuntimeOptions
from shimd.errors import InvalidArgument
from shimd.supervisor.task.options import Options, parse


def toml(text: str) -> Any:
    return Any("runtimeoptions.v1.Options", bytes(RuntimeOptions(config_body=text.encode())))


def runc(**fields: object) -> Any:
    return Any("containerd.runc.v1.Options", bytes(RuncOptions(**fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packed", "options"),
    [
        (None, Options()),
        (Any("runtimeoptions.v1.Options", b""), Options()),
        (toml("SystemdCgroup = true"), Options(systemd=True)),
        (toml('BinaryName = "/opt/crun"'), Options(runtime="/opt/crun")),
        (toml("Other = 1"), Options()),
        (
            toml('BinaryName = "/usr/local/bin/containerd-shim-wasmtime-v1"\nSystemdCgroup = true'),
            Options(systemd=True),
        ),
        (runc(binary_name="/opt/kwasm/bin/containerd-shim-spin-v2", systemd_cgroup=True), Options(systemd=True)),
        (runc(binary_name="containerd-shim-slight-v1"), Options()),
        (runc(systemd_cgroup=True), Options(systemd=True)),
        (runc(binary_name="crun"), Options(runtime="crun")),
        (Any("types.containerd.io/containerd.runc.v1.Options", bytes(RuncOptions(systemd_cgroup=True))), Options(True)),
        (Any("somebody.elses.Options", b"\x08\x01"), Options()),
    ],
)
def test_forms(packed: Any | None, options: Options) -> None:
    assert parse(packed) == options


def test_the_environment_names_a_native_runtime_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_RUNC", "crun")
    assert parse(None).runtime == "crun"
    assert parse(runc(binary_name="youki")).runtime == "youki"
    assert parse(runc(binary_name="/usr/bin/containerd-shim-wasmer-v1")).runtime == "crun"
    monkeypatch.setenv("SHIMD_RUNC", "/usr/bin/containerd-shim-runc-v2")
    assert parse(None).runtime == "runc"


def test_no_toml_is_named() -> None:
    with pytest.raises(InvalidArgument, match="runtime options: "):
        parse(toml("SystemdCgroup = "))
