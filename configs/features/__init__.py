"""The feature table: each feature declared once, and what follows from that alone.

The parsing spec, the TFT graph, the embedding tables, the serving inputs and the slices are all derived from these
declarations; nothing else in the project lists features.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from configs.data import Data
from configs.features.base import MISSING_TIME, FeatureKind, Owner, RawColumn, RawType
from configs.features.bucketized import Bucketized
from configs.features.crossed import Crossed
from configs.features.hashed import Hashed
from configs.features.numeric import Numeric
from configs.features.sequence import History, Sequence
from configs.features.text import Cold, Text
from configs.features.time import Time
from configs.features.vocabulary import Vocabulary

# Every kind of feature. A new one is a module here, one of the same name in transforms/kinds, and a line in this table.
KINDS = (Vocabulary, Hashed, Numeric, Bucketized, Time, Crossed, Sequence)

if TYPE_CHECKING:
    Feature = FeatureKind
else:
    Feature = Annotated[Union[KINDS], Field(discriminator="kind")]  # noqa: UP007

__all__ = [
    "ACTIVITY_BANDS", "DERIVED_COLUMNS", "KINDS", "LABEL", "MISSING_TIME", "TRAIN_EVENTS", "WEIGHT", "Bucketized",
    "Cold", "Crossed", "Feature", "FeatureKind", "Hashed", "History", "Numeric", "Owner", "RawColumn", "RawType",
    "Sequence", "Text", "Time", "Vocabulary", "check_features", "columns_from_json", "columns_to_json",
    "histories", "raw_columns",
]  # fmt: skip

LABEL = "label"  # the column of an example that holds the label, whatever the logs call it
TRAIN_EVENTS = "__train_events"  # the column of the catalogue that counts an id's training rows
WEIGHT = "__weight"  # the column of a transformed example that holds how much it counts, where `data.weight` is given

# Columns that ingest adds to every example from the training split alone; slices may name them, models never see them.
ACTIVITY_BANDS = ("0", "1-9", "10-49", "50-199", "200+")
DERIVED_COLUMNS = {
    "cold_user": "yes if the user has no row in the training split",
    "cold_item": "yes if the item has no row in the training split",
    "user_activity": "band of the user's number of training rows: " + ", ".join(ACTIVITY_BANDS),
    "item_popularity": "band of the item's number of training rows: " + ", ".join(ACTIVITY_BANDS),
}


def histories(features: Mapping[str, Feature]) -> list[History]:
    """Return what ingest has to make for the sequences in the feature table."""
    return [f.history(name, features) for name, f in features.items() if isinstance(f, Sequence)]


def raw_columns(features: Mapping[str, Feature], time: str | None, per_second: int = 1) -> dict[str, RawColumn]:
    """Return the columns that the features read, in the order they are first named.

    `time` is the event time's column, and `per_second` how many of the logs' unit of time are a second. Raises
    ValueError where two features read one column in different ways, or one needs the time and the logs have none.
    """
    columns: dict[str, RawColumn] = {}
    for name, feature in features.items():
        for declared in feature.columns(name, time):
            column = replace(declared, per_second=per_second) if declared.type == "int64" else declared
            known = columns.setdefault(column.name, column)
            if repr(known) != repr(column):  # not ==: the default may be NaN
                raise ValueError(
                    f"feature {name!r} reads column {column.name!r} as {column}, another feature reads it as {known}; "
                    "make them agree"
                )
    return columns


def columns_to_json(columns: Iterable[RawColumn]) -> str:
    """Return columns as components hand them on."""
    return json.dumps([asdict(column) for column in columns], sort_keys=True)


def columns_from_json(text: str) -> dict[str, RawColumn]:
    """Read what `columns_to_json` wrote."""
    return {c["name"]: RawColumn(**c) for c in json.loads(text)}


def check_features(features: Mapping[str, Feature], data: Data) -> None:
    """Raise ValueError where a feature does not go with the others or with the logs."""
    for name, feature in features.items():
        feature.check(name, features, data)
