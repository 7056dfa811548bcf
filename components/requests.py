"""Examples as the requests that clients would send for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from configs.features import RawColumn


def named_columns(columns: Mapping[str, RawColumn], batch: pa.RecordBatch) -> dict[str, list[Any]]:
    """Return the cells of each column of a batch of Examples, as the signatures of named columns take them."""
    rows = batch.num_rows
    return {
        name: [_cell(v, column) for v in batch.column(name).to_pylist()]
        if name in batch.schema.names
        else [column.default] * rows
        for name, column in columns.items()
    }


def _cell(values: list[Any] | None, column: RawColumn) -> Any:
    if not values:
        return column.default
    if column.separator is not None:
        return column.separator.encode().join(values)
    return values[0]
