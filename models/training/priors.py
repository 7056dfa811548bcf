"""What training knows before its first step: the base rate, and how often each row of a table is looked up."""

from __future__ import annotations

import math

import numpy as np

from models.base import Recommender, TrainingSource
from models.layers.embedding import table_layers
from models.training.context import WorkerContext

_BATCH = 8192
_BATCHES_FOR_RATE = 64  # enough for the base rate alone


def start_from_counts(model: Recommender, rows: TrainingSource, context: WorkerContext) -> None:
    """Start a fresh model at the base rate's logit, and give the rows of its tables their prior."""
    layers = [layer for layer in table_layers(model) if layer.wants_prior]
    steps = rows.steps(_BATCH)
    examples, positives = 0.0, 0.0
    counts = [layer.lookups({}) for layer in layers]
    for inputs, labels in rows.batches(_BATCH, steps if layers else min(steps, _BATCHES_FOR_RATE)):
        examples += len(labels)
        positives += float(labels.numpy().sum())
        for layer, counted in zip(layers, counts, strict=True):
            for name, found in layer.lookups(inputs).items():
                counted[name] += found
    for layer, counted in zip(layers, counts, strict=True):
        layer.set_prior({name: context.total(found) for name, found in counted.items()})
    examples, positives = context.total(np.array([examples, positives]))
    rate = (positives + 0.5) / (examples + 1.0)
    model.shift(math.log(rate / (1.0 - rate)))
