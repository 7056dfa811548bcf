from __future__ import annotations

import math

import numpy as np

from serving.experiment.latency import LatencyTest
from serving.release_state import CANARY, STABLE

ALARM = math.log(1e5)


def largest_evidence(
    seed: int, *, factor: float = 1.0, ratio: float = 2.0, rate: float = 4.0, share: float = 0.3, stalls: float = 18
):
    """The largest evidence of an hour with rare stalls that hit either arm by itself, looked at every minute."""
    random, now = np.random.default_rng(seed), [0.0]
    test = LatencyTest(ratio, lambda: now[0])
    events = []
    for arm, part in ((CANARY, share), (STABLE, 1 - share)):
        at = random.random(random.poisson(3600 * rate * part)) * 3600
        took = random.lognormal(math.log(0.005), 0.4, len(at)) * (factor if arm == CANARY else 1)
        for start in random.random(random.poisson(stalls)) * 3600:
            length = random.exponential(2.0)
            stalled = (at > start) & (at < start + length)
            took[stalled] += start + length - at[stalled]
        events += [(time, arm, seconds) for time, seconds in zip(at.tolist(), took.tolist(), strict=True)]
    largest, look = -math.inf, 60.0
    for time, arm, seconds in sorted(events):
        while time > look:
            now[0] = look
            largest, look = max(largest, test.log_e_value()), look + 60
        now[0] = time
        test.add(arm, seconds, 300)
    return largest


def test_rare_stalls_are_no_evidence_and_a_slow_canary_is():
    assert max(largest_evidence(seed) for seed in range(12)) < ALARM
    assert max(largest_evidence(seed, ratio=1.0) for seed in range(6)) < ALARM
    assert all(largest_evidence(seed, factor=4.0, stalls=6) > ALARM for seed in range(4))


def filled(blocks: int, *, slow_blocks: int, size: int = 300, slow_size: int | None = None) -> float:
    now = [0.0]
    test = LatencyTest(2.0, lambda: now[0])
    for block in range(blocks):
        now[0] = block * 10.0
        for number in range(40):
            test.add(STABLE, 0.005 + number * 1e-5, size)
            slow = block < slow_blocks
            test.add(CANARY, 1.0 if slow else 0.005 + number * 1e-5, slow_size if slow and slow_size else size)
    return test.log_e_value()


def test_a_few_slow_blocks_do_not_suffice_however_slow():
    assert filled(60, slow_blocks=10) < ALARM
    assert filled(60, slow_blocks=40) > ALARM


def test_requests_of_a_size_that_the_stable_version_has_not_had_say_nothing():
    assert filled(60, slow_blocks=60, slow_size=1 << 20) <= 0


def test_every_hour_begins_anew():
    now = [0.0]
    test = LatencyTest(2.0, lambda: now[0])
    for block in range(100):
        now[0] = block * 10.0
        for _ in range(20):
            test.add(STABLE, 0.005)
            test.add(CANARY, 1.0)
    assert test.log_e_value() > ALARM
    now[0] = 3601.0
    test.add(STABLE, 0.005)
    assert test.log_e_value() == 0.0
    test.add(STABLE, 1e9)  # off the scale
    test.add(CANARY, 0.0)
