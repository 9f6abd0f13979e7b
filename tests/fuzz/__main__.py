"""Fuzzing with coverage guidance, for as long as is asked: ``make fuzz``.

Every test of this directory that hypothesis gives all of its arguments is a target. atheris finds the bytes from which
hypothesis makes them, by what they have the code do; what is worth keeping is kept for the next time.
"""

import argparse
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Inputs that have led to something new, a directory a target.
CORPUS = HERE.parents[1] / ".cache/fuzz"


def targets() -> dict[str, Callable[[bytes], object]]:
    """By ``MODULE.TEST``."""
    found: dict[str, Callable[[bytes], object]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for name, test in vars(importlib.import_module(f"tests.fuzz.{path.stem}")).items():
            if name.startswith("test_") and _is_target(test):
                found[f"{path.stem}.{name}"] = test.hypothesis.fuzz_one_input
    return found


def _is_target(test: Any) -> bool:
    """Whether hypothesis runs it, and pytest need give it nothing."""
    if not hasattr(test, "hypothesis") or inspect.signature(test).parameters:
        return False
    return not inspect.iscoroutinefunction(test.hypothesis.inner_test)


def fuzz(name: str, seconds: int) -> None:
    """Never returns: atheris ends the process, with what it found in a file."""
    import atheris

    with atheris.instrument_imports(include=["shimd"]):
        target = targets()[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={CORPUS / name}.", "-print_final_stats=1"]
    atheris.Setup([name, *flags, str(corpus)], target)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="else all, one after the other")
    parser.add_argument("--seconds", type=int, default=60, help="for each")
    options = parser.parse_args()
    if options.target:
        fuzz(options.target, options.seconds)
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(options.seconds)]
    failed = [name for name in targets() if subprocess.run([*command, name], check=False).returncode]
    print("failed:", *failed) if failed else print("nothing was found")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
