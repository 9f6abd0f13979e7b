"""The process of an app's providers: who serves, who comes after it, and when all of them end."""

import subprocess
import sys
from pathlib import Path

#: An app that asks its providers for their process, ends that, and asks anew.
APP = """
import os, socket, struct, sys
from shimd.component.bridge.process import Process

class Here:
    def number(self): return os.getpid()
    def end(self): os.kill(os.getpid(), 9)

def providers(name):
    if name == "broken": raise RuntimeError("no providers")
    return {"acme:things/here": Here()}

def ask(function, name=b"app"):
    ours, theirs = socket.socketpair()
    socket.send_fds(asking, [b"0"], [theirs.fileno()])
    theirs.close()
    called = b"acme:things/here#" + function
    ours.sendall(struct.pack(">IBI", 5 + len(name), 0, 2) + name)
    ours.sendall(struct.pack(">IBIIH", 12 + len(called), 1, 7, 0, len(called)) + called + b"\\x90")
    answer = ours.recv(4096)
    return answer[9:] and int.from_bytes(answer[10:], "big") if answer else None

process = Process()
asking = socket.socket(fileno=process.ask)
process.start(providers)
print(os.getpid(), ask(b"number"), ask(b"number"), ask(b"end"), ask(b"number"), ask(b"number", b"broken"), flush=True)
sys.stdin.readline()
"""


def test_another_serves_after_one_that_was_ended_and_all_end_with_the_app() -> None:
    app = subprocess.Popen(
        [sys.executable, "-c", APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert app.stdout is not None
    own, first, same, ended, second, broken = app.stdout.readline().split()
    assert first == same != second and own not in (first, second)
    assert ended == broken == "None"
    keeper = _parent(second)
    assert _parent(keeper) == own
    _out, err = app.communicate("", timeout=60)
    assert app.returncode == 0
    assert "the process of the app's interfaces was ended by SIGKILL" in err
    assert "no providers" in err
    while any(Path(f"/proc/{it}").exists() for it in (keeper, second)):
        pass  # they are ended as the app is


def test_where_no_process_may_be_made() -> None:
    """The app's own limit is one of its user's: a root's has none."""
    program = APP.replace(
        "process.start(providers)", "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)); os.setuid(65534)"
    )
    program = program.replace("import os,", "import resource, os,").replace(
        "print(", "process.start(providers)\nprint("
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "EngineError: the process of the app's interfaces cannot be started: Resource temporarily" in done.stderr


def _parent(process: str) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
