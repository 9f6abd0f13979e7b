from tests.chaos import plan as plans
from tests.chaos.plan import ACTS, LONG, PARTS, SERVERS, chosen, draw


def test_the_same_seed_is_the_same_plan() -> None:
    assert draw(7, 60) == draw(7, 60)
    assert draw(7, 60) != draw(8, 60)
    assert "\n".join(draw(7, 60).lines()) == "\n".join(draw(7, 60).lines())


def test_fewer_strikes_leave_the_lives_as_they_are() -> None:
    few, many = draw(7, 60, 3, 1), draw(7, 60, 3, 9)
    assert few.lives == many.lives
    assert len(many.strikes) > len(few.strikes)


def test_a_part_of_a_plan_is_as_it_is_in_the_whole() -> None:
    whole = draw(7, 60)
    part = whole.only({3, 5}, {2})
    assert part.lives == (whole.lives[2], whole.lives[4])
    assert part.strikes == (whole.strikes[1],)
    assert whole.only(None, None) == whole


def test_numbers_are_chosen_by_spans() -> None:
    assert chosen("") is None
    assert chosen("none") == set()
    assert chosen("3,7-9") == {3, 7, 8, 9}


def test_everything_happens_to_everybody() -> None:
    plan = draw(1, 3600)
    assert {life.engine for life in plan.lives} == set(plans.ENGINES)
    assert {(strike.part, strike.act) for strike in plan.strikes} == {(it, act) for it in PARTS for act in ACTS[it]}
    kinds = {step.do for life in plan.lives for step in life.steps}
    assert kinds == {"exec", "pause", "update", "state", "metrics", "pids", "resize", "write", "close", "get", "stall"}
    assert {life.app.kind for life in plan.lives} == {"run", "talk", "sum", "abort", "serve"}
    assert {life.terminal for life in plan.lives} == {True, False}


def test_every_life_has_an_end() -> None:
    for life in draw(2, 3600).lives:
        assert life.end or life.app.seconds < LONG
        assert life.end == 15 or life.engine not in SERVERS
