from __future__ import annotations

import pytest

from configs.serving import Rollback
from serving.release_state import CANARY, STABLE
from serving.router.account import Account


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def answer(account, arm, user, seconds=0.005, scores=(0.5,), size=300, shadow=False):
    asker = account.asker(user, size, 50.0)
    account.answered(arm, asker, seconds, lambda: scores, shadow=shadow)


def fail(account, user):
    account.failed(CANARY, account.asker(user, 300, 50.0))


def test_failures_of_many_users_are_evidence_and_those_of_one_are_not():
    account = Account(Rollback())
    for number in range(200):
        answer(account, CANARY, f"user {number}")
    for _ in range(5000):
        fail(account, "loud")
    assert account.arms()[CANARY].errors == 5000
    assert account.evidence().errors == 1.0
    for number in range(200, 240):
        fail(account, f"user {number}")
    assert account.evidence().errors < 1e-5


def test_failures_within_the_limit_are_no_evidence():
    account = Account(Rollback(max_error_rate=0.05))
    for number in range(5000):
        (fail(account, f"u{number}") if number % 50 == 0 else answer(account, CANARY, f"u{number}"))
    assert account.evidence().errors > 0.01
    assert Account(Rollback(max_error_rate=1.0)).evidence().errors == 1.0


def test_failures_after_good_days_are_found():
    clock = Clock()
    account = Account(Rollback(), clock)
    for hour in range(24 * 15):
        clock.now = hour * 3600.0
        for number in range(10):
            answer(account, CANARY, f"user {number}")
    for number in range(100, 130):
        fail(account, f"user {number}")
    assert account.evidence().errors < 1e-3


def test_requests_without_a_user_count_once_a_second():
    clock = Clock()
    account = Account(Rollback(), clock)
    counts = []
    for number in range(100):
        clock.now = number / 10
        counts.append(account.asker(None, 300, 0.0).counts)
    assert sum(counts) == 10


def test_one_users_slow_requests_are_no_evidence():
    clock = Clock()
    account = Account(Rollback(), clock)
    for number in range(2000):
        clock.now = number
        answer(account, STABLE, f"s{number}")
        answer(account, CANARY, f"c{number}" if number % 2 else "loud", 0.005 if number % 2 else 10.0)
    assert account.arms()[CANARY].p99_ms > 1000
    assert account.evidence().p99 == 1.0
    slow = Account(Rollback(), clock)
    start = clock.now
    for number in range(2000):
        clock.now = start + number
        answer(slow, STABLE, f"s{number}")
        answer(slow, CANARY, f"c{number}", 0.05)
    assert slow.evidence().p99 < 1e-3


def test_what_was_waited_for_in_vain_is_slow():
    clock = Clock()
    account = Account(Rollback(), clock)
    for number in range(2000):
        clock.now = number
        answer(account, STABLE, f"s{number}")
        account.late(CANARY, account.asker(f"c{number}", 300, 50.0), 0.5)
    assert account.evidence().p99 < 1e-3


@pytest.mark.parametrize(("mean", "found"), [(0.5, False), (0.55, False), (0.9, True), (0.1, True)])
def test_scores_that_moved_too_far_are_evidence(mean, found):
    account = Account(Rollback(max_score_shift=0.1, min_requests=100))
    for number in range(400):
        noise = (number % 7 - 3) / 50
        answer(account, STABLE, f"s{number}", scores=[0.5 + noise] * 3)
        answer(account, CANARY, f"c{number}", scores=[mean + noise, float("nan")])
    for _ in range(2000):
        answer(account, CANARY, "loud", scores=[0.0])
    assert (account.evidence().score_shift < 1e-3) == found


def test_scores_are_compared_for_shadow_copies_too():
    account = Account(Rollback(max_score_shift=0.1, min_requests=100))
    for number in range(400):
        asker = account.asker(f"u{number}", 300, 0.0)
        account.answered(STABLE, asker, 0.01, lambda: [0.5])
        account.answered(CANARY, asker, 0.01, lambda: [0.9], shadow=True)
    assert account.evidence().score_shift < 1e-3
    assert account.arms()[CANARY].shadows == 400
    assert Account(Rollback()).evidence().score_shift is None


def test_the_report_has_the_arms_distributions():
    account = Account(Rollback())
    answer(account, CANARY, "a", 0.002, [0.1, 0.3])
    arm = account.arms()[CANARY]
    assert (arm.requests, arm.score_mean, arm.p50_ms) == (1, pytest.approx(0.2), pytest.approx(2.0))
    assert account.arms()[STABLE].p99_ms is None
