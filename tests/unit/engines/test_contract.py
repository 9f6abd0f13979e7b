"""shimd's own engines, held to the contract that it holds others to."""

import subprocess
import sys

import pytest

from shimd.engines.base import InvalidModule
from shimd.testing.contract import *  # noqa: F403
from shimd.testing.contract import _of_modules
from shimd.testing.rig import Rig
from tests.wasmer import BINDINGS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:  # type: ignore[no-redef]
    if "engine_name" in metafunc.fixturenames:
        metafunc.parametrize("engine_name", sorted({*_of_modules(), *BINDINGS}), scope="session")


def test_text_that_is_none(rig: Rig) -> None:
    with pytest.raises(InvalidModule, match="not valid WebAssembly"):
        rig.precompile("(module (func")


def test_the_text_format_is_taken(rig: Rig) -> None:
    """Our engines do, though none has to."""
    text = '(module (memory (export "memory") 1) (func (export "_start")))'
    assert rig.run(text.encode()).code == 0


def test_the_fork_server_imports_little() -> None:
    """Each worker pays for what is imported before the fork, in pages and in at-fork hooks."""
    program = """
import sys
import shimd.worker.forkserver
heavy = {"importlib.metadata", "random", "threading", "logging", "anyio", "betterproto2"} & set(sys.modules)
assert not heavy, heavy"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
