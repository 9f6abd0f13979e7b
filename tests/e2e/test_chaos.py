"""Some of the chaos that ``make chaos`` has for hours (``tests/chaos``): nothing is lost, told twice, or left behind.

``SHIMD_TEST_CHAOS=20`` tries as many plans on each containerd.
"""

import os

import pytest

from tests.chaos.plan import draw
from tests.chaos.run import carry_out, chaos_containerd, judge
from tests.e2e.containerd import Version

SEEDS = range(1, 1 + int(os.environ.get("SHIMD_TEST_CHAOS", "1")))
#: Seconds; lives and strikes a second.
LENGTH, RATE, STRIKE_RATE = 10, 3, 1


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost(version: Version, seed: int) -> None:
    plan = draw(seed, LENGTH, RATE, STRIKE_RATE)
    with chaos_containerd(version) as containerd:
        findings = judge(plan, carry_out(plan, containerd))
        assert not findings, f"once more: {plan.replay(version.name)}\n{containerd.daemon_log()}"
