"""Transformed examples as batches: parsed once and kept where they fit, in an order that a seed decides.

A reader has a share of the examples: files where there are enough for all readers, else records dealt out in turn.
Every reader takes the same number of steps; one that has run out of examples goes on with empty batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from configs.features import LABEL, WEIGHT
from transforms.transformed import PADDING, TransformedFeature, model_inputs, transformed_feature_spec

Batch = tuple[Mapping[str, tf.Tensor], tf.Tensor]  # features as TransformedFeature describes them, labels [batch]

EVAL_BATCH = 8192  # rows scored at once
_PARSED_AT_ONCE = 8192
_SHUFFLED_AT_ONCE = 200_000  # records, where they do not fit into memory
_PACKED = ""  # the column of all features' ids, side by side
_WIDEST_DENSE = 64  # several values a row are kept padded up to this many, else ragged


@dataclass(frozen=True)
class Share:
    """Part `index` of `count` of the examples."""

    index: int = 0
    count: int = 1


def files_of(patterns: Sequence[str]) -> list[str]:
    """Return the files that globs match, sorted. Raises FileNotFoundError where there are none."""
    found = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no examples: nothing matches {', '.join(patterns)}")
    return found


def dealt_by_file(files: Sequence[str], share: Share) -> bool:
    """Say whether each reader gets files of its own; with fewer files than readers they share out the records."""
    return len(files) >= share.count


def examples(
    patterns: list[str],
    features: Sequence[TransformedFeature],
    batch: int,
    shuffle_seed: int | None = None,
    weighted: bool = False,
) -> tf.data.Dataset:
    """Return one pass over all examples in batches of (features, labels [batch]), shuffled if seeded.

    With `weighted` the features have WEIGHT besides, [batch].
    """
    source = Examples(patterns, features, cache_mib=0, weighted=weighted)
    return source.batches(batch, source.steps(batch), epochs=1, seed=shuffle_seed)


class Examples:
    """A share of the gzipped TFRecords of transformed Examples that `patterns` match."""

    def __init__(
        self,
        patterns: Sequence[str],
        features: Sequence[TransformedFeature],
        share: Share = Share(),
        cache_mib: int = 4096,
        weighted: bool = False,
    ):
        self._features = list(features)
        weight = {WEIGHT: tf.io.FixedLenFeature([], tf.float32)} if weighted else {}
        self._weighted = weighted
        self._spec = transformed_feature_spec(self._features) | weight
        # Ids take half the room where the table is not larger than int32 counts.
        narrow = {f.name: tf.int32 for f in self._features if 0 < f.size <= np.iinfo(np.int32).max}
        self._kept_as = {name: narrow.get(name, column.dtype) for name, column in self._spec.items()}
        self._share = share
        self._files = files_of(patterns)
        self._columns: dict[str, tf.Tensor | tf.RaggedTensor] | None = None
        self._packed: list[tuple[str, int | None]] = []
        self.count = self._read(cache_mib << 20)

    @property
    def cached(self) -> bool:
        """Whether all examples of the share are in memory."""
        return self._columns is not None

    def steps(self, batch: int) -> int:
        """Return how many batches hold all examples of this share."""
        return -(-self.count // batch)

    def batches(
        self, batch: int, steps: int, epochs: int = 1, seed: int | None = None, first: int = 0
    ) -> tf.data.Dataset:
        """Return `epochs` passes of `steps` batches each, from batch `first` of them all on.

        With a seed each pass has an order of its own, which seed and pass alone decide. Batches past the last example
        are empty.
        """
        first_epoch, first_step = divmod(first, max(steps, 1))

        def one_pass(epoch):
            skipped = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), tf.constant(0, tf.int64))
            if self.cached:
                return self._pass_from_memory(epoch, batch, steps, skipped, seed)
            return self._pass_from_files(epoch, batch, steps, skipped, seed)

        passes = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_pass)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        options.autotune.enabled = False
        return passes.prefetch(8).with_options(options)

    def part_of_file(self, path, part, parts, epoch, batch: int, seed: int) -> tf.data.Dataset:
        """Return one of `parts` parts of a file in batches, shuffled; all but `batch` and `seed` may be tensors."""
        records = tf.data.TFRecordDataset(path, "GZIP").shard(parts, part)
        records = records.shuffle(_SHUFFLED_AT_ONCE, seed=epoch + seed, reshuffle_each_iteration=False)
        return records.batch(batch).map(self._parse).prefetch(2)

    def _pass_from_memory(self, epoch, batch: int, steps: int, skipped, seed: int | None) -> tf.data.Dataset:
        columns = self._columns
        assert columns is not None
        order = tf.range(self.count, dtype=tf.int64)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, [tf.constant(seed, tf.int64), epoch])

        def take(step):
            rows = order[step * batch : (step + 1) * batch]
            taken = {name: tf.gather(column, rows) for name, column in columns.items()}
            taken |= self._unpacked(taken.pop(_PACKED, None))
            labels = taken.pop(LABEL)
            return self._as_inputs(taken), labels

        return tf.data.Dataset.range(skipped, steps).map(take)

    def _pass_from_files(self, epoch, batch: int, steps: int, skipped, seed: int | None) -> tf.data.Dataset:
        records = self._records(epoch if seed is not None else None, seed)
        if seed is not None:
            records = records.shuffle(_SHUFFLED_AT_ONCE, seed=epoch + seed, reshuffle_each_iteration=False)
        empty = tf.data.Dataset.from_tensors(tf.constant([], tf.string)).repeat()
        return records.batch(batch).concatenate(empty).take(steps).skip(skipped).map(self._parse, num_parallel_calls=2)

    def _records(self, epoch=None, seed: int | None = None) -> tf.data.Dataset:
        """Return the serialized examples of this share."""
        if not dealt_by_file(self._files, self._share):
            return tf.data.TFRecordDataset(self._files, "GZIP").shard(self._share.count, self._share.index)
        mine = tf.constant(self._files[self._share.index :: self._share.count])
        if seed is not None:
            mine = tf.random.experimental.stateless_shuffle(mine, [tf.constant(seed, tf.int64), epoch])
        return tf.data.Dataset.from_tensor_slices(mine).interleave(
            lambda path: tf.data.TFRecordDataset(path, "GZIP"), cycle_length=4, block_length=64
        )

    def _parse(self, serialized: tf.Tensor) -> Batch:
        parsed = tf.io.parse_example(serialized, self._spec)
        labels = parsed.pop(LABEL)
        return model_inputs(self._features, parsed) | self._weight_of(parsed), labels

    def _as_inputs(self, taken: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = model_inputs(self._features, taken)
        cast = {f.name: tf.cast(inputs[f.name], tf.int64) if f.size else inputs[f.name] for f in self._features}
        return cast | self._weight_of(taken)

    def _weight_of(self, columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {WEIGHT: columns[WEIGHT]} if self._weighted else {}

    def _read(self, limit: int) -> int:
        """Count the examples; keep them, parsed, as long as they take less than `limit` bytes."""
        batches = self._records().batch(_PARSED_AT_ONCE)
        if not limit:
            counts = batches.map(lambda batch: tf.size(batch, tf.int64))
            return int(sum(int(n) for n in counts))
        parts: dict[str, list] = {name: [] for name in self._spec}
        count = size = 0
        for parsed in batches.map(lambda batch: tf.io.parse_example(batch, self._spec), num_parallel_calls=2):
            count += int(parsed[LABEL].shape[0])
            if size > limit:
                continue
            for name, value in parsed.items():
                kept = tf.cast(value, self._kept_as[name])
                parts[name].append(kept)
                size += sum(tf.size(t).numpy() * t.dtype.size for t in tf.nest.flatten(kept, expand_composites=True))
            if size > limit:
                parts = {name: [] for name in self._spec}
        if count and size <= limit:
            self._columns = self._pack(
                _in_order({name: _dense_if_narrow(tf.concat(parts.pop(name), axis=0)) for name in [*parts]})
            )
        return count

    def _pack(self, columns: dict[str, tf.Tensor | tf.RaggedTensor]) -> dict[str, tf.Tensor | tf.RaggedTensor]:
        """Put the ids of all features beside one another: a batch then costs one lookup, not one a feature."""
        beside = [n for n, c in columns.items() if isinstance(c, tf.Tensor) and c.dtype == tf.int32]
        if not beside:
            return columns
        self._packed = [(n, columns[n].shape[1] if columns[n].shape.rank == 2 else None) for n in beside]
        joined = tf.concat([tf.reshape(columns.pop(n), [-1, width or 1]) for n, width in self._packed], axis=1)
        return columns | {_PACKED: joined}

    def _unpacked(self, rows: tf.Tensor | None) -> dict[str, tf.Tensor]:
        if rows is None:
            return {}
        pieces = tf.split(tf.cast(rows, tf.int64), [width or 1 for _, width in self._packed], axis=1)
        return {
            name: piece if width else tf.squeeze(piece, 1)
            for (name, width), piece in zip(self._packed, pieces, strict=True)
        }


def _dense_if_narrow(column: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(column, tf.RaggedTensor) and int(column.bounding_shape()[1]) <= _WIDEST_DENSE:
        return column.to_tensor(PADDING)
    return column


def _in_order(columns: dict[str, tf.Tensor | tf.RaggedTensor]) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """Put rows in an order that their content decides: Beam deals them out to files in another one each time."""
    key = np.zeros(len(columns[LABEL]), np.uint64)
    for name in sorted(columns):
        if isinstance(columns[name], tf.Tensor):
            values = columns[name].numpy().reshape(len(key), -1)
            for value in values.view(f"u{values.itemsize}").T:
                key = key * np.uint64(0x9E3779B97F4A7C15) + value.astype(np.uint64)
    order = np.argsort(key, kind="stable")
    return {name: tf.gather(column, order) for name, column in columns.items()}
