"""A trained SavedModel, or two, and the catalogue: one SavedModel that answers `recommend` beside all else.

The module works on what training exported, whatever model that is: on the signature `serving_default`, which scores
pairs, and on what models that retrieve export besides (`models/export/saved_model.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from configs.features import RawColumn
from configs.retrieval import Index, Retrieval
from models.export.saved_model import declare_defaults
from models.layers.index import ExactIndex, Found, InvertedIndex, best
from models.recommend import RECOMMEND
from models.recommend.best_items import BestItems, Columns, Items, Ranker
from models.recommend.best_items import Retrieval as Retriever
from transforms.raw import MISSING_VALUES, default_values

EXACT = Index()


def ranker_of(loaded: Any) -> Ranker:
    """Return how a SavedModel scores pairs: named columns -> probabilities [rows].

    Columns that it does not take are left out and those that it misses are missing values, so that a model of an
    earlier feature table can be asked too.
    """
    score = loaded.signatures["serving_default"]
    return lambda columns: score(**taken(score, columns))["score"]


def taken(signature: Any, columns: Columns) -> dict[str, tf.Tensor]:
    """Return what a signature takes of `columns`, with marks of missing values for inputs that are not there."""
    specs = signature.structured_input_signature[1]
    absent = {n: tf.fill([1] * s.shape.rank, MISSING_VALUES[s.dtype]) for n, s in specs.items() if n not in columns}
    return {n: columns[n] for n in specs if n in columns} | absent


def retriever_of(loaded: Any, items: Items, index: Index = EXACT) -> tuple[Retriever, list[Any]] | None:
    """Return how a SavedModel finds the best of `items`, and what has to be saved with it; None where it cannot.

    Items that its vocabulary lacks, or that it marks as not to be shown, are never found.
    """
    if (names := getattr(loaded, "catalogue_names", None)) is None:
        return None
    row = {name.decode(): at for at, name in enumerate(names().numpy())}
    rows = np.array([row.get(i, -1) for i in items.ids], np.int64)
    if (user_vectors := getattr(loaded, "user_vectors", None)) is not None:
        return _by_vectors(user_vectors, loaded.item_vectors.numpy(), rows, index)
    scores_of = loaded.catalogue_scores
    columns = tf.constant(np.where(rows >= 0, rows, len(row)), tf.int32)

    def by_scores(asked: Columns, k: tf.Tensor) -> Found:
        scores = tf.pad(scores_of(**asked), [[0, 0], [0, 1]], constant_values=-np.inf)
        return best(tf.gather(scores, columns, axis=1), k)

    return by_scores, [loaded]


def _by_vectors(user_vectors: Any, vectors: np.ndarray, rows: np.ndarray, index: Index) -> tuple[Retriever, list[Any]]:
    shown = np.flatnonzero(rows >= 0)
    vectors = vectors[rows[shown]]
    finite = np.isfinite(vectors).all(axis=1)
    shown, vectors = shown[finite], vectors[finite]
    if index.type == "inverted" and len(vectors):
        made: Any = InvertedIndex(vectors, index.lists, index.probes)
    else:
        made = ExactIndex(vectors)
    places = tf.Variable(shown.astype(np.int32), trainable=False, name="places")

    def by_vectors(asked: Columns, k: tf.Tensor) -> Found:
        scores, found = made.search(user_vectors(**asked), k)
        return scores, tf.gather(places, found)

    return by_vectors, [made, places]


def recommender_of(loaded: Any, columns: Mapping[str, RawColumn], items: Items) -> Callable[..., Any]:
    """Return the signature `recommend` of a SavedModel; of one that has none, what it would be, of one stage."""
    if RECOMMEND in loaded.signatures:
        signature = loaded.signatures[RECOMMEND]
        return lambda **given: signature(**taken(signature, given))
    return traced(best_items(loaded, columns, items)[0])


def traced(module: BestItems) -> Callable[..., Any]:
    """Return a module as a function that is traced once."""
    function = tf.function(module.__call__, autograph=False).get_concrete_function(**module.signature())
    function.module = module  # which would be gone otherwise, and its variables with it
    return function


def best_items(
    loaded: Any, columns: Mapping[str, RawColumn], items: Items, stages: Retrieval | None = None, retrieval: Any = None
) -> tuple[BestItems, list[Any]]:
    """Return what recommends by a loaded SavedModel, and what has to be saved with it.

    With the SavedModel `retrieval` that one finds candidates and `loaded` ranks them. Without, a model that retrieves
    does so alone, and any other ranks every item. Raises ValueError where `retrieval` cannot retrieve.
    """
    stages = stages or Retrieval()
    if retrieval is not None:
        found = retriever_of(retrieval, items, stages.index)
        if found is None:
            raise ValueError("the model of retrieval scores pairs only: it cannot find candidates")
        return BestItems(columns, items, found[0], ranker_of(loaded), stages.candidates), [retrieval, *found[1]]
    if (found := retriever_of(loaded, items, stages.index)) is not None:
        return BestItems(columns, items, found[0], None, stages.candidates), found[1]
    return BestItems(columns, items, None, ranker_of(loaded), stages.candidates), []


def assemble(
    model: str, retrieval: str | None, columns: Mapping[str, RawColumn], items: Items, stages: Retrieval, output: str
) -> None:
    """Write the SavedModel at `model` to `output` with the signature `recommend` besides."""
    loaded = tf.saved_model.load(model)
    module, kept = best_items(
        loaded, columns, items, stages, tf.saved_model.load(retrieval) if retrieval is not None else None
    )

    @tf.function(autograph=False)
    def recommend(**given):
        return module(**given)

    @tf.function(autograph=False)
    def candidates(**given):
        return module.candidates(**given)

    loaded.best_items, loaded.kept = module, kept
    if retrieval is not None:  # for the evaluation
        candidates.get_concrete_function(**module.signature())
        loaded.retrieval, loaded.candidates = kept[0], candidates
    signatures = dict(loaded.signatures) | {RECOMMEND: recommend.get_concrete_function(**module.signature())}
    tf.saved_model.save(loaded, output, signatures=signatures)
    declare_defaults(output, default_values(columns.values()) | module.defaults())
