"""What is held out, and the lists that models recommend, against counting row by row."""

import numpy as np
import pytest

from components.evaluator.ranking.held_out import hashed, hold_out
from components.evaluator.ranking.judge import rank
from components.evaluator.ranking.metrics import ranking_metrics
from components.evaluator.ranking.ranked import Ranked, metrics_of
from configs.gates import Ranking
from configs.retrieval import Retrieval
from tests.components.evaluator.ranking import logs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranking")
    by_split = logs.rows()
    return by_split, logs.write(folder, by_split), {s: logs.save_model(folder / s, s) for s in ("a", "b")}


def held(made, most_users=1000, earlier=("train", "eval")):
    by_split, files, _ = made
    items = logs.catalogue(by_split)
    return hold_out(files["test"], [f for s in earlier for f in files[s]], logs.COLUMNS, items.ids, most_users), items


def test_every_positive_of_the_split_is_held_out_once_and_what_came_before_is_known(made):
    found, items = held(made)
    by_split, *_ = made
    names = {h: u for u, *_ in by_split["test"] for h in hashed(np.array([u]))}
    users = [names[h] for h in found.users]
    assert set(users) == {u for u, _, _, label in by_split["test"] if label}
    for place, user in enumerate(users):
        pairs = found.pair_users == place
        positives = {i for u, i, _, label in by_split["test"] if u == user and label}
        assert len(found.pair_items[pairs]) == len(positives)
        assert {items.ids[i] for i in found.pair_items[pairs] if i >= 0} == positives & set(items.ids)
        known = {i for s in ("train", "eval") for u, i, *_ in by_split[s] if u == user}
        mine = items.ids[found.known[found.starts[place] : found.starts[place + 1]]]
        assert sorted(mine) == sorted(known & set(items.ids))
        first = min(t for u, _, t, label in by_split["test"] if u == user and label)
        assert [r.decode() for r in found.requests["recent"][place] if r] == logs.recent_of(user, first)
        assert found.requests["user"][place].decode() == user


def test_of_many_users_the_same_ones_are_taken_in_every_run(made):
    every, _ = held(made)
    some, _ = held(made, most_users=7)
    np.testing.assert_array_equal(some.users, np.sort(every.users)[:7])
    assert set(some.pair_users) == set(range(7))
    assert len(some.requests["user"]) == 7


@pytest.mark.parametrize("mask", [True, False])
def test_lists_and_metrics_are_those_of_scoring_all_items_one_by_one(made, mask):
    by_split, files, models = made
    items = logs.catalogue(by_split)
    ranked = rank(
        models, files["test"], [*files["train"], *files["eval"]], logs.COLUMNS, items,
        Ranking(k=[5, 20], mask_known=mask), Retrieval(),
    )  # fmt: skip
    for model in models:
        slow = logs.slow_lists(by_split, model, 20, mask)
        users = sorted(slow, key=lambda u: hashed(np.array([u]))[0])
        at = {name: place for place, name in enumerate(items.ids)}
        expected = np.full((len(users), 20), -1)
        for row, user in zip(expected, users, strict=True):
            row[: len(slow[user])] = [at[i] for i in slow[user]]
        np.testing.assert_array_equal(ranked.lists[ranked.models.index(model)], expected)
        pairs = sorted({(users.index(u), at.get(i, -1), i) for u, i, _, label in by_split["test"] if label})
        counted = ranking_metrics(
            np.array([u for u, *_ in pairs]), np.array([i for _, i, _ in pairs]), expected, [5, 20], ranked.popularity
        )
        found = ranked.metrics(model)
        assert {name: found[name] for name in counted} == pytest.approx(counted)
        assert 0 < found["ndcg@5"] < 1


def test_it_is_the_same_when_it_was_written_and_read(made, tmp_path):
    by_split, files, models = made
    ranked = rank(
        models, files["test"], files["train"], logs.COLUMNS, logs.catalogue(by_split), Ranking(k=[5]), Retrieval()
    )
    ranked.save(str(tmp_path / "ranked.npz"))
    again = Ranked.load(str(tmp_path / "ranked.npz"))
    assert again.metrics("b") == ranked.metrics("b")
    events = [(u, i) for u, i, _, label in by_split["test"] if label and u == "u3"]
    chosen = again.pairs(*(hashed(np.array(column)) for column in zip(*events, strict=True)))
    assert len(chosen) == len(set(events))
    assert set(ranked.pair_users[chosen]) == {int(np.searchsorted(ranked.users, hashed(np.array(["u3"]))[0]))}
    assert metrics_of(again, 0, chosen)["ranked_users"] == 1


def test_what_stages_lose_is_told_by_user():
    """Two users: the served list of one is the whole ranking, that of the other shares one item and misses the hit."""
    lists = np.array([[[0, 1], [4, 3]]])
    whole = np.array([[0, 1], [2, 3]])
    ranked = Ranked(
        (2,), ("candidate",), np.array([1, 2], np.uint64), np.array([0, 1]), np.array([0, 2]),
        np.array([7, 8], np.uint64), lists, np.ones(5, np.int64), {"whole": whole, "exact": whole, "index": lists[0]},
    )  # fmt: skip
    found = ranked.metrics("candidate")
    assert found["overlap@2"] == found["index_recall@2"] == pytest.approx((1 + 0.5) / 2)
    assert found["ndcg_loss@2"] == pytest.approx((0 + 1) / 2)
    only_the_second = metrics_of(ranked, 0, np.array([1]))
    assert only_the_second["ndcg_loss@2"] == pytest.approx(1)
