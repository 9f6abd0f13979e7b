"""A runtime's options, as containerd hands them to Create: what an operator wrote into its configuration."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any as AnyJson

from shimd.api.containerd.runc.v1 import Options as RuncOptions
from shimd.api.google.protobuf import Any
from shimd.api.runtimeoptions.v1 import Options as RuntimeOptions
from shimd.errors import InvalidArgument, reason


@dataclass(frozen=True)
class Options:
    systemd: bool = False
    """Cgroups are named by systemd's rules (``SystemdCgroup``)."""
    runtime: str = "runc"
    """The program that runs native containers (``BinaryName``, else the environment's ``SHIMD_RUNC``)."""


def parse(packed: Any | None) -> Options:
    """runc's own options, or TOML in ``runtimeoptions.v1.Options`` as for runwasi.

    :raises InvalidArgument: not TOML
    """
    if packed is None or not packed.value:
        return _options({})
    if packed.type_url.endswith("containerd.runc.v1.Options"):
        runc = RuncOptions.parse(packed.value)
        return _options({"SystemdCgroup": runc.systemd_cgroup, "BinaryName": runc.binary_name})
    if packed.type_url.endswith("runtimeoptions.v1.Options"):
        return _options(_toml(RuntimeOptions.parse(packed.value)))
    return _options({})


def _options(table: dict[str, AnyJson]) -> Options:
    named = (str(table.get("BinaryName") or ""), os.environ.get("SHIMD_RUNC") or "", Options.runtime)
    runtime = next(name for name in named if name and not _is_shim(name))
    return Options(bool(table.get("SystemdCgroup", False)), runtime)


def _is_shim(program: str) -> bool:
    """k3s and rke2 write the shim itself there, in the tables of those that they find on their PATH."""
    return Path(program).name.startswith("containerd-shim-")


def _toml(options: RuntimeOptions) -> dict[str, AnyJson]:
    """The body, or the file that ``ctr run --runtime-config-path`` names."""
    try:
        body = options.config_body or (Path(options.config_path).read_bytes() if options.config_path else b"")
        return tomllib.loads(body.decode())
    except OSError as error:
        raise InvalidArgument(f"runtime options: {options.config_path}: {reason(error)}") from None
    except ValueError as error:
        raise InvalidArgument(f"runtime options: {error}") from None
