"""What every model recommended to every user, kept beside TFMA's results, and TFMA's metric that reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator.ranking.held_out import HeldOut, hashed, place_in
from components.evaluator.ranking.metrics import (
    COUNTS,
    Popularity,
    by_user,
    coverage,
    mean_and_error,
    names,
    of_lists,
    overlap,
    ranks_in,
)

RANKED_FILE = "ranked.npz"
WHOLE, EXACT = "whole", "exact"  # lists of the candidate's ranker over all items, and of its retrieval without lists
INDEX = "index"  # those of its retrieval as it is served

Gathered = tuple[np.ndarray, np.ndarray]  # hashed users and items of held-out events, [events]


@dataclass(frozen=True)
class Ranked:
    """Lists by model, [models, users, k], over the held-out pairs of `HeldOut`.

    `others` are further lists of the candidate, of the first users: see WHOLE, EXACT and INDEX.
    """

    ks: tuple[int, ...]
    models: tuple[str, ...]
    users: np.ndarray
    pair_users: np.ndarray
    pair_items: np.ndarray
    pair_hashes: np.ndarray
    lists: np.ndarray
    counts: np.ndarray  # training events of each item
    others: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        ks: Sequence[int],
        held_out: HeldOut,
        lists: Mapping[str, np.ndarray],
        counts: np.ndarray,
        others: Mapping[str, np.ndarray] | None = None,
    ) -> Ranked:
        """Put lists by model beside what they are held to."""
        of_users = (held_out.users, held_out.pair_users, held_out.pair_items, held_out.pair_hashes)
        return cls(tuple(sorted(ks)), tuple(lists), *of_users, np.stack([*lists.values()]), counts, others or {})

    def save(self, path: str) -> None:
        """Write it as arrays."""
        others = {f"others.{name}": lists for name, lists in self.others.items()}
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "others"}
        np.savez(path, allow_pickle=False, **arrays, **others)

    @classmethod
    def load(cls, path: str) -> Ranked:
        """Read it again."""
        with np.load(path, allow_pickle=False) as held:
            found = {name: held[name] for name in held.files}
        others = {n.removeprefix("others."): found.pop(n) for n in [*found] if n.startswith("others.")}
        ks, models = (tuple(found.pop(name).tolist()) for name in ("ks", "models"))
        return cls(ks=ks, models=models, others=others, **found)

    @cached_property
    def popularity(self) -> Popularity:
        """What training has met."""
        return Popularity.of(self.counts)

    @cached_property
    def ranks(self) -> list[np.ndarray]:
        """Places of the held-out pairs by model."""
        return [ranks_in(lists, self.pair_users, self.pair_items) for lists in self.lists]

    def pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return which pairs are among events of hashed `users` and `items`, each once, in order."""
        codes = np.unique(self.pair_hashes)
        user, code = place_in(users, self.users), place_in(items, codes)
        asked = (user * len(codes) + code)[(user >= 0) & (code >= 0)]
        own = self.pair_users * len(codes) + place_in(self.pair_hashes, codes)
        return np.flatnonzero(np.isin(own, asked))

    def values(self, model: int, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metrics that are means over users, of the `chosen` pairs: [users that have one of them]."""
        users, number = np.unique(self.pair_users[chosen], return_inverse=True)
        lists = self.lists[model][users]
        found = by_user(number, self.ranks[model][chosen], self.ks) | of_lists(lists, self.ks[0], self.popularity)
        return found | (self._of_stages(chosen) if model == 0 else {})

    def _of_stages(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """What is lost against the ranker over all items, and the inverted lists' recall; NaN for users not asked."""
        k = self.ks[0]
        users, number = np.unique(self.pair_users[chosen], return_inverse=True)
        found = {}

        def compared(values: np.ndarray, asked: np.ndarray) -> np.ndarray:
            held = np.full(len(users), np.nan)
            held[asked] = values
            return held

        if WHOLE in self.others:
            whole = self.others[WHOLE]
            asked = users < len(whole)
            found[f"overlap@{k}"] = compared(overlap(self.lists[0][users[asked]], whole[users[asked]], k), asked)
            ranks = ranks_in(whole, self.pair_users[chosen], self.pair_items[chosen])
            gap = by_user(number, ranks, [k])[f"ndcg@{k}"] - by_user(number, self.ranks[0][chosen], [k])[f"ndcg@{k}"]
            found[f"ndcg_loss@{k}"] = compared(gap[asked], asked)
        if EXACT in self.others:
            exact, served = self.others[EXACT], self.others[INDEX]
            asked = users < len(exact)
            found[f"index_recall@{k}"] = compared(overlap(served[users[asked]], exact[users[asked]], k), asked)
        return found

    def names(self, model: int) -> list[str]:
        """Return every metric that a model has; what compares stages is the candidate's alone."""
        k = self.ks[0]
        stages = [f"overlap@{k}", f"ndcg_loss@{k}"] if WHOLE in self.others else []
        stages += [f"index_recall@{k}"] if EXACT in self.others else []
        return [*names(self.ks), *(stages if model == 0 else []), *COUNTS]

    def covered(self, model: int, chosen: np.ndarray) -> float:
        """Return the coverage of the lists of the chosen pairs' users."""
        return coverage(self.lists[model][np.unique(self.pair_users[chosen])], self.ks[0], len(self.counts))

    def metrics(self, model: str) -> dict[str, float]:
        """Return all metrics of a model over all pairs."""
        index, every = self.models.index(model), np.arange(len(self.pair_users))
        return {name: float(_unsampled(v)) for name, v in metrics_of(self, index, every).items()}


def compared_names(ks: Sequence[int]) -> list[str]:
    """Return the metrics whose differences between models are given: all but coverage."""
    return [name for name in names(ks) if not name.startswith("coverage")]


def metrics_of(ranked: Ranked, model: int, chosen: np.ndarray) -> dict[str, float | types.ValueWithTDistribution]:
    """Return every metric of a model on the chosen pairs, means with their intervals over users."""
    values = ranked.values(model, chosen)
    found: dict[str, Any] = {name: with_interval(v) for name, v in values.items()}
    found[f"coverage@{ranked.ks[0]}"] = ranked.covered(model, chosen)
    items = ranked.pair_items[chosen]
    found |= {
        "ranked_users": float(len(np.unique(ranked.pair_users[chosen]))),
        "held_out": float(len(chosen)),
        "reachable": float(np.mean(items >= 0)) if len(items) else float("nan"),
    }
    return {name: found[name] for name in ranked.names(model)}


def with_interval(values: np.ndarray) -> float | types.ValueWithTDistribution:
    """Return the mean over users with what TFMA makes a 95 % interval of; alone for one user."""
    mean, error, count = mean_and_error(values)
    return mean if count < 2 else types.ValueWithTDistribution(mean, error, count - 1, mean)


def _unsampled(value: float | types.ValueWithTDistribution) -> float:
    return value.unsampled_value if isinstance(value, types.ValueWithTDistribution) else value


class RankingMetrics(metric_types.Metric):
    """The metrics of `Ranked.names` on each slice of the held-out events, from lists that were made before.

    A slice is its events: users have the held-out items that are in it, and their whole lists. Every other model also
    gets the first model's difference from it, user by user, as TFMA names differences: `ndcg@10_diff`.
    """

    def __init__(self, path: str, user: str, item: str, name: str = "ranking_metrics"):
        """`path` is that of `Ranked`; `user` and `item` are the columns of their ids."""
        super().__init__(_computations, name=name, path=path, user=user, item=item)
        self.item = item


metric_types.register_metric(RankingMetrics)


def _computations(
    path: str,
    user: str,
    item: str,
    name: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: list[str] | None = None,
    example_weighted: bool = False,
) -> metric_types.MetricComputations:
    gather = _Gather(path, user, item, model_names or [""], example_weighted)
    return [
        metric_types.MetricComputation(
            keys=gather.keys,
            preprocessors=[metric_types.FeaturePreprocessor(feature_keys=[user, item])],
            combiner=gather,
        )
    ]


class _Gather(beam.CombineFn):
    """Gathers which held-out events a slice has."""

    def __init__(self, path: str, user: str, item: str, models: Sequence[str], example_weighted: bool):
        self._path, self._user, self._item = path, user, item
        self._models, self._weighted = models, example_weighted
        ranked = Ranked.load(path)
        self.keys = [self._key(m, name) for place, m in enumerate(models) for name in ranked.names(place)] + [
            self._key(m, name, is_diff=True) for m in models[1:] for name in compared_names(ranked.ks)
        ]

    def _key(self, model: str, metric: str, is_diff: bool = False) -> metric_types.MetricKey:
        return metric_types.MetricKey(name=metric, model_name=model, example_weighted=self._weighted, is_diff=is_diff)

    def create_accumulator(self) -> list[Gathered]:
        return []

    def add_input(self, accumulator: list[Gathered], element: metric_types.StandardMetricInputs) -> list[Gathered]:
        users, items = (np.asarray(element.features[c], object).reshape(-1) for c in (self._user, self._item))
        labels = element.get_labels()
        labels = labels.get(self._models[0], labels) if isinstance(labels, Mapping) else labels
        positive = np.asarray(labels, np.float32).reshape(-1) > 0.5
        accumulator.append((hashed(users[positive]), hashed(items[positive])))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[Gathered]]) -> list[Gathered]:
        return [part for accumulator in accumulators for part in accumulator]

    def extract_output(self, accumulator: list[Gathered]) -> dict[metric_types.MetricKey, Any]:
        ranked = Ranked.load(self._path)
        users, items = zip(*accumulator, strict=True) if accumulator else ([], [])
        empty = np.zeros(0, np.uint64)
        chosen = ranked.pairs(np.concatenate([empty, *users]), np.concatenate([empty, *items]))
        output: dict[metric_types.MetricKey, Any] = {}
        for index, model in enumerate(self._models):
            for name, value in metrics_of(ranked, index, chosen).items():
                output[self._key(model, name)] = value
        first = ranked.values(0, chosen)
        for index, model in enumerate(self._models[1:], start=1):
            other = ranked.values(index, chosen)
            for name in compared_names(ranked.ks):
                output[self._key(model, name, is_diff=True)] = with_interval(first[name] - other[name])
        return output
