"""shimd somewhere else: a tree, an environment and an interpreter of its own below a directory, installed by pip."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.e2e.containerd import REPOSITORY, SYSTEM, Containerd, Version

#: What makes the package; and what only its makers use, which need not come along.
_SOURCES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py", "shimd", "systemd")
_TOOLS = (
    "mypy",
    "mypyc",
    "ruff*",
    "grpc",
    "grpc_tools",
    "grpcio*",
    "hypothesis*",
    "pip*",
    "*mypyc*",
    "_pytest",
    "shimd-*",
    "__editable__*",
)
_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def wheel(directory: Path) -> Path:
    """The package, built in a directory."""
    _sources(directory / "tree")
    flags = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--wheel-dir", directory)
    _run(sys.executable, "-m", "pip", "wheel", *flags, directory / "tree")
    return next(directory.glob("shimd-*.whl"))


def install(directory: Path, wheel: Path | None = None) -> Path:
    """Put all of it below a directory; returns where the programs are.

    :param wheel: what is installed; without one, the tree itself, as ``make demo`` does it
    """
    interpreter = _interpreter(directory / "python")
    _run(interpreter, "-m", "venv", "--without-pip", directory / "venv")
    python = directory / "venv/bin/python"
    packages = directory / f"venv/lib/{_VERSION}/site-packages"
    _copy(Path(sysconfig.get_path("purelib")), packages, *_TOOLS)
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet")
    if wheel is None:
        _sources(directory / "tree")
    _run(*pip, "--no-deps", "--no-build-isolation", *([wheel] if wheel else ["-e", directory / "tree"]))
    os.symlink("containerd-shim-wasmer-v1", directory / "venv/bin/containerd-shim-wasmer-sdk-v1")
    return directory / "venv/bin"


def _sources(directory: Path) -> None:
    directory.mkdir(parents=True)
    for name in _SOURCES:
        _copy(REPOSITORY / name, directory / name, "_zygote", "*.so")


def _interpreter(directory: Path) -> Path:
    """This interpreter, moved: it finds its library beside itself."""
    (directory / "bin").mkdir(parents=True)
    program = directory / "bin" / _VERSION
    shutil.copy2(Path(sys.base_prefix, "bin", _VERSION), program)
    _copy(Path(os.__file__).parent, directory / "lib" / _VERSION, "test", "site-packages", "dist-packages")
    return program


def _copy(source: Path, target: Path, *without: str) -> None:
    """A file or a directory; files are links where they can be, since nobody changes them."""

    def take(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    if source.is_file():
        take(str(source), str(target))
    else:
        ignored = shutil.ignore_patterns("__pycache__", *without)
        shutil.copytree(source, target, copy_function=take, ignore=ignored, symlinks=True, dirs_exist_ok=True)


def own(directory: Path, uid: int) -> None:
    """Give all of it to somebody else; what is linked becomes a copy, since it is others', too."""
    for parent, _directories, files in os.walk(directory):
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink() and path.stat().st_nlink > 1:
                shutil.copy2(path, path.with_name(f"{name}.own"))
                path.with_name(f"{name}.own").replace(path)
            os.chown(path, uid, uid, follow_symlinks=False)
        os.chown(parent, uid, uid)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


class Elsewhere(Containerd):
    """A containerd that finds its shims there."""

    @classmethod
    def using(cls, programs: Path, environment: Mapping[str, str]) -> "Callable[[Version, Path], Elsewhere]":
        def make(version: Version, directory: Path) -> "Elsewhere":
            made = cls(version, directory)
            made.env |= {"PATH": f"{programs}:{version.programs}:{SYSTEM}", **environment}
            return made

        return make
