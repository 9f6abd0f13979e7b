"""Expressions of the cron trigger."""

import pytest

from shimd.apps.spin import cron


@pytest.mark.parametrize("expression", ["*/2 * * * * *", "1/2 * * * * *", "0 0 12 * * MON-FRI", "*/5 * * * *"])
def test_schedules(expression: str) -> None:
    cron.parse(expression)


@pytest.mark.parametrize("expression", ["", "x", "* * *", "99 * * * * *", "@daily"])
def test_what_is_none(expression: str) -> None:
    with pytest.raises(ValueError, match="is no cron expression"):
        cron.parse(expression)


def test_a_moment_that_never_comes() -> None:
    with pytest.raises(ValueError):
        cron.parse("0 0 0 30 2 *")
