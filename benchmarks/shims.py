"""The shims under test, each started as containerd starts it, and driven by the Task service over ttrpc."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any as AnyJson

from shimd.api.containerd.runc.v1 import Options as RuncOptions
from shimd.api.google.protobuf import Any
from shimd.engines.registry import lacking
from shimd.typeurl import pack

BIN = Path(sys.executable).parent
HELLO_WAT = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 16) "hello\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
#: Where shims send their events, in the run's directory.
EVENTS = "events.sock"
#: Sleeps in poll_oneoff: one clock subscription of 1000 s.
IDLE_WAT = """(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 1000000000000))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"""
NATIVE_C = """#include <unistd.h>
int main(int c, char **v) { if (c > 1) { sleep(1000); return 0; } return write(1, "hello\\n", 6) != 6; }"""
SPIN_TOML = """
spin_manifest_version = 2
[application]
name = "hello"
[[trigger.http]]
route = "/..."
component = "hello"
[component.hello]
source = "app.wasm"
"""
_SLIGHTFILE = b"""
specversion = "0.2"
[[capability]]
resource = "http"
name = "my-rest-api"
"""
_CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"]
_MOUNTS = [
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/run", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
]


@dataclass
class Shim:
    """``program`` is the shim's executable, ``args`` what to run: hello, or with ``idle`` what sleeps."""

    name: str
    program: str
    hello: list[str]
    idle: list[str]
    shared: bool
    """One for all containers, as shimd; else one for each, as containerd has it for runc outside of pods."""
    binary: str = ""
    """runc's shim: the OCI runtime to use instead of runc."""
    runtime: str = ""
    """What ``ctr run --runtime`` takes; the program's path if empty."""
    files: Callable[[], Mapping[str, bytes]] | None = None
    """Of its own root file system, if it runs no commands but an application that serves, and is idle until asked."""

    def options(self) -> Any | None:
        """Of a Create request."""
        return pack(RuncOptions(binary_name=self.binary)) if self.binary else None

    def ctr_flags(self) -> list[str]:
        binary = ["--runc-binary", self.binary] if self.binary else []
        return ["--runtime", self.runtime or self.program, *binary]


def known() -> list[Shim]:
    return [*_wasm(), *_servers(), *_native()]


def _wasm() -> list[Shim]:
    names = [name for name in ("wasmtime", "wasmer", "wasmedge") if lacking(name) is None]
    return [
        Shim(name, _launcher(f"{name}-v1"), ["/hello.wasm"], ["/idle.wasm"], True, runtime=f"io.containerd.{name}.v1")
        for name in names
    ]


def _servers() -> list[Shim]:
    return [
        Shim("spin", _launcher("spin-v2"), [], ["/"], True, files=_spin),
        Shim("slight", _launcher("slight-v1"), [], ["/"], True, files=_slight),
    ]


def _native() -> list[Shim]:
    program = shutil.which("containerd-shim-runc-v2") or "/usr/bin/containerd-shim-runc-v2"
    hello, idle, runtime = ["/native"], ["/native", "idle"], "io.containerd.runc.v2"
    return [
        Shim(name, program, hello, idle, False, binary=binary, runtime=runtime)
        for name, binary in (("runc", ""), ("crun", shutil.which("crun") or ""))
        if shutil.which(name)
    ]


def _launcher(name: str) -> str:
    return str(BIN / f"containerd-shim-{name}")


def _spin() -> dict[str, bytes]:
    """A hello in Rust, on port 80."""
    from tests.components import rust

    return {"/spin.toml": SPIN_TOML.encode(), "/app.wasm": rust.component("spin").read_bytes()}


def _slight() -> dict[str, bytes]:
    """The tests' app, on port 80."""
    from tests.slight.build import guest

    return {"/slightfile.toml": _SLIGHTFILE, "/app.wasm": guest("app").read_bytes()}


def programs(directory: Path) -> dict[str, bytes]:
    """Contents of the root file system: path → program."""
    import wasmtime

    source, native = directory / "native.c", directory / "native"
    source.write_text(NATIVE_C)
    subprocess.run(["gcc", "-static", "-O2", "-s", "-o", native, source], check=True)
    return {
        "/hello.wasm": bytes(wasmtime.wat2wasm(HELLO_WAT)),
        "/idle.wasm": bytes(wasmtime.wat2wasm(IDLE_WAT)),
        "/native": native.read_bytes(),
    }


def make_rootfs(directory: Path, files: Mapping[str, bytes]) -> Path:
    for name in ("", "proc", "dev", "sys", "run"):
        (directory / name).mkdir(exist_ok=True)
    for path, content in files.items():
        (directory / path.lstrip("/")).write_bytes(content)
        (directory / path.lstrip("/")).chmod(0o755)
    return directory


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for everything; what is below /run on a node is in memory here, too."""
    prefix = "shimd-bench-"
    memory = tempfile.TemporaryDirectory(prefix=prefix, dir="/dev/shm", ignore_cleanup_errors=True)
    with memory, tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        for part in ("bundles", "runtime"):
            Path(memory.name, part).mkdir(mode=0o700)
            Path(name, part).symlink_to(Path(memory.name, part))
        yield Path(name)


def make_bundle(bundle: Path, rootfs: Path, args: list[str]) -> Path:
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps(specification(rootfs, args, f"/shimd-bench/{bundle.name}")))
    return bundle


def specification(rootfs: Path, args: list[str], cgroup: str) -> dict[str, AnyJson]:
    """What ``ctr run`` writes, for a plain directory."""
    keys = ("destination", "type", "source", "options")
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), _CAPS)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": args,
            "cwd": "/",
            "env": ["PATH=/"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            "capabilities": capabilities,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        },
        "root": {"path": str(rootfs)},
        "mounts": [dict(zip(keys, mount, strict=True)) for mount in _MOUNTS],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def start(shim: Shim, bundle: Path, directory: Path) -> str:
    """The shim's ``start``, as containerd calls it; returns the path of its socket."""
    os.mkfifo(bundle / "log")  # containerd's shims log there, and end if nobody reads: this descriptor stays open
    _logs.append(os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK))
    flags = ["-namespace", "bench", "-address", str(directory / "none.sock"), "-id", bundle.name, "start"]
    env = {**os.environ, **environment(directory), "TTRPC_ADDRESS": str(directory / EVENTS)}
    done = subprocess.run(
        [shim.program, *flags],
        cwd=bundle,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode:
        raise RuntimeError(f"{shim.name}: {done.stdout}{done.stderr}")
    return done.stdout.strip().removeprefix("unix://")


_logs: list[int] = []


def environment(directory: Path) -> dict[str, str]:
    return {f"SHIMD_{name}_DIR": str(directory / name.lower()) for name in ("RUNTIME", "STATE", "CACHE")}


@contextmanager
def cleaned(directory: Path) -> Iterator[None]:
    """Whatever was started with files in ``directory`` ends with the block."""
    try:
        yield
    finally:
        for pid in processes(directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes(directory: Path) -> list[int]:
    """Processes whose environment or working directory names ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if str(directory).encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found
