"""Makes the launchers: for ``setup.py`` when a wheel is built, and for the tests. Standard library only."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shimd.launcher.names import shim_names

#: A runtime ``io.containerd.NAME.v1`` for each.
ENGINES = ("wasmer", "wasmtime", "wasmedge", "spin", "slight")
#: Of a path in a script's first line, for kernels before 5.1 (execve(2), "Interpreter scripts").
_LONGEST = 120
#: For all that is in C: what writes past an end is ended, and a program's tables are read-only once it is loaded.
HARDENED = ("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3")
LINKED = ("-Wl,-z,relro", "-Wl,-z,now")
_HERE = Path(__file__).parent
_KEEPER = "../keeper/keeper.c"
_CFLAGS = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-s", *HARDENED, *LINKED)


def build(directory: Path, version: str, kind: str | None = None, engines: Iterable[str] = ENGINES) -> None:
    """Put ``shimd-launcher`` and a ``containerd-shim-ENGINE-v1`` for each engine into a directory; and ``shimd-pause``
    and ``shimd-keeper`` with C.

    :param kind: ``c`` or ``python``; by default what :func:`default_kind` says
    :raises OSError: no C compiler works, and ``c`` was asked for
    """
    directory.mkdir(parents=True, exist_ok=True)
    python = directory / "shimd-launcher"
    python.write_text(_python_source(version))
    python.chmod(0o755)
    program = python
    if (kind or default_kind()) == "c":
        program = directory / shim_names(next(iter(engines)))[0]
        compile_c(program, version)
        with suppress(OSError):  # no static C library: pods do without (worker/pause.py)
            _compile_static(directory / "shimd-pause", "../worker/pause.c")
        compile_keeper(directory / "shimd-keeper")
    for name in (name for engine in engines for name in shim_names(engine)):
        target = directory / name
        if target != program:
            target.unlink(missing_ok=True)
            os.link(program, target)


def default_kind() -> str:
    """``SHIMD_LAUNCHER``, or else ``c`` if a compiler works here."""
    if kind := os.environ.get("SHIMD_LAUNCHER"):
        if kind not in ("c", "python"):
            raise ValueError(f"SHIMD_LAUNCHER must be c or python, not {kind!r}")
        return kind
    with tempfile.TemporaryDirectory() as directory:
        try:
            compile_c(Path(directory) / "containerd-shim-test-v1", "0")
        except OSError:
            return "python"
    return "c"


def compile_c(program: Path, version: str, extra: Iterable[str] = ()) -> None:
    """Compile ``launcher.c``, statically where that works: it starts faster, and runs with any libc.

    Not at random addresses (``-static-pie``): relocating itself costs it a fifteenth of its run, once a container.

    :raises OSError: with the compiler's reason, or that of the program made
    """
    options = [*extra, f'-DVERSION="{version}"']
    try:
        _compile(program, "launcher.c", "-static", *options)
        _run([str(program), "-v"])
    except OSError:
        _compile(program, "launcher.c", *options)
        _run([str(program), "-v"])


def compile_keeper(program: Path) -> None:
    """Compile ``keeper.c``, statically where that works: what is mapped is its own.

    :raises OSError: with the compiler's reason
    """
    try:
        _compile_static(program, _KEEPER)
    except OSError:
        _compile(program, _KEEPER, "-fPIE", "-pie")


def _compile_static(program: Path, source: str) -> None:
    try:
        _compile(program, source, "-fPIE", "-static-pie")
    except OSError:  # a C library without rcrt1.o
        _compile(program, source, "-static")


def _compile(program: Path, source: str, *options: str) -> None:
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or "clang"]
    flags = [*_CFLAGS, *shlex.split(os.environ.get("CFLAGS", "")), *options]
    _run([*compiler, *flags, "-o", str(program), str(_HERE / source)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip() or done.returncode}")


def interpreter_line(python: str) -> str:
    """Returns the first lines of a script that an interpreter at this path runs, with ``-IS``.

    By way of the shell where the kernel would cut the path, at a space or for its length: the shell executes what is
    a string to Python (pip does the same).
    """
    if " " not in python and len(python) <= _LONGEST:
        return f"#!{python} -IS\n"
    return f"#!/bin/sh\n'''exec' \"{python}\" -IS \"$0\" \"$@\"\n' '''\n"


def _python_source(version: str) -> str:
    """``launcher.py`` with its version and its interpreter.

    Written by us and not by pip, whose rewriting of ``#!python`` drops the flags: without them the interpreter reads
    twice as many files. The system's interpreter first, since more of its modules are built in than of others'.
    """
    system = "/usr/bin/python3"
    python = system if os.access(system, os.X_OK) else sys.executable
    _, _, source = (_HERE / "launcher.py").read_text().partition("\n")
    return interpreter_line(python) + source.replace('VERSION = "unknown"', f'VERSION = "{version}"', 1)
