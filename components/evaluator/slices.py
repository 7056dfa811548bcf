"""TFMA's slicing for batches: a slice's examples stay together, where TFMA's own extractors go row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.extractors import extractor, slice_key_extractor
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib


def slice_batches(eval_config: config_pb2.EvalConfig, columns: list[str]) -> extractor.Extractor:
    """Return the extractor that stands for TFMA's Unbatch and SliceKey extractors.

    It yields one extract for every slice of a batch, with the slice's key and arrays of its labels, predictions and
    `columns`, which every example must have once. Slices are those of `slicing_specs`, by columns, as TFMA cuts them:
    an example is in the slice of each of its values, and in none of a column that it lacks.
    """
    specs = [list(spec.feature_keys) for spec in eval_config.slicing_specs]
    return extractor.Extractor(
        stage_name=slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME,
        ptransform=_SliceBatches(specs, columns),
    )


class _SliceBatches(beam.PTransform):
    def __init__(self, specs: list[list[str]], columns: list[str]):
        super().__init__()
        self._specs = specs
        self._columns = columns

    def expand(self, extracts):
        return extracts | beam.FlatMap(_slices, self._specs, self._columns).with_output_types(types.Extracts)


def _slices(extracts: types.Extracts, specs: list[list[str]], columns: list[str]) -> Iterator[types.Extracts]:
    features = extracts[constants.FEATURES_KEY]
    size = len(extracts[constants.INPUT_KEY])
    whole = {
        constants.LABELS_KEY: extracts[constants.LABELS_KEY],
        constants.PREDICTIONS_KEY: extracts[constants.PREDICTIONS_KEY],
        constants.FEATURES_KEY: {column: cells(features[column])[1] for column in columns},
    }
    for spec in specs:
        for key, rows in slice_rows(features, spec, size):
            yield {
                constants.SLICE_KEY_TYPES_KEY: slicer_lib.slice_keys_to_numpy_array([key]),
                **_take(whole, rows),
            }


def slice_rows(
    features: Mapping[str, Any], spec: list[str], size: int
) -> Iterator[tuple[slicer_lib.SliceKeyType, np.ndarray]]:
    """Yield the key of every slice of a batch of `size` rows by the columns in `spec`, and the slice's rows."""
    rows = pd.DataFrame({"": np.arange(size)})
    names = sorted(spec)
    for name in names:
        if name not in features:
            return
        at, values = cells(features[name])
        text = [v.decode() if isinstance(v, bytes) else v for v in values]
        rows = rows.merge(pd.DataFrame({"": at, name: text}).drop_duplicates(), on="")
    if not names:
        yield (), rows[""].to_numpy()
        return
    for key, group in rows.groupby(names, sort=False)[""]:
        yield tuple(zip(names, key, strict=True)), group.to_numpy()


def cells(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, value) of every value in a column, in any of the shapes in which TFMA holds a batch's column."""
    if isinstance(value, types.VarLenTensorValue):
        return value.indices[:, 0], value.values
    array = np.asarray(value)
    if array.ndim > 1:
        return np.repeat(np.arange(len(array)), array.shape[1]), array.reshape(-1)
    lists = [() if v is None else np.atleast_1d(v) for v in array]
    at = np.repeat(np.arange(len(lists)), [len(v) for v in lists])
    return at, np.concatenate(lists) if len(at) else np.zeros(0, object)


def _take(value: Any, rows: np.ndarray) -> Any:
    """Take rows of every array in nested dicts."""
    if isinstance(value, Mapping):
        return {key: _take(inner, rows) for key, inner in value.items()}
    return np.asarray(value)[rows]
