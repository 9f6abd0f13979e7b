"""A stranger's engine: ``docs/shims.md`` followed to the letter, yields a working shim."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clang import CLANG
from tests.e2e import guests, leftovers
from tests.e2e.box import Box, Runtime
from tests.e2e.containerd import REPOSITORY, SYSTEM, Containerd, Version, running
from tests.e2e.images import image, layer, save

TUTORIAL = (REPOSITORY / "docs/shims.md").read_text()
STRANGER = Path(__file__).with_name("stranger")
TEMPLATE = REPOSITORY / "contrib/engine-template"
#: What a type checker is to say of engines: yes to the first, no to the second.
TYPED = """from shimd.shim import Engine, RunsWithoutPython
from shimd_echo import EchoEngine

one: Engine[bytes] = EchoEngine()
two: RunsWithoutPython = EchoEngine()
"""
UNTYPED = TYPED + "three: Engine[bytes] = object()\n"
FILES = {"pyproject.toml": "toml", "shimd_pywasm/__init__.py": "python"}
IMAGE = "test.invalid/stranger:1"
HELLO = """#include <stdio.h>
int main(int argc, char **argv) { printf("hello from %s\\n", argc > 1 ? argv[1] : "nobody"); return argc > 1 ? 7 : 0; }
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TUTORIAL, re.DOTALL)
    assert found
    return found[1]


def commands(number: int) -> list[str]:
    """Of the page's n-th console block."""
    return re.findall(r"^\$ (.*)$", re.findall(r"```console\n(.*?)```", TUTORIAL, re.DOTALL)[number], re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_the_template_is_the_tutorials(file: str) -> None:
    assert (TEMPLATE / file).read_text() == block(FILES[file])


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("hello")
    (directory / "hello.c").write_text(HELLO)
    command = [*CLANG, "-Os", "-o", "hello.wasm", "hello.c"]
    subprocess.run(command, check=True, cwd=directory)
    return (directory / "hello.wasm").read_bytes()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shimd, as a wheel, in an environment that sees our packages besides."""
    directory = tmp_path_factory.mktemp("stranger") / "venv"
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    packages = next(directory.glob("lib/python*/site-packages"))
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    flags = ["--quiet", "--no-deps", "--force-reinstall"]
    subprocess.run([str(directory / "bin/pip"), "install", *flags, str(REPOSITORY)], check=True, cwd=REPOSITORY)
    return directory


@pytest.fixture(scope="module")
def project(environment: Path, hello: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page tells to write."""
    directory = tmp_path_factory.mktemp("project")
    for name, language in FILES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(block(language))
    (directory / "hello.wasm").write_bytes(hello)
    return directory


@pytest.fixture(scope="module")
def output(environment: Path, project: Path) -> dict[str, str]:
    """What the page's commands print."""
    env = {**os.environ, "PATH": f"{environment}/bin:{os.environ['PATH']}"}
    said = {}
    for command in commands(0):
        program = command.replace("pytest", "python -m pytest")  # the environment sees ours, but has no script for it
        done = subprocess.run(["sh", "-c", program], cwd=project, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        said[command] = done.stdout
    return said


def test_the_commands(output: dict[str, str]) -> None:
    assert list(output) == ["pip install .", "pytest --shimd-engine=pywasm", "shimd run --engine pywasm hello.wasm"]
    assert re.search(r"\d\d passed", output["pytest --shimd-engine=pywasm"])
    assert output["shimd run --engine pywasm hello.wasm"] == "hello from nobody\n"


@pytest.fixture(scope="module")
def echo(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of an engine with a part in C, which is installed."""
    directory = tmp_path_factory.mktemp("echo")
    shutil.copytree(STRANGER, directory, dirs_exist_ok=True)
    python = str(environment / "bin/python")
    include = subprocess.check_output([python, "-c", "import shimd.shim; print(shimd.shim.INCLUDE)"], text=True).strip()
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    subprocess.run(["cc", *flags, "-o", "shimd_echo/echo.so", "echo.c"], check=True, cwd=directory)
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "."]
    subprocess.run(install, check=True, cwd=directory)
    (directory / "app.wasm").write_bytes(b"\0asm\1\0\0\0")
    return directory / "app.wasm"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["a", "b"], 3, "", "C: a b\n"),
        (["python", "b"], 3, "Python: python b\n", ""),
    ],
)
def test_an_engine_in_c(environment: Path, echo: Path, arguments: list[str], code: int, out: str, err: str) -> None:
    """By what ``shimd.shim`` offers: programs run in C, but those that its pack leaves to Python."""
    command = [str(environment / "bin/shimd"), "run", "--engine", "echo", str(echo), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def mypy(environment: Path, directory: Path, *files: str) -> "subprocess.CompletedProcess[str]":
    command = [str(environment / "bin/python"), "-m", "mypy", "--strict", f"--cache-dir={directory}/cache", *files]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)


def test_its_types_are_checked(environment: Path, tmp_path: Path) -> None:
    """By what is installed of shimd: ``py.typed`` says that it has types."""
    pytest.importorskip("mypy")
    assert next(environment.glob("lib/python*/site-packages/shimd/py.typed")).exists()
    shutil.copytree(STRANGER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "untyped.py").write_text(UNTYPED)
    right = mypy(environment, tmp_path, "shimd_echo", "typed.py")
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = mypy(environment, tmp_path, "untyped.py")
    assert wrong.returncode == 1
    assert 'expression has type "object", variable has type "Engine[bytes]"' in wrong.stdout


def test_installing_on_a_node(output: dict[str, str], environment: Path, tmp_path: Path) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / "etc/containerd/config.toml").write_text("version = 2\n")
    command = [str(environment / "bin/shimd"), *commands(1)[0].split()[1:], f"--root={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    assert "io.containerd.pywasm.v1" in (tmp_path / "etc/containerd/config.toml").read_text()
    assert (tmp_path / "usr/local/bin/containerd-shim-pywasm-v1").is_symlink()


class StrangersContainerd(Containerd):
    """One that finds the shims of an environment, as after ``pip install``."""

    programs: Path

    def __init__(self, version: Version, directory: Path) -> None:
        super().__init__(version, directory)
        self.env["PATH"] = f"{self.programs}:{version.programs}:{SYSTEM}"


@contextmanager
def strangers_box(
    version: Version, launchers: Path, runtime: Runtime, program: bytes, directory: Path
) -> Iterator[Box]:
    """
    :param launchers: where the runtime's is
    :param program: what is the runtime's in its image
    :param directory: for the image
    """
    StrangersContainerd.programs = launchers
    contents = [layer({runtime.program: program}, guests.DIRECTORIES)]
    save(directory / "app.tar", [image(runtime.image, contents, {"Entrypoint": [runtime.program], "Env": ["PATH=/"]})])
    with running(version, StrangersContainerd) as containerd:
        namespace = f"e2e-{os.getpid()}-{runtime.name}"
        containerd.import_image(directory / "app.tar", namespace)
        box = Box(containerd, namespace, runtime)
        yield box
        box.close()
        leftovers.remove_parents(namespace)


@pytest.fixture
def box(version: Version, output: dict[str, str], environment: Path, hello: bytes, tmp_path: Path) -> Iterator[Box]:
    runtime = Runtime("pywasm", IMAGE, "/hello.wasm", "io.containerd.pywasm.v1")
    with strangers_box(version, environment / "bin", runtime, hello, tmp_path) as box:
        yield box


def test_a_container(box: Box) -> None:
    done = box.run("stranger", "containerd")
    assert (done.code, done.out) == (7, "hello from containerd\n")


def test_what_is_wrong_is_told(box: Box) -> None:
    done = box.ctr("run", "--rm", "--runtime", box.runtime.type, IMAGE, "wrong", "/hello.wasm#main", check=False)
    assert done.code == 1
    assert "pywasm calls no function but _start, and main was asked for" in done.err
