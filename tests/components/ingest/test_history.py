"""What a history holds: the user's newest earlier events, and nothing of the example's own second or later."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from components.ingest.history import AFTER, add_histories
from components.ingest.splitting import POSITION_COLUMN, SPLIT_COLUMN
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
            SPLIT_COLUMN: pa.array([0] * len(events), pa.int8()),
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
                SPLIT_COLUMN: pa.array([0] * len(order), pa.int8()),
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
            SPLIT_COLUMN: pa.array([0] * len(events), pa.int8()),
        }
    )
    (part,) = add_histories(batch, data(), [History("recent", "item", 50, "all", 0)])
    for row in part.to_pylist():
        assert all(i.startswith(row["user"] + "|") and int(i.split("|")[1]) < row["time"] for i in row["recent"])
        mine = [e for e in events if e[0] == row["user"] and e[1] < row["time"]]
        assert len(row["recent"]) == min(len(mine), 50)


@given(EVENTS, HISTORIES, st.data())
def test_a_row_knows_no_event_of_a_later_split(events, history, draws):
    splits = draws.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    batch = pa.RecordBatch.from_pydict(
        {
            "user": [e[0] for e in events],
            "time": pa.array([e[1] for e in events], pa.int64()),
            "item": [f"{e[1]:02d}-{i}" for i, e in enumerate(events)],
            LABEL: pa.array([e[2] for e in events], pa.float32()),
            "brand": [f"{split}" for split in splits],
            SPLIT_COLUMN: pa.array(splits, pa.int8()),
        }
    )
    rows = [row for part in add_histories(batch, data(), [history]) for row in part.to_pylist()]
    of_item = {row["item"]: row for row in rows}
    for row in rows:
        known = [
            o
            for o in rows
            if o["user"] == row["user"]
            and o["time"] <= row["time"] - max(history.delay, 1)
            and o[SPLIT_COLUMN] <= row[SPLIT_COLUMN]
            and (history.events == "all" or (o[LABEL] > 0) == (history.events == "positive"))
        ]
        assert len(row["recent"]) == min(len(known), history.length)
        if history.column == "item":
            assert all(of_item[item] in known for item in row["recent"])
            assert [of_item[i]["time"] for i in row["recent"]] == sorted(o["time"] for o in known)[-history.length :]
        elif row["recent"]:
            assert max(map(int, row["recent"])) <= row[SPLIT_COLUMN]


def test_the_order_of_the_file_tells_events_of_one_second_apart_where_the_config_says_so():
    batch = pa.RecordBatch.from_pydict(
        {
            "user": ["u"] * 4,
            "time": pa.array([5, 5, 5, 4], pa.int64()),
            "item": ["c", "b", "d", "a"],
            LABEL: pa.array([1.0] * 4, pa.float32()),
            SPLIT_COLUMN: pa.array([0, 0, 1, 0], pa.int8()),
            POSITION_COLUMN: pa.array([2, 1, 3, 4]),
        }
    )
    history = History("recent", "item", 9, "all", 0)
    (part,) = add_histories(batch, data(ties="file"), [history])
    assert {row["item"]: row["recent"] for row in part.to_pylist()} == {
        "a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "b", "c"]
    }  # fmt: skip
    (part,) = add_histories(batch, data(), [history])
    assert {row["item"]: row["recent"] for row in part.to_pylist()} == {"a": [], "b": ["a"], "c": ["a"], "d": ["a"]}
