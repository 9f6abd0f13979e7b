"""With a Python that is too old, whatever one begins with says so in one sentence: with the old ones that are here."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2]


def interpreters() -> list[str]:
    """One of each version from 3.6 to 3.10: on PATH, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = []
    for minor in range(6, 11):
        candidates = [*pyenv.glob(f"versions/3.{minor}.*/bin/python3.{minor}"), shutil.which(f"python3.{minor}")]
        found += [str(path) for path in candidates if path and runs(str(path))][:1]
    return found


def runs(path: str) -> bool:
    """pyenv's shims are there for versions that are not in use."""
    return subprocess.run([path, "-c", ""], capture_output=True).returncode == 0


#: Skipped if there are none.
old = pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).name)


def said_by(*command: str, path: str = os.environ["PATH"]) -> str:
    env = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stdout + done.stderr


@old
@pytest.mark.parametrize(
    "words",
    [
        ("-m", "shimd.cli.main"),
        ("-m", "shimd.cli.main", "serve"),
        ("-c", "import shimd"),
        ("setup.py", "--version"),
        ("tools/demo.py",),
    ],
    ids=" ".join,
)
def test_one_sentence(python: str, words: tuple[str, ...]) -> None:
    printed = said_by(python, *words)
    assert printed.startswith("shimd needs Python 3.11 or later; this is 3.")
    assert printed.count("\n") == 1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what setup.py comes to: old versions of pip copy the whole directory, and ours is large."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(PROJECT / "shimd/launcher", copy / "shimd/launcher")
    for name in ("shimd/__init__.py", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy / name)
    return copy


@old
def test_pip(python: str, source: Path, tmp_path: Path) -> None:
    """What setup.py says, among pip's own words."""
    offline = ("--no-build-isolation", "--no-deps", "--no-index")
    printed = said_by(python, "-m", "pip", "install", *offline, f"--target={tmp_path}", str(source))
    assert "shimd needs Python 3.11 or later" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(("version", "possible"), [("3.6", "59.6"), ("3.8", "75.3"), ("3.9", "77"), ("3.13", "77")])
def test_pip_comes_as_far_as_setup_py(version: str, possible: str) -> None:
    """Versions of setuptools that there are for a Python: if none will do, pip ends with a list of them."""
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    applying = [
        each
        for each in map(Requirement, wanted)
        if not each.marker or each.marker.evaluate({"python_version": version})
    ]
    assert [each.name for each in applying] == ["setuptools"]
    assert applying[0].specifier.contains(possible)


@old
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding Debian's interpreter needs root")
@pytest.mark.parametrize("part", ["demo", "dev", "all"])
def test_setup(python: str, part: str) -> None:
    """In place of Debian's, as on an older Debian."""
    hidden = 'mount --bind "$0" /usr/bin/python3 && exec tools/setup "$1"'
    printed = said_by("unshare", "--mount", "sh", "-c", hidden, python, part, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert printed.startswith("tools/setup: needs Python 3.11 or later; python3 is Python 3.")
    assert printed.count("\n") == 1
