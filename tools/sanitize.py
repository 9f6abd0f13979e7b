"""``make sanitize``: the tests of what is in C, with the compiler's own checks in it.

Launcher, zygote and ``contained.c`` have AddressSanitizer and UndefinedBehaviorSanitizer. The former has to be in a
process from its start, with its libraries, and needs more addresses than a compile worker may have. So what fork
servers load, and ``shimd-pause``, whose root is empty, have the latter alone, by traps, which need no library.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Exit code if it cannot be done here, as automake has it.
NOTHING = 77
CC = "gcc"
REPORTS = f"{CC} -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
TRAPS = f"{CC} -fsanitize=undefined -fsanitize-undefined-trap-on-error"
#: Fortified functions are not looked into by AddressSanitizer.
FLAGS = {"CFLAGS": "-U_FORTIFY_SOURCE", "SHIMD_LAUNCHER": "c"}


def _available() -> bool:
    """Whether there is a compiler that has the sanitizers."""
    return shutil.which(CC) is not None and Path(_library("libasan.so")).is_absolute()


def main() -> int:
    """All, or the parts that are named: ``libraries``, ``programs``."""
    if not _available():
        print(f"there is no {CC} here, or it has no AddressSanitizer", file=sys.stderr)
        return NOTHING
    with tempfile.TemporaryDirectory(prefix="shimd-sanitize-") as directory:
        project = Path(directory) / "project"
        _copy(project)
        return max(PARTS[part](project) for part in sys.argv[1:] or PARTS)


def _copy(project: Path) -> None:
    """The project, and an environment in which it is installed beside what ours has: a build writes into its source."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_zygote")
    for name in ("shimd", "tests", "systemd", "proto", "contrib"):
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    (project / ".cache").symlink_to(ROOT / ".cache")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    packages = next((project / ".venv").glob("lib/python*/site-packages"))
    (packages / "shimd").symlink_to(project / "shimd")
    (packages / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")


def _libraries(project: Path) -> int:
    _build(project, REPORTS)
    preloaded = " ".join(_library(name) for name in ("libasan.so", "libubsan.so"))
    # What an interpreter leaves to the end of its process is no leak of ours.
    return _test(project, "tests/unit/engines/test_contained.py", LD_PRELOAD=preloaded, ASAN_OPTIONS="detect_leaks=0")


def _programs(project: Path) -> int:
    zygote, kept = project / "shimd/zygote/_zygote", project / "zygote"
    _build(project, REPORTS)
    zygote.rename(kept)
    _build(project, TRAPS)
    kept.replace(zygote)
    code = "from shimd.launcher.build import build; import pathlib, sys; build(pathlib.Path(sys.argv[1]), '0', 'c')"
    _run(project, "-c", code, str(project / ".venv/bin"), CC=TRAPS, **FLAGS)
    pause_and_zygote = _test(project, "tests/unit/forkserver", "tests/unit/worker/test_pause.py")
    launchers = ("start", "delete", "info")
    files = [f"tests/unit/launcher/test_launcher_{name}.py" for name in launchers]
    return max(pause_and_zygote, _test(project, *files, "-k", "not python", CC=REPORTS, **FLAGS))


def _build(project: Path, compiler: str) -> None:
    _run(project, "setup.py", "--quiet", "build_ext", "--inplace", "--force", CC=compiler, **FLAGS)


def _library(name: str) -> str:
    return subprocess.check_output([CC, f"-print-file-name={name}"], text=True).strip()


def _test(project: Path, *arguments: str, **environment: str) -> int:
    command = [str(project / ".venv/bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=project, env={**os.environ, **environment}, check=False).returncode


def _run(project: Path, *arguments: str, **environment: str) -> None:
    command = [str(project / ".venv/bin/python"), *arguments]
    subprocess.run(command, cwd=project, env={**os.environ, **environment}, check=True)


PARTS = {"libraries": _libraries, "programs": _programs}

if __name__ == "__main__":
    raise SystemExit(main())
