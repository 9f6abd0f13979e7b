"""Guests in C, compiled when something that they are made of has changed."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from shimd.apps.slight.world import interface
from shimd.engines.slight_names import NAMES
from tests.clang import CLANG
from tests.slight.bindings import PRELUDE, Bindings, Export

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache/slight"
#: Handlers of ``app.c``, by the name of their export.
HANDLERS = (
    "handle-hello", "handle-person", "handle-echo", "handle-kv-get", "handle-kv-set", "handle-kv-delete",
    "handle-kv-keys", "handle-publish", "handle-subscribe", "handle-receive", "handle-query", "handle-exec",
    "handle-lock", "handle-unlock", "handle-config-get", "handle-config-set", "handle-fetch", "handle-blob",
    "handle-bad",
)  # fmt: skip


@cache
def guest(name: str, *flags: str) -> Path:
    """The module of ``tests/slight/<name>.c``; ``flags`` for the compiler."""
    header = _header()
    key = hashlib.sha256(repr((header, flags, (HERE / f"{name}.c").read_bytes(), Path(__file__).read_bytes())).encode())
    made = CACHE / f"{name}-{key.hexdigest()[:16]}.wasm"
    if not made.exists():
        _compile(HERE / f"{name}.c", header, flags, made)
    return made


def _header() -> str:
    handlers = [Export("handle-http", name) for name in HANDLERS]
    parts = [PRELUDE, *(Bindings(interface(name)).imports() for name in NAMES)]
    parts.append("#ifndef NO_SERVER")
    parts.append(Bindings(interface("http-handler")).exports(handlers))
    parts.append(Bindings(interface("http-server-export")).exports([Export("on-server-init", "on-server-init")]))
    parts.append("#endif")
    return "\n".join(parts)


def _compile(source: Path, header: str, flags: Sequence[str], made: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = made.with_suffix(f".{os.getpid()}")
    generated = partial.with_suffix(".h")
    generated.write_text(header)
    model = [] if "-DNO_SERVER" in flags else ["-mexec-model=reactor"]
    command = [*CLANG, "-O1", "-Wall", "-Werror", "-Wno-missing-braces", *model, *flags]
    try:
        subprocess.run([*command, "-include", generated, "-o", partial, source], check=True, timeout=120)
        partial.rename(made)
    finally:
        generated.unlink()
