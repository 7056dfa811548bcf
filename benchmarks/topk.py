"""What a search of the index costs: the exact one and by inverted lists, on one thread.

`make bench-topk` prints a table and, last, one line of JSON. Times are of the processor, in milliseconds: the median of
single searches. `recall` is the share of the true best that the inverted lists find.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from models.layers.index import ExactIndex, Found, InvertedIndex

CLUSTERS = 2000


def one_thread() -> None:
    """Keep TensorFlow to one core; call it before anything runs."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Return vectors [count, dim] in clusters of unequal size and spread, as those of items are."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((CLUSTERS, dim), np.float32)
    of = np.minimum(draw.geometric(3 / CLUSTERS, count) - 1, CLUSTERS - 1)
    return centres[of] + draw.standard_normal((count, dim), np.float32) * draw.uniform(0.3, 1.0, (count, 1)).astype(
        "f4"
    )


def milliseconds_of(ask: Callable[[int], tf.Tensor], requests: int) -> np.ndarray:
    """Return the processor time of `ask(0)`, `ask(1)` and so on, the first quarter, which warms up, left out."""
    taken = []
    for number in range(requests):
        start = time.process_time()
        _ = ask(number).numpy()
        taken.append(1000 * (time.process_time() - start))
    return np.array(taken[requests // 4 :])


def milliseconds(search: Callable[[tf.Tensor], Found], queries: np.ndarray) -> float:
    """Return the median processor time of searching for one query at a time, [1, dim]."""
    asked = [tf.constant(query[np.newaxis]) for query in queries]
    return float(np.median(milliseconds_of(lambda number: search(asked[number])[1], len(asked))))


def topk_1e6_ms(items: int = 1_000_000, dim: int = 32, k: int = 100, queries: int = 60) -> float:
    """Return the milliseconds of one exact search for the `k` best of `items`."""
    index = ExactIndex(vectors(items, dim))
    return milliseconds(tf.function(lambda query: index.search(query, k)), vectors(queries, dim, seed=1))


def measure(items: int, dim: int, k: int, probes: list[int], queries: int) -> list[dict[str, Any]]:
    """Return a row for the exact index and one for inverted lists with each of `probes`."""
    held, asked = vectors(items, dim), vectors(queries, dim, seed=1)
    exact = ExactIndex(held)
    search = tf.function(lambda query: exact.search(query, k))
    true = [set(search(tf.constant(q[np.newaxis]))[1].numpy()[0]) for q in asked]
    said: dict[str, Any] = {"items": items, "dim": dim, "k": k}
    rows = [{**said, "index": "exact", "ms": milliseconds(search, asked), "recall": 1.0}]
    start = time.process_time()
    inverted = InvertedIndex(held)
    built = time.process_time() - start
    for count in probes:
        inverted.probes = count
        search = tf.function(lambda query: inverted.search(query, k))
        found = [set(search(tf.constant(q[np.newaxis]))[1].numpy()[0]) for q in asked]
        recall = float(np.mean([len(a & b) / k for a, b in zip(found, true, strict=True)]))
        rows.append(
            {**said, "index": f"{count} probes", "ms": milliseconds(search, asked), "recall": recall, "built_s": built}
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--probes", type=int, nargs="*", default=[8, 32, 128])
    parser.add_argument("--queries", type=int, default=60)
    given = parser.parse_args()
    one_thread()
    rows = []
    for items in given.items:
        for row in measure(items, given.dim, given.k, given.probes, given.queries):
            rows.append({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
            found = f"{row['ms']:8.2f} ms  recall {row['recall']:.3f}"
            print(f"{row['items']:>10,} x {row['dim']}  {row['index']:<12} {found}")
    print(json.dumps({"searches": rows}))


if __name__ == "__main__":
    main()
