"""Events in order, from rows with a past, and the rows that sequence models train on."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.features import WEIGHT
from models.topn.interactions import Interactions, in_order, interactions
from models.topn.rows import TrainingRows, next_events, packing, padded_events, users_of, whole_events, windows_of
from tests.models.topn.data import FEATURES, ITEMS, LENGTH, known
from transforms.transformed import PADDING

HISTORIES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=25), min_size=1, max_size=6)


def rows_of(histories, length):
    users, items, pasts = [], [], []
    for user, events in enumerate(histories):
        for at, item in enumerate(events):
            past = events[max(at - length, 0) : at]
            users.append(user)
            items.append(item)
            pasts.append(past + [PADDING] * (length - len(past)))
    return np.array(users), np.array(items), np.array(pasts)


@given(HISTORIES, st.integers(2, 30), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_events_come_out_in_their_order_whatever_the_order_of_rows(histories, length, random):
    rows = list(range(sum(map(len, histories))))
    random.shuffle(rows)
    sequences, owners = in_order(*(column[rows] for column in rows_of(histories, length)))
    for user, events in enumerate(histories):
        mine = [s.tolist() for s, owner in zip(sequences, owners, strict=True) if owner == user]
        if len(events) <= length:
            assert mine == [events]
        else:  # windows of it, in which every item is
            assert set(events) == {item for window in mine for item in window}
            for window in mine:
                assert any(events[at : at + len(window)] == window for at in range(len(events)))


def test_events_of_one_second_follow_what_both_have_seen():
    users, items = np.array([1, 1, 1]), np.array([5, 6, 7])
    pasts = np.array([[PADDING] * 4, [5, *[PADDING] * 3], [5, *[PADDING] * 3]])
    sequences, _ = in_order(users, items, pasts)
    assert sequences[0][0] == 5
    assert sorted(sequences[0][1:].tolist()) == [6, 7]


def test_only_positives_of_known_items_count():
    batch = {
        "user": np.array([1, 1, 2, 2]),
        "item": np.array([3, 4, 0, ITEMS + 1]),
        "past": np.full((4, LENGTH), PADDING),
    }
    found = interactions([(batch, np.array([1.0, 0.0, 1.0, 1.0]))], FEATURES, "past")
    assert (found.users.tolist(), found.items.tolist()) == ([1], [2])
    assert [s.tolist() for s in found.sequences] == [[2]]
    with pytest.raises(ValueError, match="needs a positive event"):
        interactions([(batch, np.zeros(4))], FEATURES)
    weighted = batch | {WEIGHT: np.array([7.0, 1.0, 1.0, 1.0])}
    assert interactions([(weighted, np.array([1.0, 0.0, 1.0, 1.0]))], FEATURES).weights.tolist() == [7.0]
    assert found.weights.tolist() == [1.0]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_packing_takes_each_piece_once_and_fits(sizes, seed):
    rows = packing(sizes, 20, seed)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in row) <= 20 for row in rows)
    assert len(rows) <= 2 * -(-sum(sizes) // 20)


@given(HISTORIES, st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_each_event_but_a_users_first_is_a_target_once(histories, length):
    sequences = [np.array(h) for h in histories]
    owners = np.arange(len(sequences))
    users = np.repeat(owners, [len(s) for s in sequences])
    events = Interactions(users, np.concatenate(sequences), np.ones(len(users)), len(owners), 31, sequences, owners)
    pairs = sorted((u, a, b) for u, s in enumerate(histories) for a, b in pairwise(s))
    if not pairs:
        with pytest.raises(ValueError, match="needs a user with two events"):
            next_events(events, length)
        return
    for rows in (next_events(events, length), padded_events(events, length)):
        at = rows["targets"] >= 0
        found = zip(rows["user"][at].tolist(), rows["inputs"][at].tolist(), rows["targets"][at].tolist(), strict=True)
        assert sorted(found) == pairs
    rows = next_events(events, length)
    for segments, places in zip(rows["segment"], rows["place"], strict=True):
        for segment in set(segments.tolist()) - {0}:
            inside = places[segments == segment]
            assert inside.tolist() == list(range(length - len(inside), length))
    assert (whole_events(events, length)["inputs"] >= 0).sum() >= len(pairs)


def test_windows_end_with_the_newest_event():
    events = Interactions(np.zeros(10, int), np.arange(10), np.ones(10), 1, 10, [np.arange(10)], np.array([0]))
    windows, _ = windows_of(events, 4)
    assert [w.tolist() for w in windows] == [[6, 7, 8, 9], [3, 4, 5, 6], [0, 1, 2, 3]]


def test_a_row_a_user_holds_what_it_met():
    events = known()
    rows = users_of(events)["past"]
    assert [sorted(r[r >= 0].tolist()) for r in rows] == [sorted(s.tolist()) for s in events.sequences]


def test_batches_go_on_in_the_middle_as_they_would_have_gone():
    rows = TrainingRows({"user": np.arange(10)})
    whole = [b["user"].numpy().tolist() for b, _ in rows.batches(3, rows.steps(3), epochs=3, seed=5)]
    rest = [b["user"].numpy().tolist() for b, _ in rows.batches(3, rows.steps(3), epochs=3, seed=5, first=6)]
    assert rest == whole[6:]
    assert sorted(chain(*whole[:4])) == sorted(chain(*whole[4:8])) == list(range(10))
    assert whole[:4] != whole[4:8]
