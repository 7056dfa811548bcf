"""What is held out of each user, what to ask for it, and what the user has met before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.requests import named_columns
from configs.features import LABEL, RawColumn

_ROWS = 16384


@dataclass(frozen=True)
class Columns:
    """The columns that say whose an example is, of what and when; those of requests by name."""

    user: str
    item: str
    time: str | None
    raw: Mapping[str, RawColumn]

    @property
    def asked(self) -> dict[str, RawColumn]:
        """What a request for recommendations holds: columns of the user and of the context."""
        return {name: c for name, c in self.raw.items() if c.of != "item"}


@dataclass(frozen=True)
class HeldOut:
    """Users in the order of their hashes, [users], and their held-out positives as pairs, [pairs], each once.

    `requests` are cells by column, [users]: a user is asked about as at the first of the held-out events. `pair_items`
    are places in the catalogue, -1 for items that are no candidates; `pair_hashes` are of the items' ids. `known` are
    the places of what each user has met before: those of user u are known[starts[u] : starts[u + 1]].
    """

    users: np.ndarray
    requests: Mapping[str, list[Any]]
    pair_users: np.ndarray
    pair_items: np.ndarray
    pair_hashes: np.ndarray
    known: np.ndarray
    starts: np.ndarray


def hashed(values: np.ndarray) -> np.ndarray:
    """Return stable hashes of ids, bytes or text, as the metrics know users and items."""
    return pd.util.hash_array(np.asarray(values, object), categorize=False)


def hold_out(
    judged: Sequence[str], earlier: Sequence[str], columns: Columns, ids: np.ndarray, most_users: int
) -> HeldOut:
    """Read what is held out in the `judged` files of Examples, and what the `earlier` ones have shown to its users.

    `ids` are the candidates. Of more users than `most_users` those with the smallest hashes are taken: a random sample,
    the same for every model and in every run. It holds some 30 bytes a user's pair and 4 bytes an earlier event of the
    users judged, whatever the number of all others.
    """
    users, items, positive, times = _events(judged, columns, labelled=True)
    rows = np.flatnonzero(positive)
    # The first event of each user, in time and then in the order of the files, which is the same in every run.
    rows = rows[np.lexsort((rows, times[rows], users[rows]))]
    found, first = np.unique(users[rows], return_index=True)
    found, first = found[:most_users], rows[first[:most_users]]
    pairs = pd.DataFrame({"user": place_in(users[rows], found), "hash": items[rows]})
    pairs = pairs[pairs["user"] >= 0].drop_duplicates().sort_values(["user", "hash"], kind="stable")
    hashes = pairs["hash"].to_numpy()
    lookup = _Lookup(hashed(ids))
    known, starts = _known(earlier, columns, found, lookup)
    return HeldOut(
        found,
        _requests(judged, columns, first),
        pairs["user"].to_numpy(),
        lookup(hashes),
        hashes,
        known,
        starts,
    )


class _Lookup:
    """Places of hashes in an array of them; -1 for one that is not there."""

    def __init__(self, hashes: np.ndarray):
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def __call__(self, hashes: np.ndarray) -> np.ndarray:
        at = place_in(hashes, self._sorted)
        return np.where(at >= 0, self._order[at], -1) if len(self._order) else at


def place_in(values: np.ndarray, in_order: np.ndarray) -> np.ndarray:
    """Return where `values` are in the sorted array `in_order`, -1 for those that are not."""
    if not len(in_order):
        return np.full(len(values), -1)
    at = np.minimum(np.searchsorted(in_order, values), len(in_order) - 1)
    return np.where(in_order[at] == values, at, -1)


def _events(files: Sequence[str], columns: Columns, labelled: bool) -> tuple[np.ndarray, ...]:
    """Return hashed users and items, whether each row is a positive, and times; without `labelled`, only the first."""
    parts = list(_parsed(files, columns, labelled))
    if not parts:
        return (np.zeros(0, np.uint64),) * 2 + (np.zeros(0, bool), np.zeros(0, np.int64))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _parsed(files: Sequence[str], columns: Columns, labelled: bool) -> Iterator[tuple[np.ndarray, ...]]:
    spec: dict[str, Any] = {c: tf.io.FixedLenFeature([], tf.string) for c in (columns.user, columns.item)}
    if labelled:
        spec[LABEL] = tf.io.FixedLenFeature([], tf.float32)
        if columns.time:
            spec[columns.time] = tf.io.FixedLenFeature([], tf.int64)
    for batch in tf.data.TFRecordDataset(list(files), "GZIP").batch(_ROWS):
        row = {name: value.numpy() for name, value in tf.io.parse_example(batch, spec).items()}
        ids = hashed(row[columns.user]), hashed(row[columns.item])
        if labelled:
            time = row[columns.time] if columns.time else np.zeros(len(ids[0]), np.int64)
            yield (*ids, row[LABEL] > 0.5, time)
        else:
            yield ids


def _known(files: Sequence[str], columns: Columns, users: np.ndarray, lookup: _Lookup) -> tuple[np.ndarray, np.ndarray]:
    met = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for whose, what in _parsed(files, columns, labelled=False) if len(files) else ():
        user = place_in(whose, users)
        item = lookup(what[user >= 0])
        met.append((user[user >= 0][item >= 0], item[item >= 0]))
    pairs = np.unique(np.stack([np.concatenate(part) for part in zip(*met, strict=True)]), axis=1)
    return pairs[1].astype(np.int32), np.searchsorted(pairs[0], np.arange(len(users) + 1))


def _requests(files: Sequence[str], columns: Columns, rows: np.ndarray) -> dict[str, list[Any]]:
    """Return the cells of requests at `rows` of all files, in that order."""
    decoder = ExamplesToRecordBatchDecoder()
    order = np.argsort(rows)
    wanted = rows[order]
    cells: dict[str, list[Any]] = {name: [] for name in columns.asked}
    before = 0
    for serialized in tf.data.TFRecordDataset(list(files), "GZIP").batch(_ROWS).as_numpy_iterator():
        here = wanted[(wanted >= before) & (wanted < before + len(serialized))] - before
        before += len(serialized)
        if len(here):
            for name, values in named_columns(columns.asked, decoder.DecodeBatch(list(serialized[here]))).items():
                cells[name] += values
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return {name: [values[i] for i in back] for name, values in cells.items()}
