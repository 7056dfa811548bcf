"""Collectives of workers in step: gradients, added up over all of them.

TensorFlow's own sum of sparse gradients asks for the length, the rows and the ids of each table in turn, three
collectives a table, and fails in a loop of steps of unequal size: a collective keeps the shape it met first. Here a
step has three collectives, whatever the number of tables, and those of each length are apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from models.layers.rows import Gradient, RowGradients

_GROUP = 1 << 20  # strategies count the groups of their own collectives up from 1
_LENGTHS, _DENSE, _ROWS = 1, 2, 3  # instances in the group; that of rows goes on from there, one for each length
_LENGTH = 4096  # what is sent of rows is a multiple of this many numbers, so that there are few lengths


def summed(gradients: Sequence[Gradient], replicas: int) -> list[Gradient]:
    """Return float32 gradients added up over as many replicas, each on a device of its own, that all call this.

    Must be called in a replica of a strategy over several processes, with gradients of the same variables in all of
    them; sparse ones may have any rows, and come back with each row once.
    """
    found = list(gradients)
    dense = [i for i, g in enumerate(gradients) if not isinstance(g, tf.IndexedSlices)]
    rows = RowGradients.of(gradients)
    # One after the other, everywhere: on GPUs collectives that start in another order wait for one another for ever.
    # Dense ones before rows: what a replica has of each row is added up while they are under way.
    lengths = [_lengths(rows, replicas)] if rows else []
    with tf.control_dependencies(lengths):
        added = _dense_summed([gradients[i] for i in dense], replicas)
    for i, gradient in zip(dense, added, strict=True):
        found[i] = gradient
    for group in _joined(rows, lengths[0], added[:1]) if rows else []:
        group.put_into(found)
    return found


def _lengths(groups: Sequence[RowGradients], replicas: int) -> tf.Tensor:
    """Return how many rows each replica has, [replicas, groups]."""
    own = tf.stack([tf.size(group.ids) for group in groups])
    return tf.reshape(_gathered(own, _LENGTHS, replicas), [replicas, len(groups)])


def _dense_summed(gradients: Sequence[tf.Tensor], replicas: int) -> list[tf.Tensor]:
    added = tf.raw_ops.CollectiveReduceV2(
        input=tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0),
        group_size=replicas,
        group_key=_GROUP,
        instance_key=_DENSE,
        ordering_token=[],
        merge_op="Add",
        final_op="Id",
    )
    pieces = tf.split(added, tf.stack([tf.size(g) for g in gradients]), num=len(gradients))
    return [tf.reshape(piece, tf.shape(g)) for piece, g in zip(pieces, gradients, strict=True)]


def _joined(groups: Sequence[RowGradients], lengths: tf.Tensor, after: Sequence[tf.Tensor]) -> list[RowGradients]:
    """Return the rows of all replicas, added up."""
    # All is one buffer, of each group the ids and the values; ids travel as the bits of floats.
    own = [
        part
        for group in groups
        for part in (tf.bitcast(tf.cast(group.ids, tf.int32), tf.float32), tf.reshape(group.values, [-1]))
    ]
    widths = [width for group in groups for width in (1, group.values.shape[1])]
    sizes = tf.repeat(lengths, 2, axis=1) * widths  # [replicas, parts]
    # One at least: a gather of nothing crashes.
    units = tf.maximum(-(-tf.reduce_max(tf.reduce_sum(sizes, axis=1)) // _LENGTH), 1)
    rest = units * _LENGTH - tf.reduce_sum(sizes, axis=1, keepdims=True)
    padding = tf.zeros([units * _LENGTH - tf.add_n([tf.size(part) for part in own])])
    buffer = tf.concat([*own, padding], axis=0)
    replicas = lengths.shape[0]
    with tf.control_dependencies(after):
        everyones = tf.split(_gathered(buffer, _ROWS + units, replicas), replicas)
    cuts = tf.unstack(tf.concat([sizes, rest], axis=1))
    parts = [tf.split(buffer, cut, num=len(own) + 1)[:-1] for buffer, cut in zip(everyones, cuts, strict=True)]
    together = [tf.concat(pieces, axis=0) for pieces in zip(*parts, strict=True)]
    return [
        RowGradients.added_up(
            group.members,
            tf.cast(tf.bitcast(ids, tf.int32), group.ids.dtype),
            tf.reshape(values, [-1, group.values.shape[1]]),
        )
        for group, ids, values in zip(groups, together[::2], together[1::2], strict=True)
    ]


def _gathered(vector: tf.Tensor, instance: tf.Tensor | int, replicas: int) -> tf.Tensor:
    return tf.raw_ops.CollectiveGatherV2(
        input=vector, group_size=replicas, group_key=_GROUP, instance_key=instance, ordering_token=[]
    )
