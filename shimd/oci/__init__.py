"""Types of the OCI runtime specification's ``config.json`` that shimd reads.

TypedDicts: the parsed JSON itself, typed, at no cost at run time. Names are the specification's own
(https://github.com/opencontainers/runtime-spec/blob/main/config.md, config-linux.md).
"""

import json
from pathlib import Path
from typing import Any, TypedDict, cast

from shimd.errors import InvalidArgument, from_os, is_shortage

#: Of the specification: what the fields below are those of, and what ``-info`` names.
VERSION = "1.3.0"


class User(TypedDict, total=False):
    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class Rlimit(TypedDict):
    type: str
    soft: int
    hard: int


class Capabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class ConsoleSize(TypedDict):
    height: int
    width: int


class Process(TypedDict, total=False):
    terminal: bool
    consoleSize: ConsoleSize
    cwd: str
    env: list[str]
    args: list[str]
    rlimits: list[Rlimit]
    capabilities: Capabilities
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    user: User


class Root(TypedDict, total=False):
    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    destination: str
    type: str
    source: str
    options: list[str]


class Namespace(TypedDict, total=False):
    type: str
    path: str


class Device(TypedDict, total=False):
    type: str
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class Hook(TypedDict, total=False):
    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class Linux(TypedDict, total=False):
    namespaces: list[Namespace]
    uidMappings: list[dict[str, int]]
    gidMappings: list[dict[str, int]]
    devices: list[Device]
    cgroupsPath: str
    resources: dict[str, Any]
    rootfsPropagation: str
    seccomp: dict[str, Any]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    sysctl: dict[str, str]
    timeOffsets: dict[str, dict[str, int]]


class Spec(TypedDict, total=False):
    ociVersion: str
    process: Process
    root: Root
    hostname: str
    domainname: str
    mounts: list[Mount]
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux


#: Where Docker and nerdctl mount the init process of ``--init``.
INITS = ("/sbin/docker-init", "/sbin/tini")


def has_create_hooks(spec: Spec) -> bool:
    """Returns whether there are hooks to run between the making of a container's namespaces and pivot_root."""
    hooks = spec.get("hooks", {})
    return bool(hooks.get("prestart") or hooks.get("createRuntime") or hooks.get("createContainer"))


class RootfsMount(TypedDict):
    """One of the mounts that containerd hands to Create to make up the root file system (containerd.types.Mount)."""

    type: str
    source: str
    target: str
    options: list[str]


def load_spec(bundle: Path) -> Spec:
    """Read and check ``config.json`` of a bundle.

    :raises InvalidArgument: it is missing, not JSON, or lacks what a container needs
    """
    path = bundle / "config.json"
    try:
        spec: Spec = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InvalidArgument(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and is_shortage(error):
            raise from_os(error) from error
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    if not isinstance(spec, dict):
        raise InvalidArgument(f"{path} is not a JSON object")
    _check_needed(spec.get("process"), str(path))
    if not isinstance(spec.get("root"), dict) or not isinstance(spec["root"].get("path"), str):
        raise InvalidArgument(f"{path}: root.path is missing")
    from shimd.oci import fields  # the supervisor's and the jailer's: the others read what these have checked

    fields.check(cast(dict[str, Any], spec), str(path))
    return _without_init(spec)


def _without_init(spec: Spec) -> Spec:
    """Returns the spec without ``docker run --init`` (nerdctl's too), which mounts a native program and has it run
    the image's: a worker is the init process that is asked for. A native container's runtime has its own copy."""
    args = spec["process"]["args"]
    mounts = spec.get("mounts", [])
    others = [mount for mount in mounts if mount["destination"] != args[0]]
    if args[0] not in INITS or args[1:2] != ["--"] or len(args) < 3 or others == mounts:
        return spec
    return Spec(**{**spec, "process": Process(**{**spec["process"], "args": args[2:]}), "mounts": others})


def check_process(process: Any, where: str) -> None:
    """Check a process that comes without the rest (``where`` names it in the error).

    :raises InvalidArgument: something is missing or of a wrong type
    """
    from shimd.oci import fields

    _check_needed(process, where)
    fields.check_process(process, where)


def _check_needed(process: Any, where: str) -> None:
    """Check that the fields are there that every container has."""
    if not isinstance(process, dict):
        raise InvalidArgument(f"{where}: process is missing")
    args = process.get("args")
    if not isinstance(args, list) or not args or not all(isinstance(arg, str) for arg in args):
        raise InvalidArgument(f"{where}: process.args must be a list of at least one string")
    env = process.get("env", [])
    if not isinstance(env, list) or not all(isinstance(item, str) for item in env):
        raise InvalidArgument(f"{where}: process.env must be a list of strings")
    if not isinstance(process.get("cwd"), str) or not process["cwd"].startswith("/"):
        raise InvalidArgument(f"{where}: process.cwd must be an absolute path")
