"""How well models rank all items: trained as `recsys compare` trains them, asked through what they export."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.contest import Data, Entry, fit, training_task
from components.evaluator.ranking.metrics import Popularity, ranking_metrics
from configs import Config

KS = (10, 100)
SHOWN = ("ndcg@10", "recall@10", "recall@100")
_USERS_AT_ONCE = 256


@dataclass(frozen=True)
class Held:
    """A split's users, with the past that a request has, and what each of them met in it."""

    users: list[bytes]
    pasts: list[list[bytes]]  # what lies before the user's first event of the split
    items: list[list[bytes]]


@dataclass(frozen=True)
class Splits:
    """What the pipeline's splits hold, by user."""

    train: dict[bytes, list[bytes]]
    eval: Held
    test: Held

    @classmethod
    def of(cls, config: Config, data: Data) -> Splits:
        """Read them."""
        train: dict[bytes, list[bytes]] = {}
        for user, item, _ in _rows(config, f"{data.examples}/Split-train"):
            train.setdefault(user, []).append(item)
        return cls(train, *(_held(config, f"{data.examples}/Split-{split}") for split in ("eval", "test")))


def _rows(config: Config, folder: str) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
    text = tf.io.FixedLenFeature([], tf.string)
    spec = {config.data.user: text, config.data.item: text, "past": tf.io.RaggedFeature(tf.string)}
    for batch in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(f"{folder}/*.gz")), "GZIP").batch(8192):
        rows = tf.io.parse_example(batch, spec)
        users, items = rows[config.data.user].numpy(), rows[config.data.item].numpy()
        yield from zip(users, items, rows["past"].to_list(), strict=True)


def _held(config: Config, folder: str) -> Held:
    found: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for user, item, past in _rows(config, folder):
        shortest, items = found.get(user, (past, []))
        found[user] = min(shortest, past, key=len), [*items, item]
    users = sorted(found)
    return Held(users, [found[u][0] for u in users], [found[u][1] for u in users])


def full_ranking(config: Config, model: str, held: Held, pasts: list[list[bytes]]) -> np.ndarray:
    """Return all items, best first, for each user, [users, items], from an exported model."""
    retrieve = tf.saved_model.load(model).signatures["retrieve"]
    length = max(map(len, pasts))
    items = []
    for start in range(0, len(held.users), _USERS_AT_ONCE):
        some = slice(start, start + _USERS_AT_ONCE)
        past = [p + [b""] * (length - len(p)) for p in pasts[some]]
        found = retrieve(**{config.data.user: tf.constant(held.users[some]), "past": tf.constant(past)})
        items.append(found["items"].numpy())
    return np.concatenate(items)


def judged(lists: np.ndarray, held: Held, seen: dict[bytes, set[bytes]], train: dict[bytes, list[bytes]]) -> dict:
    """Return the metrics of full rankings [users, items] with the items that a user has seen left out."""
    names, counts = np.unique(np.concatenate([np.array(items) for items in train.values()]), return_counts=True)
    places = {name: place for place, name in enumerate(names.tolist())}
    kept = np.full((len(held.users), max(KS)), -1)
    for row, user in enumerate(held.users):
        unseen = [places[i] for i in lists[row].tolist() if i in places and i not in seen.get(user, ())]
        kept[row, : len(unseen)] = unseen[: max(KS)]
    users = np.repeat(np.arange(len(held.users)), [len(items) for items in held.items])
    items = np.array([places.get(item, -1) for of_user in held.items for item in of_user])
    return ranking_metrics(users, items, kept, KS, Popularity.of(counts))


def measure(config: Config, entry: Entry, seed: int, data: Data, splits: Splits, keep: Path | None) -> dict[str, dict]:
    """Train once and return metrics by split; `test` as requests know the past, `test of train` with train's alone.

    With `keep`, predictions for the test split are written there: users, items and scores [users, items].
    """
    known = {user: set(items) for user, items in splits.train.items()}
    until_test = {u: known.get(u, set()) | set(i) for u, i in zip(splits.eval.users, splits.eval.items, strict=True)}
    until_test = known | until_test
    before_eval = dict(zip(splits.eval.users, splits.eval.pasts, strict=True))
    old = [before_eval.get(u, p) for u, p in zip(splits.test.users, splits.test.pasts, strict=True)]
    model = entry.model.model_copy(update={"top_k": 1 << 20})
    with tempfile.TemporaryDirectory() as folder:
        history = fit(training_task(config, model, entry.training, seed), data, folder)
        found: dict[str, dict] = {"history": history}
        for name, held, pasts, seen in (
            ("eval", splits.eval, splits.eval.pasts, known),
            ("test", splits.test, splits.test.pasts, until_test),
            ("test of train", splits.test, old, until_test),
        ):
            lists = full_ranking(config, f"{folder}/model", held, pasts)
            found[name] = judged(lists, held, seen, splits.train)
            if keep:
                write_predictions(keep / f"{config.name}-{entry.name}-{seed}-{name.replace(' ', '-')}.npz", held, lists)
    return found


def write_predictions(path: Path, held: Held, lists: np.ndarray) -> None:
    """Write users, items and scores [users, items] as text and numbers."""
    items = np.unique(lists)
    table = np.full((len(held.users), len(items)), -1e30, np.float64)
    at = np.searchsorted(items, lists)
    # Places and not scores, some of which are equal as probabilities: what ranks is the order.
    np.put_along_axis(table, at, -np.broadcast_to(np.arange(lists.shape[1], dtype=np.float64), lists.shape), axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, users=np.array(held.users).astype(str), items=items.astype(str), scores=table)


def mean(runs: list[dict[str, dict]], split: str, metric: str) -> float:
    """Return the mean over seeds."""
    return statistics.fmean(run[split][metric] for run in runs)
