"""``make demo``: a Wasm image and a native one through a private containerd, side by side.

Everything lives in a temporary directory and is gone at the end. Set up by ``tools/setup demo``.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.e2e import images  # noqa: E402 — after the path is set

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
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/containerd.sock"
"""


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="shimd-demo-"))
    directory.chmod(0o711)
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    env |= {f"SHIMD_{name}_DIR": str(directory / name.lower()) for name in ("RUNTIME", "STATE", "CACHE")}
    (directory / "config.toml").write_text(CONFIG.format(directory))
    with open(directory / "containerd.log", "w") as log:
        containerd = subprocess.Popen(["containerd", "-c", directory / "config.toml"], env=env, stdout=log, stderr=log)
    try:
        return show(directory, env)
    finally:
        stop(directory, containerd)
        shutil.rmtree(directory, ignore_errors=True)


def show(directory: Path, env: dict[str, str]) -> int:
    def run(*command: str, quiet: bool = False) -> int:
        if not quiet:
            print(f"\n\033[1m$ {shlex.join(command)}\033[0m", flush=True)
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, timeout=60, capture_output=quiet)
        if not quiet:
            print(f"→ exit code {done.returncode}", flush=True)
        return done.returncode

    ctr = ("ctr", "--address", str(directory / "containerd.sock"))
    wait_for(lambda: run(*ctr, "version", quiet=True) == 0)
    build(directory)
    run(*ctr, "image", "import", "--all-platforms", str(directory / "images.tar"))
    wasm, wasmtime = (
        run(*ctr, "run", "--rm", "--runtime", f"io.containerd.{engine}.v1", "demo.invalid/wasm:1", f"hello-{engine}")
        for engine in ("wasmer", "wasmtime")
    )
    native = run(*ctr, "run", "--rm", "--runtime", "io.containerd.runc.v2", "demo.invalid/native:1", "hello-native")
    run("shimd", "status")
    run("shimd", "events")
    right = (wasm, wasmtime, native) == (7, 7, 0)
    print(
        "\nThe Wasm app exits with 7 by itself, the native one with 0.",
        "All as expected." if right else "NOT as expected!",
    )
    return 0 if right else 1


def build(directory: Path) -> None:
    """The two images: a module compiled from text, and this machine's ``echo`` with the libraries that it needs."""
    import wasmtime

    module = images.layer({"/hello.wasm": bytes(wasmtime.wat2wasm(GUEST))})
    linked = subprocess.run(["ldd", "/bin/echo"], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in linked.split() if word.startswith("/")]
    native = images.layer({path: Path(path).read_bytes() for path in ("/bin/echo", *libraries)})
    images.save(
        directory / "images.tar",
        [
            images.image("demo.invalid/wasm:1", [module], {"Entrypoint": ["/hello.wasm"]}),
            images.image(
                "demo.invalid/native:1", [native], {"Entrypoint": ["/bin/echo", "Hello from a native program!"]}
            ),
        ],
    )


def wait_for(ready: object) -> None:
    for _ in range(100):
        if callable(ready) and ready():
            return
        time.sleep(0.1)
    raise SystemExit("containerd did not start")


def stop(directory: Path, containerd: "subprocess.Popen[bytes]") -> None:
    pid_file = directory / "runtime" / "shimd.pid"
    if pid_file.exists() and (pid := pid_file.read_text().strip()):
        os.kill(int(pid), signal.SIGTERM)
    containerd.terminate()
    containerd.wait(10)


if __name__ == "__main__":
    raise SystemExit(main())
