"""Rows of tables: read, written and their gradients added up, without touching the other rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow as tf

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices


def rows_of(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """Return the rows of a table by id, [..., dim]."""
    return tf.nn.embedding_lookup(_here(table), ids)


def put_rows(table: tf.Variable, ids: tf.Tensor, rows: tf.Tensor) -> tf.Operation:
    """Write rows of a table, [n, dim]; each id must come once."""
    # Not Keras' own helper: that reads the whole table back.
    return tf.raw_ops.ResourceScatterUpdate(resource=_here(table).handle, indices=ids, updates=rows)


def shards_of(table: tf.Variable) -> list[tf.Variable]:
    """Return the variables that a table is cut into over parameter servers; the table itself where it is whole."""
    return list(getattr(table, "variables", [table]))


def _here(table: tf.Variable) -> tf.Variable:
    """Return the copy of a table that this replica has; asked for rows, all copies together read the table whole."""
    if not isinstance(table, tf.distribute.DistributedValues):
        return table
    copies = tf.distribute.get_strategy().experimental_local_results(table)
    try:
        mine = table.handle
    except ValueError:  # outside a replica, where one is as good as the other
        return copies[0]
    return next(copy for copy in copies if copy.handle is mine)


@dataclass(frozen=True)
class RowGradients:
    """What was found for the rows of tables that were looked up with the same ids, each row once."""

    members: list[int]  # of which gradients in a list
    ids: tf.Tensor  # [n]
    values: tf.Tensor  # [n, sum of the tables' dims], table beside table

    @classmethod
    def of(cls, gradients: Sequence[Gradient]) -> list[RowGradients]:
        """Add up the rows of all sparse gradients in a list."""
        groups: list[list[int]] = []
        for i, gradient in enumerate(gradients):
            if isinstance(gradient, tf.IndexedSlices):
                alike = [group for group in groups if _same(gradients[group[0]].indices, gradient.indices)]
                if alike:
                    alike[0].append(i)
                else:
                    groups.append([i])
        return [
            cls.added_up(group, gradients[group[0]].indices, tf.concat([gradients[i].values for i in group], axis=1))
            for group in groups
        ]

    @classmethod
    def added_up(cls, members: list[int], ids: tf.Tensor, values: tf.Tensor) -> RowGradients:
        """Add up what comes several times."""
        rows, at = tf.unique(ids)
        added = tf.math.unsorted_segment_sum(values, at, tf.size(rows))
        added.set_shape([None, values.shape[1]])
        return cls(members, rows, added)

    def put_into(self, gradients: list[Gradient]) -> None:
        """Put the tables' gradients in the place of those that they were made of."""
        found = [gradients[i].values for i in self.members]
        widths = [values.shape[1] or tf.shape(values)[1] for values in found]  # strategies forget shapes
        for i, values in zip(self.members, tf.split(self.values, widths, axis=1), strict=True):
            gradients[i] = tf.IndexedSlices(values, self.ids, gradients[i].dense_shape)


def rows_once(gradients: Sequence[Gradient]) -> list[Gradient]:
    """Return gradients, the sparse ones with each row once; dense ones are returned as they are."""
    found = list(gradients)
    for group in RowGradients.of(gradients):
        group.put_into(found)
    return found


def _same(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Say whether two tensors are one, or are computed alike from what is one."""
    if one is other:
        return True
    if not (tf.is_symbolic_tensor(one) and tf.is_symbolic_tensor(other)):
        return False
    a, b = one.op, other.op
    return (
        a.type == b.type
        and a.type != "Placeholder"  # whose value comes from outside: alike by all that follows
        and not a.op_def.is_stateful
        and one.value_index == other.value_index
        and a.node_def.attr == b.node_def.attr
        and len(a.inputs) == len(b.inputs)
        and all(map(_same, a.inputs, b.inputs))
    )
