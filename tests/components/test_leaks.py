import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components import leaks

random = np.random.default_rng(5)
USERS = random.integers(0, 40, 2000)
LABELS = (random.random(2000) < 0.3).astype(np.float64)


def test_a_number_above_its_users_own_median_is_found_within_users_alone():
    plays = random.geometric(0.02, 2000) * 10.0 ** (USERS % 4)
    medians = np.array([np.median(plays[user == USERS]) for user in range(40)])
    leak = leaks.measure(plays, (plays > medians[USERS]).astype(float), USERS)
    assert leak.alone < 0.9 < 0.99 < leak.within_user
    assert leak.suspicious


def test_order_does_not_matter_and_missing_values_may_tell_too():
    assert leaks.measure(-LABELS, LABELS, USERS).worst == 1.0
    assert leaks.measure(np.where(LABELS > 0, np.nan, 3.0), LABELS, USERS).worst > 0.99
    assert leaks.measure(np.abs(LABELS - 0.5 + random.integers(0, 2, 2000)), LABELS, USERS) is not None


def test_a_middle_range_of_numbers_is_found_too():
    values = np.where(LABELS > 0, 5.0, random.choice([1.0, 9.0], 2000))
    assert leaks.measure(values, LABELS, USERS).worst > 0.99


def test_texts_that_are_there_once_tell_nothing():
    assert leaks.measure(np.arange(2000), LABELS, USERS).worst < 0.6
    assert leaks.measure(np.where(LABELS > 0, 1, 0), LABELS, USERS).worst > 0.99


def test_a_dozen_positives_could_do_it_by_chance():
    assert leaks.measure(np.arange(2000.0), np.arange(2000) < 12, USERS) is None


@given(st.integers(0, 2**32 - 1))
def test_noise_is_no_leak(seed):
    noise = np.random.default_rng(seed)
    leak = leaks.measure(noise.random(500), (noise.random(500) < 0.5).astype(float), noise.integers(0, 20, 500))
    assert not leak.suspicious
