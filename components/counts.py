"""How often each value was seen, counted in Arrow."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

COUNT, VALUE = "count", "value"
_COMPACT_AT = 2_000_000  # counts held, at least, before those of the same value are added up


class ValueCounts:
    """Counts of text. What is held grows with the values that differ, not with the rows."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._held, self._room = 0, _COMPACT_AT

    def add(self, values: pa.Array) -> None:
        """Count the values of a flat array of text or bytes."""
        counts = pc.value_counts(values.cast(pa.large_binary()))
        self._tables.append(pa.table({VALUE: counts.field("values"), COUNT: counts.field("counts")}))
        self._held += len(counts)
        if self._held > self._room:
            self._tables = [self.table()]
            self._held = self._tables[0].num_rows
            self._room = max(_COMPACT_AT, 2 * self._held)

    def merge(self, other: ValueCounts) -> None:
        """Add what another has counted."""
        self._tables.append(other.table())

    def table(self) -> pa.Table:
        """Return each value once, with its count."""
        empty = pa.table({VALUE: pa.array([], pa.large_binary()), COUNT: pa.array([], pa.int64())})
        sums = pa.concat_tables([empty, *self._tables]).group_by(VALUE).aggregate([(COUNT, "sum")])
        return pa.table({VALUE: sums.column(VALUE), COUNT: sums.column(f"{COUNT}_sum")})


def most_frequent_first(counts: pa.Table) -> pa.Table:
    """Sort counts; of values as frequent the last by its bytes comes first, as TFT and TFDV have it."""
    return counts.sort_by([(COUNT, "descending"), (VALUE, "descending")])
