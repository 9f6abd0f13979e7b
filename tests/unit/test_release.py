"""Which shimd a process runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shimd
from shimd import release
from shimd.linux.program import runs


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (directory := tmp_path / "shimd" / "zygote").mkdir(parents=True)
    (tmp_path / "shimd" / "a.py").write_text("a = 1\n")
    (directory / "_zygote").write_text("a program")
    return tmp_path / "shimd"


def test_a_release_is_its_files_and_their_place(package: Path, tmp_path: Path) -> None:
    first = release.installed(str(package))
    assert first == release.installed(str(package))
    assert first.startswith(f"{shimd.__version__}+")
    (package / "notes.txt").write_text("of no matter")
    assert release.installed(str(package)) == first
    seen = {first}
    for path in (package / "a.py", package / "zygote" / "_zygote"):
        path.write_text("something else")
        seen.add(release.installed(str(package)))
    (package / "more.py").touch()
    seen.add(release.installed(str(package)))
    shutil.copytree(package, tmp_path / "elsewhere", copy_function=shutil.copy2)
    seen.add(release.installed(str(tmp_path / "elsewhere")))
    assert len(seen) == 5


def test_it_is_in_no_environment() -> None:
    """Which guests may be able to read, and which who is started has from then on."""
    release.mark()
    assert not [name for name, value in os.environ.items() if release.own() in value]


def test_what_a_process_runs(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([program, "60"])
    try:
        assert runs(process.pid, program)
        program.unlink()
        program.write_bytes(Path("/bin/sleep").read_bytes() + b"!")
        assert not runs(process.pid, program)
        assert runs(process.pid, tmp_path / "missing")
    finally:
        process.kill()
        process.wait()


def test_one_that_changes_while_it_is_loaded_is_loaded_again(tmp_path: Path) -> None:
    """By the daemon, which else had half of the one and half of the other."""
    tree = tmp_path / "tree"
    source = Path(shimd.__file__).parent
    shutil.copytree(source, tree / "shimd")
    count = tmp_path / "count"
    with open(tree / "shimd" / "supervisor" / "serve.py", "a") as file:
        file.write(f"""

with open({str(count)!r}, "a+") as _count:
    _count.write("loaded\\n")
    _count.seek(0)
    if _count.read() == "loaded\\n":
        with open(paths.__file__, "a") as _changed:
            _changed.write("# of another release\\n")


def serve():  # noqa
    raise AlreadyExists(release.own())
""")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "SHIMD_RUNTIME_DIR": str(tmp_path / "run")}
    env |= {"SHIMD_STATE_DIR": str(tmp_path / "state"), "SHIMD_CACHE_DIR": str(tmp_path / "cache")}
    line = "import sys; sys.argv = ['shimd', 'serve']; from shimd.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", line], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert count.read_text() == "loaded\n" * 2
    assert release.installed(str(tree / "shimd")) in done.stderr, done.stderr
