"""What passes between supervisor, fork server and worker.

Two kinds of SEQPACKET connection carry these messages, one JSON object a packet, descriptors by SCM_RIGHTS:

* supervisor ⇄ fork server (``paths.worker_socket``), one at a time; the fork server outlives it::

      → {"op": "spawn", "key": K, "pidns": null | "new" | path, "cgroup": null | path}
                          + [stdin, stdout, stderr, plan memfd] and of a container [steps memfd, jail…];
                            without a plan: a worker without Python (``in_c.py``), which is told later what to run
      ← {"ev": "spawned", "key": K, "pid": P, "start": T}       + [control]
      ← {"ev": "failed", "key": K, "code": C, "message": M}       the fork itself failed; UNIMPLEMENTED: take Python
      ← {"ev": "exited", "key": K, "pid": P, "status": wait status, "at": ns since the epoch}
      → {"op": "follow", "key": K, "pid": P}                      a process that a worker left: answered as a spawn
      → {"op": "forget", "key": K}                                the exit is on record; drop it
      → {"op": "list"}                                            after a reconnection:
      ← {"ev": "spawned", …} + [control] and {"ev": "exited", …} for all that is not forgotten, then
      ← {"ev": "listed"}

* supervisor ⇄ worker (``control`` above; the fork server keeps a duplicate until the worker is forgotten)::

      → {"op": "enter"} + [block memfd, steps memfd, jail…]   to a worker without Python, before all else
      ← {"ev": "entry", "name": path} + [file]  a program, if the plan names no artefact
      ← {"ev": "entry", "name": path, "missing": sentence}    or it is not there; an image's layer may hold it
      ← {"ev": "image"}                         what layers has the container's image?
      → {"op": "image"} + [file]                JSON, a list of {"digest", "media_type", "size"}
      ← {"ev": "layer", "digest": D}            one of them, to be read
      → {"op": "layer"} + [file]
      ← {"ev": "entry", "name": N, "layer": D}  one of them, which is a program
      ← {"ev": "files"} + [file]                JSON, {path: {"digest": D} or {"data": base64}}: a directory of those
      → {"op": "load", "artifact": path}        the compiled module, or the directory
      ← {"ev": "engine", "name": engine}        that engine runs the program; the worker exits
      ← {"ev": "held"}                          it is in its namespaces, and hooks are to be run
      → {"op": "go"}
      ← {"ev": "ready", "signals": [n, …]}      all is set up, no guest has run; what the app handles itself
      → {"op": "start"}
      ← {"ev": "error", "code": C, "message": M}   at any point before ready; the worker exits, Create fails
      ← {"ev": "warning", "message": M}            something that may be missing was (a capability of the host)

* supervisor ⇄ jailer (:mod:`shimd.jailer.main`), which makes what a container's worker will live in, one at a time::

      → {"op": "init" | "exec", "terminal": bool} + [plan memfd] and of a terminal [its slave end]
      ← {"ev": "jail", "path": path, "program": bool, "missing": sentence, "listening": [fd, …], "held": bool}
                                         + [steps memfd, jail…] and if it was found [the program]
      → {"op": "finish"}                           if it is held: hooks have been run
      ← {"ev": "finished"}
      ← {"ev": "error", "code": C, "message": M}

A compile worker answers with ready (the artefact is complete) or error, and exits. A native worker becomes the command
of its plan, and a hook's worker the hook: the connection ends there, or brings an error.

Plans are passed in a memfd, since an OCI spec may exceed what a packet holds.
"""

import array
import errno
import json
import os
import socket
from typing import Any, Literal, TypedDict

from shimd.linux.memory_file import memory_file, read_file
from shimd.oci import Hook, Process, RootfsMount, Spec

#: Largest packet; plans travel in memfds, so messages are small.
MAX_PACKET = 65536
#: SCM_MAX_FD (unix(7)).
MAX_FDS = 253
#: Where a fork server finds its listening socket.
LISTEN_FD = 3
#: Where a worker has what the jailer made, the root file system first; below are its streams and ``control``.
JAIL_FD = 4

Message = dict[str, Any]


class Plan(TypedDict, total=False):
    """All that a worker needs to know, whatever its kind."""

    kind: Literal["init", "exec", "sandbox", "native", "hook", "compile", "run"]
    id: str
    """The container's id (and ``/exec id``), for error messages and the process title."""
    bundle: str
    spec: Spec
    process: Process
    """``spec.process``, or an exec's own."""
    rootfs: list[RootfsMount]
    """init: mounts that make up the root file system."""
    cgroup: list[str]
    """Directories of the container's cgroup, one per hierarchy; created and limited before the spawn."""
    unified: str | None
    """The one of them that is in the version 2 hierarchy: the worker is born there. ``cgroup`` of the request."""
    init_pid: int
    """exec: the process whose namespaces to join."""
    terminal: bool
    """Whether fd 0 is a pty to be made the controlling terminal."""
    artifact: str
    """The compiled module; missing if the worker asks for it itself. compile: where to put it."""
    digest: str
    """compile: SHA-256 of the program, hexadecimal, under which its compiled form will be found."""
    engine: str
    """compile: that will run it; empty: the fork server's own."""
    only_look: bool
    """compile: end when it is seen whether it would be in vain."""
    preopens: list[tuple[str, str, bool]]
    """(host directory, guest directory, read-only). Of a container: its root, never read-only, since the kernel's
    mounts are; and each bind mount by itself, for engines that cannot just follow the kernel's."""
    network: bool
    """run: whether the guest may use this machine's network. A container's may always use its own."""
    listen: list[tuple[str, int]]
    """Listening TCP sockets for the app: IP address, empty for all, and port."""
    listening: list[int]
    """Their descriptors, if they came with the jail."""
    pidns: str | None
    """As in the spawn request."""
    pause: str
    """sandbox: the program to become; empty: none is installed, and the worker itself waits. hook: in a container, what
    executes it (``worker/pause.c``)."""
    command: list[str]
    """native: the program to become, and its arguments, once ``rootfs`` is mounted in the host's mount namespace."""
    hook: Hook
    """hook: the program to become, and its arguments and environment."""
    directory: str
    """hook: the working directory, if the steps do not lead to one."""
    seccomp: str
    """The worker's filter: a BPF program, base64; none if empty."""


_json = json.JSONEncoder(separators=(",", ":")).encode


def encode(message: Message) -> bytes:
    return _json(message).encode()


def send(sock: socket.socket, message: Message, fds: list[int] | None = None) -> None:
    """Send one packet on a blocking SEQPACKET socket."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([encode(message)], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one packet with its descriptors (close-on-exec); ``None`` at the end of the connection.

    :raises BlockingIOError: the socket is non-blocking and empty
    :raises ValueError: it is not a message
    """
    data, fds, flags, _address = socket.recv_fds(sock, MAX_PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    if flags & socket.MSG_CTRUNC:  # some descriptors are missing, and nobody could tell which
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMFILE, "too many descriptors")
    try:
        message: Message = json.loads(data)
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise
    return message, list(fds)


def plan_file(plan: Plan) -> int:
    """The plan in a file in memory, to be passed with a spawn; the caller closes it."""
    return memory_file("shimd-plan", _json(plan).encode())


def read_plan(fd: int) -> Plan:
    plan: Plan = json.loads(read_file(fd))
    return plan
