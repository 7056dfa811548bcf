from __future__ import annotations

import numpy as np
import pytest

from serving.experiment.clustered import UserTable, stratified_difference
from serving.release_state import CANARY, STABLE


def table_of(rows, most=1000.0, users=1000):
    table = UserTable(most, users)
    for user, share, arm, clicks, shown in rows:
        table.add(table.place(user, share), arm, clicks, shown)
    return table


def test_arms_are_compared_within_a_share_and_not_across():
    """The canary has the good days: pooled, it would win by far; at each share both arms are alike."""
    rows = []
    for number in range(400):
        rows.append((f"early {number}", 0.05, CANARY if number < 20 else STABLE, 2, 10))
        rows.append((f"late {number}", 0.5, CANARY if number < 200 else STABLE, 6, 10))
    table = table_of(rows)
    totals = table.totals()
    assert totals[CANARY][0] / totals[CANARY][1] > totals[STABLE][0] / totals[STABLE][1] + 0.1
    assert table.difference().value == pytest.approx(0.0)
    assert table.users() == [(20, 380, 0.05), (200, 200, 0.5)]


def test_the_variance_is_that_of_users_and_not_of_rows():
    rng = np.random.default_rng(0)
    differences, stated = [], []
    for _ in range(300):
        rates, shown = rng.beta(1, 19, 400), rng.zipf(2.0, 400).clip(max=200)
        arms, clicks = rng.random(400) < 0.3, rng.binomial(shown, rates)
        users = enumerate(zip(arms, clicks, shown, strict=True))
        table = table_of([(str(u), 0.3, CANARY if arm else STABLE, c, s) for u, (arm, c, s) in users])
        found = table.difference()
        differences.append(found.value)
        stated.append(found.variance)
    assert np.mean(stated) >= 0.95 * np.var(differences)
    assert np.mean(stated) <= 2.0 * np.var(differences)


def test_one_user_cannot_decide():
    rows = [(f"user {n}", 0.5, CANARY if n % 2 else STABLE, int(n % 20 < 2), 1) for n in range(400)]
    fair = table_of(rows, most=30).difference()
    loud = table_of([*rows, ("loud", 0.5, CANARY, 0, 100_000)], most=30).difference()
    assert abs(loud.value - fair.value) < 0.02
    assert abs(loud.value) < 2 * loud.variance**0.5


def test_memory_is_bounded():
    table = UserTable(10, 5)
    for number in range(20):
        place = table.place(str(number), 0.5)
        assert (place is None) == (number >= 5)
    for share in range(40):
        table.place("0", share / 100)
    assert table.left_out == 15 + 40 - UserTable.STRATA + 1
    assert table.place("0", 0.5) == (0, 0)


def test_a_stratum_of_one_arm_says_nothing():
    assert table_of([("a", 0.5, CANARY, 1, 2)]).difference() is None
    assert table_of([("a", 1.0, CANARY, 1, 2), ("b", 1.0, STABLE, 1, 2)]).difference() is None
    empty = np.zeros((0, 2))
    assert stratified_difference((empty, empty), (empty, empty)) is None
