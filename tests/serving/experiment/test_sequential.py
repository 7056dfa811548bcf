from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.experiment.sequential import (
    BoundedMeanTest,
    interval_half_width,
    log_e_value_below,
    p_value,
    sample_ratio_e_value,
)


@given(z=st.floats(-6, 6), variance=st.floats(1e-8, 1e2), scale=st.floats(1e-4, 10))
def test_evidence_is_the_mixture_of_likelihood_ratios_below_zero(z, variance, scale):
    difference = z * math.sqrt(variance)
    below = -np.abs(np.linspace(0, 8, 20_001)) * scale
    density = 2 * np.exp(-0.5 * (below / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
    ratios = np.exp(below * difference / variance - below**2 / (2 * variance))
    # Where the likelihood is narrower than the grid, the sum says nothing.
    if math.sqrt(variance) > 0.01 * scale:
        expected = np.trapezoid(density * ratios, -below)
        assert log_e_value_below(difference, variance, scale) == pytest.approx(math.log(expected), abs=0.01)


def test_what_is_ahead_or_unknown_is_no_evidence():
    assert log_e_value_below(0.01, 1e-6, 0.02) < 0
    assert log_e_value_below(10.0, 1e-6, 0.02) == -math.inf
    assert log_e_value_below(-0.01, 0.0, 0.02) == 0.0
    assert p_value(-5) == 1.0
    assert p_value(math.log(200)) == pytest.approx(0.005)
    assert interval_half_width(0.0, 0.02) == math.inf


def ever_below(seed: int, looks: int, effect: float) -> tuple[bool, bool]:
    """Whether a mean of normals is ever found below 0 at 5 %, and whether its interval is ever wrong."""
    values = np.random.default_rng(seed).normal(effect, 1.0, looks)
    means = np.cumsum(values) / np.arange(1, looks + 1)
    found = missed = False
    for count, mean in enumerate(means.tolist(), 1):
        found |= log_e_value_below(mean, 1 / count, 0.1) > math.log(20)
        missed |= abs(mean - effect) > interval_half_width(1 / count, 0.1)
    return found, missed


def test_looking_at_every_value_keeps_the_level_and_finds_what_is_there():
    false = [ever_below(seed, 2000, 0.0) for seed in range(200)]
    assert sum(found for found, _ in false) / 200 <= 0.05
    assert sum(missed for _, missed in false) / 200 <= 0.05
    assert all(ever_below(seed, 2000, -0.15)[0] for seed in range(20))


def test_a_bounded_mean_is_tested_exactly_and_a_late_flood_is_found():
    def alarmed(seed: int, rates: list[float]) -> int | None:
        dice, test = random.Random(seed), BoundedMeanTest(0.01, len(rates))
        for hour, rate in enumerate(rates):
            test.restart()
            for _ in range(500):
                test.add(float(dice.random() < rate))
                if test.e_value >= 20:
                    return hour
        return None

    assert sum(alarmed(seed, [0.01] * 20) is not None for seed in range(100)) / 100 <= 0.05
    assert all(alarmed(seed, [0.0] * 19 + [0.1]) == 19 for seed in range(20))


def test_a_bounded_mean_test_has_only_so_many_bets():
    test = BoundedMeanTest(0.01, 2)
    for _ in range(10):
        test.restart()
    assert test.e_value == pytest.approx(1.0)


def test_users_who_fall_otherwise_than_drawn_are_seen():
    rng = np.random.default_rng(1)
    fair = 0
    for _ in range(200):
        arms = rng.random(5000) < 0.05
        fair += any(
            sample_ratio_e_value([(int(arms[:n].sum()), n - int(arms[:n].sum()), 0.05)]) >= 20
            for n in range(50, 5000, 50)
        )
    assert fair / 200 <= 0.05
    assert sample_ratio_e_value([(400, 9600, 0.05)]) > 1000
    assert sample_ratio_e_value([(0, 10, 0.0), (10, 0, 1.0), (0, 0, 0.5)]) == 1.0
