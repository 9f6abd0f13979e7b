#!/opt/shimd/bin/python3
"""Sets the node up that this pod runs on, and clears it when the DaemonSet is deleted. Standard library only.

The image holds shimd, with an interpreter of its own, in /opt/shimd; that tree is copied to the node, and its ``shimd
install`` run in the node's namespaces. A pod that is merely replaced leaves the node as it is: apps go on.
"""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TREE = Path(os.environ.get("SHIMD_TREE", "/opt/shimd"))
HOST = Path(os.environ.get("SHIMD_HOST", "/host"))
ACCOUNT = Path(os.environ.get("SHIMD_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
LABEL = "shimd.io/ready"


def main() -> int:
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    copy()
    on_node("install", "--restart-containerd")
    on_node("upgrade", check=False)  # what ran before goes on if it fails, and the doctor says so
    on_node("doctor", check=False)  # for this pod's log
    label("true")
    say("the node is ready; waiting for the end")
    signal.sigwait(signals)
    if is_deleted():
        label(None)
        if on_node("uninstall", "--restart-containerd", check=False) != 0:
            say(f"the node keeps shimd: delete the pods that use it, then run {TREE}/bin/shimd uninstall there")
            return 0
        shutil.rmtree(on_host(TREE))
        say("the node is as it was")
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def on_host(path: Path) -> Path:
    return HOST / path.relative_to("/")


def copy() -> None:
    """The tree as a whole, or not at all. What runs keeps the files that it has open."""
    target = on_host(TREE)
    new, old = (target.with_name(f".{target.name}.{name}") for name in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(TREE, new, symlinks=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    say(f"copied shimd to {TREE}")


def on_node(*arguments: str, check: bool = True) -> int:
    """Run shimd where process 1 of the node is; its output is this pod's log. Returns its exit code."""
    enter = os.environ.get("SHIMD_ENTER", "nsenter --target 1 --mount --uts --ipc --net --pid --")
    return subprocess.run([*enter.split(), str(TREE / "bin/shimd"), *arguments], check=check).returncode


def label(value: "str | None") -> None:
    patch = {"metadata": {"labels": {LABEL: value}}}
    request("PATCH", f"/api/v1/nodes/{os.environ['NODE_NAME']}", patch)


def is_deleted() -> bool:
    """Whether the DaemonSet is gone or going, and not just this pod."""
    path = f"/apis/apps/v1/namespaces/{os.environ['POD_NAMESPACE']}/daemonsets/{os.environ['DAEMONSET']}"
    try:
        return "deletionTimestamp" in request("GET", path)["metadata"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return True
        raise


def request(method: str, path: str, body: "dict[str, Any] | None" = None) -> "dict[str, Any]":
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    call = urllib.request.Request(f"https://{host}:{port}{path}", method=method)
    call.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
    call.add_header("Content-Type", "application/merge-patch+json")
    data = json.dumps(body).encode() if body is not None else None
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(call, data, context=context, timeout=30) as answer:
        response: dict[str, Any] = json.load(answer)
        return response


if __name__ == "__main__":
    sys.exit(main())
