"""What a history holds: the user's newest earlier events, and nothing of the example's own second or later."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from components.ingest.history import AFTER, add_histories
from configs.features import LABEL, History
from tests.components.ingest.conftest import data

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", "w"]),  # user
        st.integers(0, 12),  # time: ties are common
        st.sampled_from([0.0, 1.0]),  # label
        st.none() | st.sampled_from(["Acme", "Ünal"]),  # brand
    ),
    min_size=1,
    max_size=40,
)
HISTORIES = st.builds(
    History,
    st.just("recent"),
    st.sampled_from(["item", "brand"]),
    st.integers(1, 6),
    st.sampled_from(["all", "positive", "negative"]),
    st.sampled_from([0, 1, 3]),
)


def with_history(events, history) -> list[dict]:
    """Each row with its `recent`; an item's name is unique, and sorts as its event's time."""
    batch = pa.RecordBatch.from_pydict(
        {
            "user": [e[0] for e in events],
            "time": pa.array([e[1] for e in events], pa.int64()),
            "item": [f"{e[1]:02d}-{i}" for i, e in enumerate(events)],
            LABEL: pa.array([e[2] for e in events], pa.float32()),
            "brand": pa.array([e[3] for e in events], pa.string()),
        }
    )
    return [row for part in add_histories(batch, data(), [history]) for row in part.to_pylist()]


@given(EVENTS, HISTORIES)
def test_a_history_is_the_newest_of_the_earlier_events(events, history):
    rows = with_history(events, history)
    assert sorted(row["item"] for row in rows) == sorted(f"{e[1]:02d}-{i}" for i, e in enumerate(events))
    for row in rows:
        counted = [
            other
            for other in rows
            if other["user"] == row["user"]
            and other[history.column] is not None
            and (history.events == "all" or (other[LABEL] > 0) == (history.events == "positive"))
        ]
        earlier = [o for o in counted if o["time"] < row["time"] and o["time"] + history.delay <= row["time"]]
        newest = max(other["time"] for other in rows if other["user"] == row["user"]) == row["time"]
        for name, expected in (("recent", earlier), (AFTER + "recent", counted if newest else [])):
            # Events of one second come in an order of their own; which of them are kept is tested below.
            times = sorted(other["time"] for other in expected)[-history.length :]
            assert len(row[name]) == len(times)
            if history.column == "item":
                assert [int(item[:2]) for item in row[name]] == times
                assert set(row[name]) <= {other["item"] for other in expected}
                assert len(set(row[name])) == len(row[name])


@given(EVENTS, HISTORIES, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(events, history, random):
    numbered = list(enumerate(events))
    random.shuffle(numbered)

    def found(order):
        batch = pa.RecordBatch.from_pydict(
            {
                "user": [e[0] for _, e in order],
                "time": pa.array([e[1] for _, e in order], pa.int64()),
                "item": [f"i{number}" for number, _ in order],
                LABEL: pa.array([e[2] for _, e in order], pa.float32()),
                "brand": pa.array([e[3] for _, e in order], pa.string()),
            }
        )
        return {r["item"]: r for part in add_histories(batch, data(), [history]) for r in part.to_pylist()}

    assert found(numbered) == found(list(enumerate(events)))


def test_times_far_apart_do_not_mix_users():
    """Years in seconds, thousands of users: keys of both must not overflow."""
    random = np.random.default_rng(1)
    events = [(f"u{random.integers(3000)}", int(t), 1.0, "Acme") for t in random.integers(-(2**33), 2**33, 5000)]
    batch = pa.RecordBatch.from_pydict(
        {
            "user": [e[0] for e in events],
            "time": pa.array([e[1] for e in events], pa.int64()),
            "item": [f"{user}|{time}" for user, time, *_ in events],
            LABEL: pa.array([e[2] for e in events], pa.float32()),
        }
    )
    (part,) = add_histories(batch, data(), [History("recent", "item", 50, "all", 0)])
    for row in part.to_pylist():
        assert all(i.startswith(row["user"] + "|") and int(i.split("|")[1]) < row["time"] for i in row["recent"])
        mine = [e for e in events if e[0] == row["user"] and e[1] < row["time"]]
        assert len(row["recent"]) == min(len(mine), 50)
