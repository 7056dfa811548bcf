"""Rows of a model's own to train on, in memory: pairs, users, windows of events."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.topn.interactions import Interactions
from transforms.transformed import PADDING


class TrainingRows:
    """Arrays with one first dimension as batches, in an order that seed and epoch decide."""

    def __init__(self, rows: dict[str, np.ndarray]):
        self._rows = {name: tf.constant(column) for name, column in rows.items()}
        self.count = len(next(iter(rows.values())))

    def steps(self, batch: int) -> int:
        """Return how many batches hold all rows once."""
        return -(-self.count // batch)

    def batches(
        self, batch: int, steps: int, epochs: int = 1, seed: int | None = None, first: int = 0
    ) -> tf.data.Dataset:
        """Return `epochs` passes of `steps` batches (rows, labels of 1), from batch `first` of them all on.

        Batches past the last row are empty.
        """
        first_epoch, first_step = divmod(first, max(steps, 1))

        def one_pass(epoch):
            skipped = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), tf.constant(0, tf.int64))
            order = tf.range(self.count, dtype=tf.int64)
            if seed is not None:
                order = tf.random.experimental.stateless_shuffle(order, [tf.constant(seed, tf.int64), epoch])

            def take(step):
                rows = order[step * batch : (step + 1) * batch]
                return {n: tf.gather(column, rows) for n, column in self._rows.items()}, tf.ones([tf.size(rows)])

            return tf.data.Dataset.range(skipped, steps).map(take)

        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        options.autotune.enabled = False
        return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_pass).prefetch(8).with_options(options)


def pairs_of(known: Interactions) -> dict[str, np.ndarray]:
    """Return a row for each pair of a user and an item that met: `user`, `item` (a column)."""
    return {"user": known.users.astype(np.int64), "item": known.items.astype(np.int64)}


def users_of(known: Interactions) -> dict[str, np.ndarray]:
    """Return a row for each user with events: `past`, the columns it met, [users, most], PADDING elsewhere."""
    met = known.matrix()
    counts = np.diff(met.indptr)
    rows = np.flatnonzero(counts)
    past = np.full((len(rows), counts.max()), PADDING, np.int64)
    past[np.arange(past.shape[1]) < counts[rows, np.newaxis]] = met.indices
    return {"past": past}


def windows_of(known: Interactions, length: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut users' events into windows of `length` at most, the newest full, and say whose; single events are dropped."""
    found: list[np.ndarray] = []
    owners: list[int] = []
    for sequence, owner in zip(known.sequences, known.owners.tolist(), strict=True):
        for end in range(len(sequence), 1, 1 - length):  # the last of one window is the first of the next
            found.append(sequence[max(end - length, 0) : end])
            owners.append(owner)
    if not found:
        raise ValueError("needs a user with two events in the training split, and there is none")
    return found, np.array(owners, np.int64)


def next_events(known: Interactions, length: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return rows of several windows side by side, so that little of a row is empty: each is [rows, length].

    `inputs` and `targets` are columns, PADDING elsewhere: a target is the event after its input. `segment` counts the
    windows of a row from 1, 0 where it is empty; `user` is whose it is. `place` counts up to length - 1 at the end of
    a window, where a request has its newest event.
    """
    windows, owners = windows_of(known, length + 1)
    return _beside([w[:-1] for w in windows], [w[1:] for w in windows], owners, length, seed)


def whole_events(known: Interactions, length: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return rows as those of `next_events` whose inputs are whole windows, without targets."""
    windows, owners = windows_of(known, length)
    rows = _beside(windows, windows, owners, length, seed)
    del rows["targets"]
    return rows


def padded_events(known: Interactions, length: int) -> dict[str, np.ndarray]:
    """Return a row for each window: `inputs`, `targets`, `user`, each [rows, length], filled up at the end."""
    windows, owners = windows_of(known, length + 1)
    width = max(len(w) for w in windows) - 1
    rows = {name: np.full((len(windows), width), PADDING, np.int64) for name in ("inputs", "targets")}
    for row, window in enumerate(windows):
        rows["inputs"][row, : len(window) - 1], rows["targets"][row, : len(window) - 1] = window[:-1], window[1:]
    return rows | {"user": np.repeat(owners[:, np.newaxis], width, axis=1)}


def _beside(
    inputs: list[np.ndarray], targets: list[np.ndarray], owners: np.ndarray, length: int, seed: int
) -> dict[str, np.ndarray]:
    packed = packing([len(piece) for piece in inputs], length, seed)
    rows = {name: np.full((len(packed), length), PADDING, np.int64) for name in ("inputs", "targets")}
    rows |= {name: np.zeros((len(packed), length), np.int64) for name in ("segment", "place", "user")}
    for row, inside in enumerate(packed):
        at = 0
        for segment, index in enumerate(inside, start=1):
            size = len(inputs[index])
            to = slice(at, at + size)
            rows["inputs"][row, to], rows["targets"][row, to] = inputs[index], targets[index]
            rows["segment"][row, to], rows["user"][row, to] = segment, owners[index]
            rows["place"][row, to] = np.arange(length - size, length)
            at = to.stop
    return rows


def packing(sizes: list[int], room: int, seed: int) -> list[list[int]]:
    """Put pieces into as few rows of `room` as first fit finds, large ones first: indices by row."""
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-np.asarray(sizes)[order], kind="stable")]
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # rows by the room that is left in them
    for index in order.tolist():
        size = sizes[index]
        fitting = next((left for left in range(size, room + 1) if by_room.get(left)), None)
        if fitting is None:
            rows.append([])
            row, fitting = len(rows) - 1, room
        else:
            row = by_room[fitting].pop()
        rows[row].append(index)
        by_room.setdefault(fitting - size, []).append(row)
    return rows
