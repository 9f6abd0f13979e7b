"""Words that others read: Docker derives the exit codes 127 and 126 from them, and what they are is shown by runc."""

from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.box import RUNTIMES, Box

IMAGE = "test.invalid/words:1"
#: It looks into the working directory itself, as the user.
NOT_WASMER = [runtime for runtime in RUNTIMES if runtime.name != "wasmer"]
NOT_THERE = [
    ("/nope.wasm", "no such file or directory"),
    ("nope.wasm", "executable file not found in $PATH"),
    ("/etc", "is a directory"),
]


@pytest.mark.parametrize(("program", "words"), NOT_THERE)
def test_a_program_that_is_not_there(box: Box, program: str, words: str) -> None:
    name = box.runtime.image
    done = box.ctr("run", "--rm", "--runtime", box.runtime.type, name, "app", program, check=False)
    assert done.code != 0
    assert said(box, words, done.err)
    box.detach("other", "sleep", 600)
    done = box.ctr("tasks", "exec", "--exec-id", "e", "other", program, check=False)
    assert done.code != 0
    assert said(box, words, done.err)


def said(box: Box, words: str, err: str) -> bool:
    """Before 1.2, runc denies the permission to execute a directory."""
    return words in err or (box.runtime.native and words == "is a directory" and "permission denied" in err)


@pytest.fixture
def private(box: Box, programs: tuple[bytes, bytes], tmp_path: Path) -> Box:
    """An image whose programs only root may have, by their mode or their directory's."""
    native, wasm = programs
    files = dict.fromkeys(("/app", "/mine", "/private/app"), native if box.runtime.native else wasm)
    contents = images.layer(files, ["private"], modes={"/mine": 0o700, "private": 0o700})
    images.save(tmp_path / "private.tar", [images.image(IMAGE, [contents], {"User": "1000:1000"})])
    box.containerd.import_image(tmp_path / "private.tar", box.namespace)
    return box


@pytest.mark.parametrize("program", ["/mine", "/private/app"])
def test_a_program_that_is_not_for_its_user(private: Box, program: str) -> None:
    """Unless it keeps the capability of root's that overrides modes."""
    flags = ("--rm", "--runtime", private.runtime.type)
    assert private.ctr("run", *flags, IMAGE, "app", program).out == "hello from app\n"
    done = private.ctr("run", *flags, "--cap-drop", "CAP_DAC_OVERRIDE", IMAGE, "app", program, check=False)
    assert done.code != 0
    assert "permission denied" in done.err


@pytest.mark.parametrize("runtime", NOT_WASMER, ids=lambda runtime: runtime.name, indirect=True)
def test_its_working_directory_may_be_roots_own(private: Box) -> None:
    """It is there before it is somebody else; a file is no directory."""
    flags = ("--rm", "--runtime", private.runtime.type, "--cap-drop", "CAP_DAC_OVERRIDE", "--cwd")
    done = private.ctr("run", *flags, "/private", IMAGE, "app", "/app", check=False)
    assert (done.code, done.out) == (0, "hello from app\n"), done.err
    done = private.ctr("run", *flags, "/app", IMAGE, "app", "/app", check=False)
    assert done.code != 0
    assert "not a directory" in done.err
