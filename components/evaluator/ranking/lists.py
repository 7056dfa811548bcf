"""The list that a model recommends to each user, asked for as a client would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from components.evaluator.ranking.held_out import Columns, HeldOut
from transforms.raw import default_values

_SCORES_AT_ONCE = 1 << 23  # of a block of users, whatever the model; a block has no more than _USERS of them
_USERS = 256

Recommend = Callable[..., Mapping[str, tf.Tensor]]  # the signature `recommend`


def recommended(
    recommend: Recommend, held_out: HeldOut, columns: Columns, ids: np.ndarray, k: int, users: int | None = None
) -> np.ndarray:
    """Return the `k` best for the first `users` users, what they know left out: places in `ids`, [users, k].

    Lists that end early end in -1, and what is no candidate is left out of them. Users are asked about in blocks whose
    scores take up to 32 MiB.
    """
    users = len(held_out.users) if users is None else min(users, len(held_out.users))
    place = pd.Index(np.array([i.encode() if isinstance(i, str) else i for i in ids], object))
    block = int(np.clip(_SCORES_AT_ONCE // max(len(ids), 1), 1, _USERS))
    lists = np.full([users, k], -1, np.int32)
    for at in range(0, users, block):
        part = slice(at, min(at + block, users))
        answer = recommend(
            **_request(held_out, columns, part),
            k=tf.constant([k], tf.int64),
            exclude=tf.constant(_excluded(held_out, ids, part), tf.string),
        )
        found = answer["items"].numpy()
        places = place.get_indexer(found.reshape(-1)).reshape(found.shape)
        # What is no candidate, moved behind the others.
        places = np.take_along_axis(places, np.argsort(places < 0, axis=1, kind="stable"), axis=1)
        lists[part, : places.shape[1]] = places
    return lists


def _request(held_out: HeldOut, columns: Columns, part: slice) -> dict[str, tf.Tensor]:
    dtypes = {name: value.dtype for name, value in default_values(columns.asked.values()).items()}
    asked = {}
    for name, column in columns.asked.items():
        cells: list[Any] = held_out.requests[name][part]
        if column.length is not None:
            width = max(map(len, cells))
            cells = [[*c, *[column.default] * (width - len(c))] for c in cells]
        asked[name] = tf.constant(cells, dtypes[name])
    return asked


def _excluded(held_out: HeldOut, ids: np.ndarray, part: slice) -> list[list[str]]:
    starts = held_out.starts[part.start : part.stop + 1]
    known = [ids[held_out.known[a:b]].tolist() for a, b in pairwise(starts)]
    width = max(1, *map(len, known)) if known else 1
    return [[*items, *[""] * (width - len(items))] for items in known]
