import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest import splitting
from components.ingest.splitting import POSITION_COLUMN, SPLIT_COLUMN
from configs.data import Split
from configs.features import LABEL
from tests.components.ingest.conftest import data

EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 9), st.integers(0, 1), st.text(max_size=2)
    ),
    min_size=1,
    max_size=60,
)


def batch_of(events):
    users, items, times, labels, notes = zip(*events, strict=True)
    return pa.record_batch(
        {
            "user": pa.array(users),
            "item": pa.array(items),
            "time": pa.array(times, pa.int64()),
            LABEL: pa.array(labels, pa.float32()),
            "note": pa.array([n or None for n in notes], pa.string()),
            "genres": pa.array([list(n) or None for n in notes], pa.list_(pa.string())),
        }
    )


def split_of(batch):
    return [tuple(map(str, row.values())) for row in batch.to_pylist()]


def sizes_of(own):
    return [sum(split == s for split in own) for s in range(3)]


@given(EVENTS)
def test_user_time_gives_each_user_the_oldest_rows_for_training_and_the_newest_for_test(events):
    batch = splitting.assign_within_users(batch_of(events), data())
    for user in set(batch.column("user").to_pylist()):
        own = sorted((r["time"], r[SPLIT_COLUMN]) for r in batch.to_pylist() if r["user"] == user)
        parts = [[t for t, s in own if s == split] for split in range(3)]
        n = len(own)
        assert parts[0], "a user's first row is for training"
        if n >= 10:  # two rows a share: rounded the same way for every user
            assert len(parts[0]) == int(np.ceil(n * 0.6 - 1e-9))
            assert len(parts[0]) + len(parts[1]) == int(np.ceil(n * 0.8 - 1e-9))
        else:
            assert abs(len(parts[0]) - n * 0.6) < 1
            assert abs(len(parts[2]) - n * 0.2) < 1
        for earlier, later in ((0, 1), (1, 2), (0, 2)):
            assert not parts[earlier] or not parts[later] or max(parts[earlier]) <= min(parts[later])


@pytest.mark.parametrize("by", ["user_time", "user_share"])
@pytest.mark.parametrize("rows", [3, 7, 11])
def test_shares_hold_over_users_of_few_rows(by, rows):
    """Rounding would give eval 17 % and test 2 %."""
    events = [(f"u{user}", f"i{row}", row, 1, "") for user in range(3000) for row in range(rows)]
    meaning = data(split={"by": by, "eval": 0.1, "test": 0.1}, **({"time": None} if by == "user_share" else {}))
    split = splitting.assign_within_users(batch_of(events), meaning).column(SPLIT_COLUMN).to_numpy()
    assert np.allclose(np.bincount(split, minlength=3) / len(split), [0.8, 0.1, 0.1], atol=0.015)


@given(EVENTS, st.randoms(), st.sampled_from(["user_time", "leave_one_out", "user_share"]))
def test_splits_within_users_do_not_depend_on_the_order_of_rows(events, random, by):
    meaning = data(split={"by": by})
    shuffled = random.sample(events, len(events))
    one = splitting.assign_within_users(batch_of(events), meaning)
    other = splitting.assign_within_users(batch_of(shuffled), meaning)
    assert sorted(split_of(one)) == sorted(split_of(other))


@given(EVENTS)
def test_leave_one_out_takes_the_last_event_for_test_and_the_one_before_for_eval(events):
    batch = batch_of(events).append_column(POSITION_COLUMN, pa.array(np.arange(len(events))))
    found = splitting.assign_within_users(batch, data(split={"by": "leave_one_out"}, ties="file")).to_pylist()
    for user in {row["user"] for row in found}:
        own = sorted((r for r in found if r["user"] == user), key=lambda r: (r["time"], r[POSITION_COLUMN]))
        expected = {1: [0], 2: [0, 2]}.get(len(own), [0] * (len(own) - 2) + [1, 2])
        assert [row[SPLIT_COLUMN] for row in own] == expected


@given(EVENTS, st.integers(1, 3))
def test_at_least_so_many_rows_of_each_user_are_held_out(events, fewest):
    meaning = data(split={"by": "user_time", "eval": 0.1, "test": 0.3, "at_least": fewest})
    found = splitting.assign_within_users(batch_of(events), meaning).to_pylist()
    for user in {row["user"] for row in found}:
        own = [row[SPLIT_COLUMN] for row in sorted(found, key=lambda r: r["time"]) if row["user"] == user]
        evaluated, test = max(fewest, len(own) // 10), max(fewest, int(len(own) * 0.3 + 1e-9))
        if len(own) > evaluated + test:
            assert sizes_of(own)[1:] == [evaluated, test]
        else:
            assert sizes_of(own)[1:] == [0, test if len(own) > test else 0]


@given(EVENTS)
def test_a_random_share_keeps_all_rows_of_a_user_with_one_item_together(events):
    meaning = data(time=None, split={"by": "user_share", "eval": 0.3, "test": 0.3})
    found = splitting.assign_within_users(batch_of(events), meaning).to_pylist()
    splits = {}
    for row in found:
        splits.setdefault((row["user"], row["item"]), set()).add(row[SPLIT_COLUMN])
    assert all(len(of_pair) == 1 for of_pair in splits.values())


@given(st.lists(st.lists(st.integers(0, 50), max_size=20), min_size=1, max_size=6), st.randoms())
def test_time_cuts_meet_the_shares_as_nearly_as_ties_allow(batches, random):
    def cuts(parts):
        combine = splitting.TimeCounts()
        accumulators = [combine.add_input(combine.create_accumulator(), np.array(p, np.int64)) for p in parts]
        counts = combine.extract_output(combine.merge_accumulators(accumulators))
        return splitting.time_cuts(counts, Split(by="time", eval=0.2, test=0.2))

    first, second = cuts(batches)
    assert cuts(random.sample(batches, len(batches))) == (first, second), "the order of batches must not matter"
    assert first <= second
    times = np.array([t for b in batches for t in b])
    if len(times):
        largest_tie = np.unique(times, return_counts=True)[1].max() / len(times)
        assert (times < first).mean() - 0.6 < largest_tie
        assert abs((times < second).mean() - 0.8) <= largest_tie


def test_times_are_coarsened_where_there_are_too_many_and_the_same_way_in_any_order(monkeypatch):
    monkeypatch.setattr(splitting, "_MAX_TIMES", 8)
    times = [np.arange(i, 1000, 7) for i in range(7)]
    combine = splitting.TimeCounts()

    def extract(parts):
        accumulator = combine.create_accumulator()
        for part in parts:
            accumulator = combine.add_input(accumulator, part)
        return combine.extract_output(accumulator)

    one, other = extract(times), extract(times[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[1].sum() == 1000
    assert len(one[0]) <= 8


def test_hash_split_keeps_equal_values_together_and_meets_the_shares():
    users = np.array([f"u{i % 5000}" for i in range(10_000)])
    batch = pa.record_batch({"user": pa.array(users)})
    split = splitting.assign_by_hash(batch, ["user"], Split(by="hash", eval=0.1, test=0.2)).column(SPLIT_COLUMN)
    split = split.to_numpy()
    assert np.array_equal(split[:5000], split[5000:])
    shares = np.bincount(split) / len(split)
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.02)


def test_hashes_are_what_they_were():
    # Models, shards and splits made by earlier runs rely on these.
    assert splitting.stable_hash(pa.array(["a", "Zoë", "a"])).tolist() == [
        13950350942979735504,
        8751914635655007618,
        13950350942979735504,
    ]
    assert splitting.stable_hash(pa.array([["a", "b"], []], pa.list_(pa.string())))[0] == splitting.stable_hash(
        pa.array(["a\x1fb"])
    )


def test_hashes_do_not_depend_on_nulls_elsewhere_or_on_a_slice():
    whole = pa.array(["x", None, "y", "z"])
    assert splitting.stable_hash(whole)[2:].tolist() == splitting.stable_hash(whole.slice(2)).tolist()
