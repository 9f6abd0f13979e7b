"""``docs/conformance.md``, from the outcomes of a run."""

import subprocess
from collections.abc import Iterable, Iterator, Sequence

from tests.conformance.guests import toolchain
from tests.conformance.runner import Outcome
from tests.conformance.suite import ENGINES, Known, known_failures, titles
from tests.e2e import trixie

INTRODUCTION = """\
# WASI conformance

Made by `python -m tests.conformance`, from the run that it makes; not to be edited.

The tests are those of [wasi-testsuite](https://github.com/WebAssembly/wasi-testsuite) (at commit e1f53e0) for preview 1
and WASI 0.3, re-created; it has none for WASI 0.2. For each of its AssemblyScript, C and Rust sources for preview 1
there is one of ours in C, of the same name, that checks the same behaviour (`tests/conformance/guests`), for those of
WASI 0.3 one in Rust (`tests/components/rust/conformance`); nothing is copied. Each runs by `shimd run`, in a worker
like a container's. Tests with a directory get it as `/`, read-write. "wasmtime" is the native host (`native/wasmtime`)
if there is a column "wasmtime-py", which is the package from PyPI then; the native host alone has WASI 0.3. "wasmer" is
the native binding (`native/wasmer`), "wasmer-sdk" the one from PyPI, which has no host directories, so that its guests
see a copy in memory. wasmedge runs in a root tree of Debian 13.
"""
ONCE_MORE = """\
One group is the Rust tests of preview 1 that have a directory once more, on wasmer-sdk alone: they find the directory
as C programs do, by way of wasi-libc. That says more of what an app meets there than the group of all of them, in which
nearly all fail at their first step. The native binding gives both the same directory.
"""
#: Whether it passed.
MARKS = {True: "✓", False: "✗"}


def unexpected(outcomes: Iterable[Outcome]) -> list[str]:
    """What does not go as ``expected.toml`` says, a sentence each."""
    found = []
    for outcome in outcomes:
        name, known = f"{outcome.case} on {outcome.engine}", _known(outcome)
        if outcome.failure and not known:
            found.append(f"{name} fails: {outcome.failure}")
        elif known and not outcome.guest_says:
            found.append(f"{name} is expected to fail, and does not, or otherwise: {outcome}")
    return found


def render(outcomes: Sequence[Outcome]) -> str:
    """The document."""
    about = f"{versions(ENGINES).rstrip()} Guests: {toolchain()}.\n"
    parts = [INTRODUCTION, about, _totals(outcomes), ONCE_MORE]
    for engine in ENGINES:
        parts.append("\n".join(_failures(engine, [outcome for outcome in outcomes if outcome.engine == engine])))
    for group in titles():
        parts.append("\n".join(_tests(group, [outcome for outcome in outcomes if outcome.case.group == group])))
    return "\n".join(parts)


def versions(engines: Iterable[str]) -> str:
    """A sentence about the engines."""
    said = ", ".join(f"{engine} {_version(engine)}" for engine in engines)
    return f"Engines: {said} (of PyPI packages, wasmedge's of Debian's libwasmedge0).\n"


def _version(engine: str) -> str:
    program = f"from shimd.engines.registry import engine_version; print(engine_version({engine!r}))"
    command = [*(trixie.where(engine) or []), str(trixie.PROGRAMS / "python"), "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split("-")[0]


def _totals(outcomes: Sequence[Outcome]) -> str:
    lines = [
        f"| tests | number | {' | '.join(f'{engine} passes' for engine in ENGINES)} |",
        "|---" * (2 + len(ENGINES)) + "|",
    ]
    everywhere = [outcome for outcome in outcomes if len(outcome.case.engines) == len(ENGINES)]
    last = everywhere[-1].case.group if everywhere else None
    for group, title in titles().items():
        lines.append(_total(title, [outcome for outcome in outcomes if outcome.case.group == group]))
        if group == last:
            lines.append(_total("**all of preview 1**", everywhere))
    return "\n".join(lines) + "\n"


def _total(title: str, outcomes: Sequence[Outcome]) -> str:
    cells = []
    for engine in ENGINES:
        own = [outcome.failure is None for outcome in outcomes if outcome.engine == engine]
        cells.append(str(sum(own)) if own else "–")
    return f"| {title} | {len({str(outcome.case) for outcome in outcomes})} | {' | '.join(cells)} |"


def _failures(engine: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """By reason, in the order of ``expected.toml``."""
    yield f"## What fails on {engine}\n"
    failed = [outcome for outcome in outcomes if outcome.failure]
    if not failed:
        yield "Nothing.\n"
    for known in [*dict.fromkeys(known_failures(engine).values()), None]:
        own = [outcome for outcome in failed if _known(outcome) == known]
        if own:
            yield f"**{known.reason}** ({known.where})\n" if known else "**Not explained yet:**\n"
            for failure in dict.fromkeys(outcome.failure for outcome in own):
                names = ", ".join(str(outcome.case) for outcome in own if outcome.failure == failure)
                yield f"- `{failure}`: {names}"
            yield ""


def _tests(group: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    engines = [engine for engine in ENGINES if any(outcome.engine == engine for outcome in outcomes)]
    yield f"## {titles()[group]}\n"
    yield f"| test | what must hold | {' | '.join(engines)} |"
    yield "|---|---|" + "---|" * len(engines)
    for case in dict.fromkeys(str(outcome.case) for outcome in outcomes):
        own = {outcome.engine: outcome for outcome in outcomes if str(outcome.case) == case}
        first = own[engines[0]].case
        marks = " | ".join(MARKS[own[engine].failure is None] for engine in engines)
        yield f"| {first.name} | {first.about} | {marks} |"
    yield ""


def _known(outcome: Outcome) -> Known | None:
    return known_failures(outcome.engine).get(str(outcome.case))
