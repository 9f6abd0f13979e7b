"""The pytest plugin (entry point ``pytest11``): the option, the fixtures, and the contract as what is collected."""

from pathlib import Path

import pytest

_CONTRACT = Path(__file__).with_name("contract.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("shimd", "engines for shimd")
    group.addoption("--shimd-engine", metavar="NAME", help="hold this engine, which is installed, to shimd's contract")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Run the contract if the command line names an engine and no paths."""
    if config.getoption("--shimd-engine") and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(_CONTRACT)]
