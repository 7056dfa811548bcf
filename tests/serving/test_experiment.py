from __future__ import annotations

import math
import random

import pytest

from serving.experiment import Exposure, Feedback, Rate, SequentialTest, click_rates, likelihood_ratio


def test_wilson_interval_known_values():
    # Newcombe (1998), table of methods: 15 of 148 at 95 %: 0.0624 to 0.1605.
    low, high = Rate(15, 148).interval()
    assert (low, high) == (pytest.approx(0.0624, abs=5e-4), pytest.approx(0.1605, abs=5e-4))
    assert Rate(0, 10).interval()[0] == 0.0
    assert math.isnan(Rate(0, 0).value)


def p_value_after_daily_looks(seed: int, base: float, lift: float, days: int = 30, daily: int = 2000) -> float:
    dice = random.Random(seed)
    test, clicks = SequentialTest(), [0, 0]
    for day in range(1, days + 1):
        for arm, rate in enumerate((base, base + lift)):
            mean, deviation = daily * rate, math.sqrt(daily * rate * (1 - rate))
            clicks[arm] += max(0, round(dice.gauss(mean, deviation)))
        test.look(Rate(clicks[0], day * daily), Rate(clicks[1], day * daily))
    return test.p_value


def test_looking_daily_rarely_finds_what_is_not_there():
    found = sum(p_value_after_daily_looks(seed, 0.05, 0.0) < 0.05 for seed in range(400))
    assert found / 400 <= 0.05


def test_a_real_difference_is_found():
    found = sum(p_value_after_daily_looks(seed, 0.05, 0.01) < 0.05 for seed in range(100))
    assert found / 100 >= 0.9


def test_no_data_is_no_evidence():
    assert likelihood_ratio(Rate(0, 0), Rate(5, 10)) == 1.0
    assert likelihood_ratio(Rate(0, 10), Rate(0, 10)) == 1.0


def test_clicks_count_once_for_the_latest_showing_in_time():
    exposures = [
        Exposure(0, "u", "a", "stable"),
        Exposure(100, "u", "a", "canary"),
        Exposure(100, "u", "b", "canary"),
        Exposure(100, "v", "a", "stable"),
    ]
    feedback = [
        Feedback(150, "u", "a"),  # the second showing's
        Feedback(160, "u", "a"),  # the same click again
        Feedback(50, "v", "a"),  # before it was shown
        Feedback(99_999, "u", "b"),  # too late
        Feedback(150, "w", "a"),  # nobody was shown that
    ]
    assert click_rates(exposures, feedback) == {"stable": Rate(0, 2), "canary": Rate(1, 2)}
