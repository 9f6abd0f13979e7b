"""``docs/programs.md``, from the outcomes of a run."""

from collections.abc import Iterable, Iterator, Sequence

from tests.conformance.report import versions
from tests.programs.runner import Outcome
from tests.programs.suite import ENGINES, WITHOUT_LARGE, Program, programs

INTRODUCTION = """\
# Real programs

Made by `python -m tests.programs`, from the run that it makes; not to be edited.

Programs that nobody here wrote, by name from PyPI, npm, crates and Go modules, in the versions that are named.
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


def render(outcomes: Sequence[Outcome]) -> str:
    """The document."""
    done = {(outcome.name, outcome.engine): outcome for outcome in outcomes}
    table = [
        f"| program | from | what it is | its task | {' | '.join(ENGINES)} | how that is known |",
        "|---" * (5 + len(ENGINES)) + "|",
        *(_row(program, done) for program in programs()),
    ]
    return "\n".join([INTRODUCTION, LEGEND, versions(ENGINES), *table, "", *_refusals(outcomes), *_left_out()]) + "\n"


def _row(program: Program, done: dict[tuple[str, str], Outcome]) -> str:
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


def _refusals(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """What the operator reads, as it was said."""
    yield "## Refused\n"
    for outcome in outcomes:
        if _mark(outcome) == "refused":
            sentence = outcome.program.engines[outcome.engine]
            said = next(line for line in outcome.stderr.splitlines() if sentence in line)
            yield f"- {outcome.name} on {outcome.engine}: `{_sentence(said)}`"
    yield ""


def _sentence(line: str) -> str:
    """Without what ``ctr`` and containerd put before it, and no longer than it must be."""
    said = line.removeprefix("ctr: failed to create shim task: container ").partition(": ")[2]
    return said if len(said) <= 100 else f"{said[:100]} …"


def _left_out() -> Iterator[str]:
    yield "## Not tried\n"
    for engine, why in WITHOUT_LARGE.items():
        yield f"- {engine}: {why}."
