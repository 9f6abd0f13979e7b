"""Human output, and values as people read them."""

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.text import Text

from shimd.api.shimd.status import v1 as api
from shimd.cli import ps, render, words
from shimd.cli.plain import plain


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "less than a second"),
        (0.4, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 8, "1 week"),
        (86400 * 400, "1 year"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (1 << 50, "1024.0 TiB")]
)
def test_sizes(count: int, said: str) -> None:
    assert words.size(count) == said


def test_control_characters_are_shown_not_obeyed() -> None:
    assert words.printable("a\x1b[2Jb\rc\n\x00") == "a\\x1b[2Jb\\rc\\n\\x00"
    assert words.printable("grün 👍") == "grün 👍"
    assert words.printable_lines("a\x1b\nb") == "a\\x1b\nb"


def shown(*rows: list[str | Text], terminal: bool = False) -> str:
    file = io.StringIO()
    out = Console(file=file, force_terminal=terminal, width=100_000, color_system="standard" if terminal else None)
    render.show(out, render.table(["ID", "STATUS"], rows))
    return file.getvalue()


def test_tables_are_aligned_and_not_cut_in_a_pipe() -> None:
    long = "x" * 500
    lines = shown(["a", "Up"], [long, Text("Exited", "dim")]).splitlines()
    column = len(long) + 2
    assert [line[:column].strip() for line in lines] == ["ID", "a", long]
    assert [line[column:].strip() for line in lines] == ["STATUS", "Up", "Exited"]


def test_no_markup_and_no_colours_in_a_pipe() -> None:
    assert "[red]x[/red]" in shown(["[red]x[/red]", Text("Up", "green")])
    assert "\x1b" not in shown(["a", Text("Up", "green")])


def test_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in shown(["a", Text("Up", "green")], terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown(["a", Text("Up", "green")], terminal=True)


def minutes_ago(count: int) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=count, seconds=1)


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (lambda: api.Process(state=api.State.CREATED, created_at=minutes_ago(2)), "Created 2 minutes ago"),
        (lambda: api.Process(state=api.State.RUNNING, started_at=minutes_ago(3)), "Up 3 minutes"),
        (lambda: api.Process(state=api.State.PAUSED, started_at=minutes_ago(1)), "Up 1 minute (paused)"),
        (
            lambda: api.Process(state=api.State.STOPPED, exit_status=0, exited_at=minutes_ago(5)),
            "Exited (0) 5 minutes ago",
        ),
    ],
)
def test_status_words(process: Callable[[], api.Process], words: str) -> None:
    """Made when the test runs: the collection may be long ago."""
    assert ps._status(process()).plain == words


def test_json_has_every_field_and_says_what_is_unknown() -> None:
    started = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
    task = api.Task(id="x", init=api.Process(state=api.State.STOPPED, pid=7, exit_status=0, started_at=started))
    found = plain(task)
    assert found["id"] == "x"
    assert found["usage"] is None
    assert found["execs"] == []
    assert found["init"]["state"] == "stopped"
    assert found["init"]["exit_status"] == 0
    assert found["init"]["started_at"] == "2026-01-02T03:04:05.600000Z"
    assert found["init"]["exited_at"] is None
    assert plain(api.Process(state=api.State.RUNNING))["exit_status"] is None
