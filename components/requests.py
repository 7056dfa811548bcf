"""Examples as the requests that clients would send for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from configs.features import RawColumn


def named_columns(columns: Mapping[str, RawColumn], batch: pa.RecordBatch) -> dict[str, list[Any]]:
    """Return the cells of each column of a batch of Examples, as the signatures of named columns take them.

    The lists of a list column are filled up to equal length, which is what a request must send.
    """
    named = {}
    for name, column in columns.items():
        cells = batch.column(name).to_pylist() if name in batch.schema.names else [None] * batch.num_rows
        if column.length is None:
            named[name] = [_cell(v, column) for v in cells]
        else:
            lists = [list(v or ()) for v in cells]
            width = max([1, *map(len, lists)])
            named[name] = [[*values, *[column.default] * (width - len(values))] for values in lists]
    return named


def _cell(values: list[Any] | None, column: RawColumn) -> Any:
    if not values:
        return column.default
    if column.separator is not None:
        return column.separator.encode().join(values)
    return values[0] * column.per_second if column.type == "int64" else values[0]
