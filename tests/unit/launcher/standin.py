"""A stand-in for ``shimd serve`` that follows PROTOCOL.md, and misbehaves as ``SHIMD_STANDIN`` says.

It leaves what it saw in its runtime directory: a line in ``starts`` per start, ``process`` about itself, and the last
request in ``request``.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

RUNTIME = Path(os.environ["SHIMD_RUNTIME_DIR"])
MODE = os.environ.get("SHIMD_STANDIN", "")


def main() -> None:
    with open(RUNTIME / "starts", "a") as file:
        file.write(f"{os.getpid()}\n")
    if MODE == "die":
        print("Traceback (most recent call last):\nboom: no such engine\n", file=sys.stderr)
        raise SystemExit(1)
    if MODE == "die silently":
        raise SystemExit(1)
    if MODE == "never ready":
        time.sleep(60)
    describe()
    serve()


def describe() -> None:
    facts = {
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) < 3},
        "more_fds": [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and is_open(int(fd))],
        "session": os.getsid(0),
        "pid": os.getpid(),
        "umask": os.umask(0o077),
    }
    (RUNTIME / "process").write_text(json.dumps(facts))


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def serve() -> None:
    path = RUNTIME / "launch.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(512)
    time.sleep(0.2)  # long enough for others to find the socket there, but nobody ready
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"STATUS=nearly", os.environ["NOTIFY_SOCKET"])
        sock.sendto(b"READY=1\nSTATUS=ready", os.environ["NOTIFY_SOCKET"])
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            answer(client)


def answer(client: socket.socket) -> None:
    request = b"".join(iter(lambda: client.recv(65536), b""))
    (RUNTIME / "request").write_bytes(request)
    fields = request.split(b"\0")
    if MODE == "error":
        client.sendall(b"error engine wasmer is not installed")
    elif MODE == "nonsense":
        client.sendall(b"what?")
    elif MODE == "no answer":
        pass
    elif MODE == "die over three requests" and len((RUNTIME / "starts").read_text().split()) < 4:
        raise SystemExit
    elif fields[0] == b"start":
        client.sendall(b"ok unix:///run/shimd/s/" + fields[1] + b".sock")
    else:
        client.sendall(b"ok 42 7 1700000000 5")


main()
