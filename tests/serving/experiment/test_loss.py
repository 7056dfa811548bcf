"""The guard's test of clicks in the world it meets: users who differ, weekdays, a share that grows, hourly looks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.canary import clicks_rolled_back
from serving.experiment.loss import LossTest, Rate
from serving.release_state import CANARY, STABLE


def rolled_back(seeds: int, loss: float) -> list[float | None]:
    return [clicks_rolled_back(seed, users=600, daily=10, loss=loss, looks_a_day=4) for seed in range(100, 100 + seeds)]


@pytest.mark.slow
def test_equal_canaries_stay_and_losing_ones_go():
    assert sum(day is not None for day in rolled_back(24, 0.0)) <= 1
    assert sum(day is not None for day in rolled_back(5, 0.6)) == 5


def test_a_canary_that_was_ahead_and_is_level_stays():
    """Ahead by far in the first days, level since: two-sided evidence never forgot that."""
    test, rng = LossTest(), np.random.default_rng(3)
    for shown, rates in ((10, {CANARY: 0.6, STABLE: 0.4}), (20, {CANARY: 0.3, STABLE: 0.405})):
        for number in range(2000):
            arm = CANARY if number % 2 else STABLE
            place = test.table.place(str(number), 0.5)
            test.table.add(place, arm, rng.binomial(shown, rates[arm]), shown)
        assert test.look().p_value > 0.01
    assert test.look().difference < 0  # today's sign


def test_what_is_seen_once_is_kept_and_goes_on_after_a_restart():
    test = LossTest(p_value_so_far=0.004)
    assert test.look() is None
    for number in range(300):
        arm = CANARY if number % 2 else STABLE
        test.table.add(test.table.place(str(number), 0.5), arm, number % 7 == 0, 1)
    assert test.look().p_value == 0.004


def test_arms_whose_users_are_not_those_drawn_are_not_compared():
    test = LossTest()
    for number in range(3000):
        arm = CANARY if number % 10 == 0 else STABLE  # drawn were 50 %
        test.table.add(test.table.place(str(number), 0.5), arm, 0 if arm == CANARY else number % 3 == 0, 1)
    loss = test.look()
    assert not loss.comparable
    assert loss.p_value == 1.0


def test_wilson_interval_known_values():
    # Newcombe (1998), table of methods: 15 of 148 at 95 %: 0.0624 to 0.1605.
    low, high = Rate(15, 148).interval()
    assert (low, high) == (pytest.approx(0.0624, abs=5e-4), pytest.approx(0.1605, abs=5e-4))
    assert Rate(0, 10).interval()[0] == 0.0
    assert math.isnan(Rate(0, 0).value)
    few, many = Rate(15, 148, effective=50.0).interval(), Rate(15, 148).interval()
    assert few[1] - few[0] > 1.5 * (many[1] - many[0])
