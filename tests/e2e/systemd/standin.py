"""A stand-in for ``shimd serve`` under systemd: shimd's own notify module, and PROTOCOL.md's answers.

Each start has a child that is to outlive it, as fork servers do.
"""

import json
import os
import socket
import sys
from pathlib import Path

from shimd.supervisor import notify

RUNTIME = Path("/run/shimd")


def main() -> None:
    interval, fds = notify.watchdog_interval(), notify.listen_fds()
    facts = {
        "argv": sys.argv[1:],
        "fds": fds,
        "again": notify.listen_fds(),
        "watchdog": interval,
        "environment": [name for name in os.environ if name.startswith("LISTEN_")],
        "child": os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}),
    }
    (RUNTIME / "facts").write_text(json.dumps(facts))
    listener = socket.socket(fileno=fds["launch"]) if fds else bound()
    listener.settimeout(interval and interval / 2)
    notify.ready()
    notify.notify(STATUS="standing in")
    while True:
        notify.notify(WATCHDOG="1")
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        with client, client.makefile("rb") as request:
            client.settimeout(None)
            engine = request.read().split(b"\0")[1].decode()
            client.sendall(f"ok unix:///{engine}/{os.getpid()}".encode())


def bound() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(RUNTIME / "launch.sock"))
    listener.listen()
    return listener


main()
