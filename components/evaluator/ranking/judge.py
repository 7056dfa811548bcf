"""Every model's lists for every user judged, on what a run has written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components.evaluator.ranking.held_out import Columns, HeldOut, hold_out
from components.evaluator.ranking.lists import recommended
from components.evaluator.ranking.ranked import EXACT, INDEX, WHOLE, Ranked
from configs.gates import Ranking
from configs.retrieval import Retrieval
from models.recommend.assemble import ranker_of, recommender_of, retriever_of, traced
from models.recommend.best_items import BestItems, Items

progress = logging.getLogger("recsys.progress")


def rank(
    models: Mapping[str, str],
    judged: Sequence[str],
    earlier: Sequence[str],
    columns: Columns,
    items: Items,
    ranking: Ranking,
    stages: Retrieval,
) -> Ranked:
    """Return the lists of the SavedModels in `models`, the candidate first, for users of the `judged` files.

    `stages` are those of the candidate. A model that has the signature `recommend` is asked by it; another recommends
    by what it is: retrieval alone, or its scores of all items.
    """
    held_out = hold_out(judged, earlier if ranking.mask_known else [], columns, items.ids, ranking.users)
    lists, others = {}, {}
    k = max(ranking.k)
    for place, (name, path) in enumerate(models.items()):
        progress.info(f"{name}: the best {k} of {len(items):,} items for {len(held_out.users):,} users")
        loaded = tf.saved_model.load(path)
        lists[name] = recommended(recommender_of(loaded, columns.raw, items), held_out, columns, items.ids, k)
        if place == 0:
            others = _of_stages(loaded, lists[name], held_out, columns, items, ranking, stages)
        del loaded
    return Ranked.of(ranking.k, held_out, lists, items.events, others)


def _of_stages(
    loaded: Any,
    served: np.ndarray,
    held_out: HeldOut,
    columns: Columns,
    items: Items,
    ranking: Ranking,
    stages: Retrieval,
) -> dict[str, np.ndarray]:
    """Return the candidate's lists without what its stages and its index leave out, for some of the users."""
    k, two = min(ranking.k), stages.model is not None
    found = {}

    def ask(recommend: Any) -> np.ndarray:
        return recommended(recommend, held_out, columns, items.ids, k, ranking.whole_users)

    if two:
        found[WHOLE] = ask(traced(BestItems(columns.raw, items, None, ranker_of(loaded), k)))
    if stages.index.type != "exact":
        retriever = retriever_of(loaded.retrieval if two else loaded, items)
        assert retriever is not None
        found[EXACT] = ask(traced(BestItems(columns.raw, items, retriever[0], None, k)))
        found[INDEX] = ask(loaded.candidates) if two else served[: len(found[EXACT])]
    return found
