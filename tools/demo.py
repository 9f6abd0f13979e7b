"""``make demo``: a Wasm image and a native one through a private containerd, side by side.

All of it is in a pid and a mount namespace, which end with it: so do its processes, its mounts and its files, which are
in a tmpfs there, however it ends. What is left to remove are cgroups. Set up by ``tools/setup demo``.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

BIN = Path(sys.executable).parent
sys.path.insert(0, str(Path(__file__).parent.parent))

from shimd.cgroup import tree  # noqa: E402 — after the path is set
from shimd.linux import libc  # noqa: E402
from tests.e2e import images, leftovers  # noqa: E402

GUEST = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "Hello from WebAssembly under containerd!\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 41))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const 7))))
"""
CONFIG = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{1}"
"""
#: A tmpfs over it hides what this machine's own containerd and shims keep there.
RUN, CGROUPS = Path("/run"), Path("/sys/fs/cgroup")
#: Of containerd, and so the directory that the containers' cgroups are in.
NAMESPACE = f"shimd-demo-{os.getpid()}"
#: Named for this demo alone, as the compile workers' cgroups are by it: the node may have several.
DIRECTORY = RUN / NAMESPACE
SOCKET, RUNTIME = DIRECTORY / "containerd.sock", DIRECTORY / "runtime"
#: Seconds: for containerd's start; for a command until containerd is asked whether it still answers; for that answer;
#: for all of a command.
START, DOUBT, ANSWER, LIMIT = 15, 2, 10, 60
#: Lines of containerd's log that a failure shows.
TAIL = 20


class Failure(Exception):
    """Its text is the one sentence that the user sees."""


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWPID)
    except OSError as error:
        print(f"demo: no namespaces can be made here: {error.strerror}", file=sys.stderr)
        return 1
    pid = os.fork()
    if pid == 0:
        os._exit(inside())
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        os.kill(pid, signal.SIGKILL)  # process 1 of the namespace: the kernel ends all others before it is gone
        _, status = os.waitpid(pid, 0)
        remove_cgroups()
    return os.waitstatus_to_exitcode(status)


def remove_cgroups() -> None:
    containers = (*CGROUPS.glob(NAMESPACE), *CGROUPS.glob(f"*/{NAMESPACE}"))  # version 2; version 1
    for directory in (*containers, *leftovers.compile_cgroups(RUNTIME)):
        tree.remove(str(directory))


def inside() -> int:
    """As process 1, which has no default actions of signals: ^C is the parent's affair."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
        libc.mount("proc", "/proc", "proc", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC)
        libc.mount("tmpfs", str(RUN), "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=755")
        DIRECTORY.mkdir(mode=0o711)
        return Demo().show()
    except (Failure, OSError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


class Demo:
    """A containerd and what is shown with it."""

    def __init__(self) -> None:
        self.env = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin",  # runc's place is not on everyone's
            "CONTAINERD_ADDRESS": str(SOCKET),
            "CONTAINERD_NAMESPACE": NAMESPACE,
            **{f"SHIMD_{name}_DIR": str(DIRECTORY / name.lower()) for name in ("RUNTIME", "STATE", "CACHE")},
        }
        config, self.log = DIRECTORY / "config.toml", DIRECTORY / "containerd.log"
        config.write_text(CONFIG.format(DIRECTORY, SOCKET))
        with open(self.log, "w") as log:
            self.containerd = self.start("containerd", "-c", str(config), output=log)

    def start(self, *command: str, output: TextIO | None = None) -> "subprocess.Popen[bytes]":
        """In a session of its own: ^C would end a part before the whole."""
        return subprocess.Popen(
            command, env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def show(self) -> int:
        self.wait_for_containerd()
        self.env["CONTAINERD_SNAPSHOTTER"] = self.snapshotter()
        build(DIRECTORY / "images.tar")
        self.run("ctr", "image", "import", "--all-platforms", str(DIRECTORY / "images.tar"))
        wasm, wasmtime, native = (
            self.run("ctr", "run", "--rm", "--runtime", f"io.containerd.{runtime}", image, f"hello-{runtime[:-3]}")
            for runtime, image in (
                ("wasmer.v1", "demo.invalid/wasm:1"),
                ("wasmtime.v1", "demo.invalid/wasm:1"),
                ("runc.v2", "demo.invalid/native:1"),
            )
        )
        self.run("shimd", "status")
        self.run("shimd", "events")
        right = (wasm, wasmtime, native) == (7, 7, 0)
        print(
            "\nThe Wasm app exits with 7 by itself, the native one with 0.",
            "All as expected." if right else "NOT as expected!",
        )
        return 0 if right else 1

    def run(self, *command: str) -> int:
        print(f"\n\033[1m$ {shlex.join(command)}\033[0m", flush=True)
        process = self.start(*command)
        self.follow(process, command)
        print(f"→ exit code {process.returncode}", flush=True)
        return process.returncode

    def follow(self, process: "subprocess.Popen[bytes]", command: Sequence[str]) -> None:
        """Wait for a command's end, but not longer than containerd lives and answers."""
        for _ in range(LIMIT // DOUBT):
            with suppress(subprocess.TimeoutExpired):
                process.wait(DOUBT)
            if self.containerd.poll() is not None:
                raise self.failure("containerd has ended")
            if process.returncode is not None:
                return
            if not self.answers():
                raise self.failure("containerd does not answer any more")
        raise self.failure(f"{shlex.join(command)} did not end within {LIMIT} s")

    def wait_for_containerd(self) -> None:
        deadline = time.monotonic() + START
        while not (SOCKET.exists() and self.answers()):  # ctr would wait for the socket by itself, and longer
            if self.containerd.poll() is not None:
                raise self.failure("containerd ended while starting")
            if time.monotonic() > deadline:
                raise self.failure(f"containerd did not answer within {START} s")
            time.sleep(0.1)

    def answers(self) -> bool:
        return self.ask("version") is not None

    def snapshotter(self) -> str:
        """The one of containerd's that copies nothing, where the kernel has what it needs."""
        rows = [row.split() for row in (self.ask("plugins", "ls") or "").splitlines()]
        return "overlayfs" if any(row[1:2] == ["overlayfs"] and row[-1] == "ok" for row in rows) else "native"

    def ask(self, *question: str) -> str | None:
        """What ``ctr`` prints; nothing if it fails."""
        try:
            done = subprocess.run(["ctr", *question], env=self.env, capture_output=True, text=True, timeout=ANSWER)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def failure(self, sentence: str) -> Failure:
        tail = self.log.read_text(errors="replace").splitlines()[-TAIL:]
        return Failure("\n".join([f"{sentence}; the last of its log:", *tail]))


def build(archive: Path) -> None:
    """The two images: a module compiled from text, and this machine's ``echo`` with the libraries that it needs."""
    import wasmtime

    module = images.layer({"/hello.wasm": bytes(wasmtime.wat2wasm(GUEST))})
    linked = subprocess.run(["ldd", "/bin/echo"], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in linked.split() if word.startswith("/")]
    native = images.layer({path: Path(path).read_bytes() for path in ("/bin/echo", *libraries)})
    say_hello = {"Entrypoint": ["/bin/echo", "Hello from a native program!"]}
    images.save(
        archive,
        [
            images.image("demo.invalid/wasm:1", [module], {"Entrypoint": ["/hello.wasm"]}),
            images.image("demo.invalid/native:1", [native], say_hello),
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
