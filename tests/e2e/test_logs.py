"""Log URIs: where output goes when no client is there to read it.

(https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md, "Logging")
"""

from pathlib import Path

import pytest

from tests.e2e.box import Box, content, until, wasm_only

LOGGER = """\
#!/usr/bin/python3
import os, sys
def copy(fd, to):
    with open(fd, "rb") as source, open(to, "wb") as target:
        while data := source.read1():
            target.write(data)
            target.flush()
target = sys.argv[1] if sys.argv[1] != "to" else sys.argv[2]
with open(target + ".who", "w") as who:
    who.write(os.environ["CONTAINER_NAMESPACE"] + " " + os.environ["CONTAINER_ID"])
child = os.fork()
os.close(5)
copy(*((3, target + ".out") if child else (4, target + ".err")))
if child:
    os.waitpid(child, 0)
"""


@pytest.fixture
def logger(tmp_path: Path) -> Path:
    path = tmp_path / "logger"
    path.write_text(LOGGER)
    path.chmod(0o755)
    return path


# The apps go on after they have written: the runc shim of containerd 2.4 at times loses what a process wrote just
# before its end.


def test_file_takes_both_streams(box: Box) -> None:
    path = box.containerd.directory / f"{box.namespace}.log"
    path.write_text("before\n")
    box.run("app", "both", "out", "err", flags=("-d", "--log-uri", f"file://{path}"))
    # Two streams, one file: runc's shim and wasmer copy them apart, piece by piece, in no order between them.
    until(lambda: sorted(content(path)) == sorted("before\nout\nerr\n"), "both streams in the file")
    assert content(path).startswith("before\n")


@wasm_only
def test_last_words_are_in_the_file(box: Box) -> None:
    for number in range(10):
        output = box.detach(f"app{number}", "error", "last words")
        box.wait_status(f"app{number}", "STOPPED")
        assert content(output) == "last words\n"


def test_program(box: Box, logger: Path, tmp_path: Path) -> None:
    uri = f"binary://{logger}?to={tmp_path}/log"
    box.run("app", "both", "out", "err", flags=("-d", "--log-uri", uri))
    until(lambda: content(tmp_path / "log.out") == "out\n", "stdout in the logger's file")
    until(lambda: content(tmp_path / "log.err") == "err\n", "stderr in the logger's other file")
    assert content(tmp_path / "log.who") == f"{box.namespace} app"


def test_program_that_is_missing(box: Box, tmp_path: Path) -> None:
    done = box.run("app", "hello", flags=("-d", "--log-uri", f"binary://{tmp_path}/nothing"))
    assert done.code != 0
    assert "nothing" in done.err
    box.remove("app")
    assert not box.leftovers()


@wasm_only
def test_program_that_hears_nothing(box: Box, tmp_path: Path) -> None:
    """A trap has its code also where nobody can be told of it."""
    program = tmp_path / "deaf"
    program.write_text("#!/bin/sh\nexec 3<&- 4<&- 5>&-\nexec sleep 1\n")
    program.chmod(0o755)
    box.run("app", "abort", flags=("-d", "--log-uri", f"binary://{program}"))
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 134


def test_program_ends_with_the_app(box: Box, logger: Path, tmp_path: Path) -> None:
    box.run("app", "tick", flags=("-d", "--log-uri", f"binary://{logger}?to={tmp_path}/log"))
    until(lambda: "tick 5" in content(tmp_path / "log.out"), "ticks")
    box.kill("app")
    box.wait_status("app", "STOPPED")
    box.delete("app")
    until(lambda: not loggers(logger), "the logger to end")


def loggers(program: Path) -> list[str]:
    lines = [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for line in lines:
        try:
            found.append(line.read_text())
        except OSError:
            continue
    return [line for line in found if str(program) in line]


def test_exec_into_a_file(box: Box) -> None:
    path = box.containerd.directory / f"{box.namespace}.log"
    box.detach("app", "sleep", 600)
    done = box.exec("app", "e", "both", "from exec", "", flags=("-d", "--log-uri", f"file://{path}"))
    assert done.code == 0
    until(lambda: sorted(content(path)) == sorted("from exec\n\n"), "output in the file")
