"""componentize-py in an environment of its own, with spin-sdk, whose package has the .wit files of WASI 0.2, too."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from tests.alone import alone

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache/components"
#: The pair that spin-sdk's own documentation names.
PACKAGES = ("componentize-py==0.17.2", "spin-sdk==3.4.1")
#: For WASI 0.3.
NEWER = ("componentize-py==0.25.1",)
#: And Spin 4.
SPIN_4 = (*NEWER, "spin-sdk==5.0.0")
#: The packages of WASI 0.2.0 that have a world of their own, and those that they use.
_WORLDS = {"proxy": "http", "command": "cli"}
_USED = ("cli", "clocks", "filesystem", "io", "random", "sockets")


def kept(name: str, key: bytes, build: Callable[[Path], None]) -> Path:
    """A program that is built once for all tests.

    :param key: a hash of all that it is built of
    :param build: builds it where it is told
    """
    made = CACHE / f"{name}-{key.hex()[:16]}.wasm"
    with alone(CACHE):
        if not made.exists():
            partial = made.with_suffix(f".{os.getpid()}")
            build(partial)
            partial.rename(made)
    return made


@cache
def component(name: str, world: str) -> Path:
    """The component of ``tests/components/<name>/app.py``, whose own ``wit/`` has what it exports besides.

    :param world: ``proxy`` (wasi:http), ``command`` (wasi:cli) or one of spin-sdk's
    """
    source = HERE / name
    key = hashlib.sha256(repr((PACKAGES, world)).encode())
    for file in sorted([*source.glob("*.py"), *source.rglob("*.wit")]):
        key.update(file.read_bytes())
    return kept(name, key.digest(), partial(_build, source, world))


@cache
def newer() -> Path:
    """The component of ``tests/components/newer/app.py``, which serves HTTP by WASI 0.3."""
    source = HERE / "newer"
    return _of_newer(source, source / "wit", "wasi:http/service@0.3.0")


@cache
def flows() -> Path:
    """The component of ``tests/components/flows``, which serves HTTP by WASI 0.3, and is given streams and futures."""
    with tempfile.TemporaryDirectory() as directory:
        wit = Path(directory)
        shutil.copytree(HERE / "newer/wit/deps", wit / "deps")
        shutil.copy(HERE / "flows/wit/world.wit", wit)
        return _of_newer(HERE / "flows", wit, "acme:things/service")


@cache
def spin_4() -> Path:
    """The component of ``tests/components/spin4/app.py``, of Spin's HTTP trigger by WASI 0.3."""
    source, world = HERE / "spin4", "spin:up/http-trigger@4.1.0"
    key = hashlib.sha256(repr((SPIN_4, world)).encode() + (source / "app.py").read_bytes())

    def build(made: Path) -> None:
        tools = packages(SPIN_4)
        command = [*_componentize(tools), "-w", world, "componentize", "app", "-o", str(made)]
        env = {**os.environ, "VIRTUAL_ENV": str(tools), "PATH": f"{tools}/bin:{os.environ['PATH']}"}
        run(command, source, env)

    return kept("spin4", key.digest(), build)


@cache
def both() -> Path:
    """The component of ``tests/components/both/app.py``, which serves HTTP by WASI 0.2 and by 0.3."""
    return _of_any(HERE / "both", HERE / "both/wit", "shimd:both/both")


@cache
def beside(version: str) -> Path:
    """The component of ``tests/components/beside``, which serves HTTP, and uses what is beside WASI's worlds.

    :param version: ``older`` (WASI 0.2) or ``newer`` (0.3)
    """
    return _of_any(HERE / "beside" / version, HERE / "beside/wit", f"shimd:beside/{version}")


def _of_any(source: Path, own: Path, world: str) -> Path:
    """Of a world that uses packages of WASI 0.2 and of 0.3."""
    with tempfile.TemporaryDirectory() as directory:
        wit = Path(directory)
        shutil.copytree(own, wit, dirs_exist_ok=True)
        shutil.copytree(HERE / "newer/wit/deps", wit / "deps", dirs_exist_ok=True)
        shutil.copytree(_wit(packages(), "http"), wit / "deps/older")
        for package in (wit / "deps/older/deps").iterdir():
            shutil.move(package, wit / f"deps/older-{package.name}")
        (wit / "deps/older/deps").rmdir()
        return _of_newer(source, wit, world)


def _of_newer(source: Path, wit: Path, world: str) -> Path:
    key = hashlib.sha256(repr((NEWER, world)).encode())
    for file in (source / "app.py", *sorted(wit.rglob("*.wit"))):
        key.update(file.read_bytes())

    def build(made: Path) -> None:
        tool = [*_componentize(packages(NEWER)), "-d", str(wit), "-w", world]
        run([*tool, "componentize", "-p", str(source), "app", "-o", str(made)])

    return kept(source.name, key.digest(), build)


def _build(source: Path, world: str, made: Path) -> None:
    tools = packages()
    flags, more = ["-d", str(_wit(tools, _WORLDS[world]))] if world in _WORLDS else [], []
    if (own := source / "wit").exists():  # the other world is the SDK's, whose bindings it brings along
        flags, more, world = ["-d", str(own)], ["-m", f"spin_sdk={world}"], _world(own)
    command = [
        *_componentize(tools),
        *flags,
        "-w",
        world,
        "componentize",
        *more,
        "app",
        "-o",
        str(made),
    ]
    env = dict(os.environ)
    if world not in _WORLDS:  # it finds spin-sdk, whose worlds would hide ours
        env.update(VIRTUAL_ENV=str(tools), PATH=f"{tools}/bin:{os.environ['PATH']}")
    run(command, source, env)


def run(command: list[str], directory: Path | None = None, env: dict[str, str] | None = None, limit: int = 300) -> str:
    """Run a tool; returns what it prints.

    :param limit: seconds
    """
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _componentize(tools: Path) -> list[str]:
    # Its first line names the Python of the tree that installed it, which shares this folder and may be gone.
    return [str(tools / "bin/python"), str(tools / "bin/componentize-py")]


def _world(wit: Path) -> str:
    return next(line.split()[1] for line in (wit / "world.wit").read_text().splitlines() if line.startswith("world "))


def packages(wanted: tuple[str, ...] = PACKAGES) -> Path:
    directory = CACHE / f"tools-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]}"
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True, symlinks=True)
        install = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", *wanted]
        subprocess.run(install, check=True, timeout=300)
        (directory / "complete").touch()
    return directory


def _wit(tools: Path, root: str) -> Path:
    """A package of WASI's with what it uses, laid out as one package and its dependencies."""
    directory = CACHE / f"wit-{root}"
    packages = tools / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages/spin_sdk/wit/deps"
    if not directory.exists():
        shutil.copytree(packages / root, directory)
        for name in _USED:
            if name != root:
                shutil.copytree(packages / name, directory / "deps" / name)
    return directory
