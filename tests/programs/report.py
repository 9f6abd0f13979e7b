"""``docs/programs.md``, from the outcomes of a run."""

from collections.abc import Iterator, Sequence

from tests.conformance.report import versions
from tests.programs.runner import Outcome
from tests.programs.suite import ENGINES, WITHOUT_LARGE, Program, programs

INTRODUCTION = """\
# Real programs

Made by `python -m tests.programs`, from the runs that it makes; not to be edited.

Programs that nobody here wrote, by name from PyPI, npm, crates, Go modules and Debian's sources.
The versions are those that are named.
Compilers, libraries and frameworks are given some lines of ours, which are `code` in `tests/programs/programs.toml`.
Each is an image that containerd runs with shimd's runtime, with a volume for its files.
What must come of its task is known by other means than shimd, which the last column names.
Those in **bold** are part of `make test`, on some engines; `make test-programs` runs all.
"""
LEGEND = """\
✓: the task is done, with the expected output and exit code.
refused: shimd says in a sentence, before the program starts, why it cannot run there (below).
✗: it does not do what it must.
–: not tried (below).
not run: not part of the run that made this table.
wasmedge runs in a root tree of Debian 13.
"wasmer" is the native binding (`native/wasmer`), "wasmer-sdk" the one from PyPI.
"""
#: What no registry has as a WASI program, and what was tried.
NOT_HAD = """\
## Not to be had

- Javy's compiler: npm's `javy-cli` 3.0.1 downloads it from elsewhere, and no crate is `javy-cli` or `javy-plugin`.
  The crates `javy` 8.1.0 and `javy-codegen` 4.0.0 are libraries, not programs; they were not built.
  What it compiles for is had, in a plugin (`javy` above), which compiles JavaScript when it runs.
- TinyGo: Debian 12 and 13 have no package of that name, and npm and PyPI list none.
  Its Go module, version 0.39.0, lacks the C libraries that are submodules of its repository, and refuses Go after 1.25.
- Lua 5.4.4 from Debian's sources: it needs `setjmp`, which Debian 12's wasi-libc does not have.
- jq and brotli from Debian's sources: `apt-get source` could not fetch all of their archives.
"""


def render(outcomes: Sequence[Outcome], before: str = "") -> str:
    """The document. Of programs that were not run it has what ``before``, an earlier one, says."""
    earlier = {_name(line): line for line in before.splitlines() if line.startswith("| ")}
    done = {(outcome.name, outcome.engine): outcome for outcome in outcomes}
    table = [
        f"| program | from | what it is | its task | {' | '.join(ENGINES)} | how that is known |",
        "|---" * (5 + len(ENGINES)) + "|",
        *(_row(program, done, earlier) for program in programs()),
    ]
    parts = [*table, "", *_refusals(outcomes, before), *_left_out(), "", NOT_HAD]
    return "\n".join([INTRODUCTION, LEGEND, versions(ENGINES), *parts])


def _name(row: str) -> str:
    return row.split(" | ")[0].strip("|* ")


def _row(program: Program, done: dict[tuple[str, str], Outcome], earlier: dict[str, str]) -> str:
    if program.name in earlier and not any(name == program.name for name, _engine in done):
        return earlier[program.name]
    name = f"**{program}**" if program.quick else str(program)
    marks = ["–" if engine in program.left_out else _mark(done.get((program.name, engine))) for engine in ENGINES]
    cells = [name, f"`{program.package}`", program.what, program.task, *marks, program.verified]
    return f"| {' | '.join(cells)} |"


def _mark(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not run"
    if outcome.failure:
        return "✗"
    return "refused" if outcome.engine in outcome.program.engines else "✓"


def _refusals(outcomes: Sequence[Outcome], before: str) -> Iterator[str]:
    """What the operator reads, as it was said."""
    yield "## Refused\n"
    run = {outcome.name for outcome in outcomes}
    said = (line for line in before.splitlines() if line.startswith("- ") and " on " in line and line.endswith("`"))
    yield from (line for line in said if line.split()[1] not in run)
    for outcome in outcomes:
        if _mark(outcome) == "refused":
            sentence = outcome.program.engines[outcome.engine]
            words = next(line for line in outcome.stderr.splitlines() if sentence in line)
            yield f"- {outcome.name} on {outcome.engine}: `{_sentence(words)}`"
    yield ""


def _sentence(line: str) -> str:
    """Without what ``ctr`` and containerd put before it, and no longer than it must be."""
    said = line.removeprefix("ctr: failed to create shim task: container ").partition(": ")[2]
    return said if len(said) <= 100 else f"{said[:100]} …"


def _left_out() -> Iterator[str]:
    yield "## Not tried\n"
    for engine, why in WITHOUT_LARGE.items():
        yield f"- {engine}: {why}."
