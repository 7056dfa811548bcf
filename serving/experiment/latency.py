"""Is the canary's p99 above a multiple of the stable version's? Evidence that rare stalls cannot give.

A stall slows everything that is under way, so requests are no independent draws; blocks of ten seconds are taken as the
clusters. With latencies of the stable version multiplied by the allowed ratio, "no slower than allowed" means that the
canary exceeds any threshold no more often. The threshold is the 99 % quantile of those multiplied latencies, and what
is tested is the difference of the two shares above it, within classes of request size, since large requests take
longer whoever answers them. One bad block raises its variance as much as its mean: about 30 blocks must be slow before
the evidence suffices, at whatever ratio. The evidence starts anew every hour, so that a canary that turns slow after a
good week is found as soon as one that was slow at first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from serving.experiment.clustered import ARMS, stratified_difference
from serving.experiment.sequential import log_e_value_below
from serving.release_state import CANARY, STABLE

BLOCK_SECONDS = 10.0
WINDOW_BLOCKS = 360
QUANTILE = 0.99
SCALE = 0.2  # excesses of this size, as a share of requests, are looked for
_SHORTEST, _GROWTH, _BUCKETS = 5e-5, 1.1, 140  # 0.05 ms to 31 s
_SIZES = 8


class LatencyTest:
    """Histograms of a window's latencies, block by block; 3 MiB."""

    def __init__(self, ratio: float, clock: Callable[[], float] = time.monotonic):
        """`ratio` is what the canary's p99 may be, as a multiple of the stable version's."""
        self._ratio = ratio
        self._clock = clock
        self._counts = np.zeros((len(ARMS), WINDOW_BLOCKS, _SIZES, _BUCKETS), np.int32)
        self._start = clock()

    def add(self, arm: str, seconds: float, size: int = 1) -> None:
        """Count a request of `size` bytes."""
        block = int((self._clock() - self._start) / BLOCK_SECONDS)
        if block >= WINDOW_BLOCKS:
            self._counts[:] = 0
            self._start, block = self._clock(), 0
        scaled = seconds * self._ratio if arm == STABLE else seconds
        bucket = int(math.log(max(scaled, _SHORTEST) / _SHORTEST) / math.log(_GROWTH))
        size_class = min(max(size, 1).bit_length() // 3, _SIZES - 1)
        self._counts[ARMS[arm], block, size_class, min(bucket, _BUCKETS - 1)] += 1

    def log_e_value(self) -> float:
        """The evidence of this window that the canary is too slow."""
        blocks = min(int((self._clock() - self._start) / BLOCK_SECONDS) + 1, WINDOW_BLOCKS)
        counts = self._counts[:, :blocks]
        totals = counts.sum(1)
        requests = totals.sum(2)
        both = np.flatnonzero(requests.min(0))
        if not len(both):
            return 0.0
        above = np.empty((len(ARMS), blocks, len(both)))
        for place, size_class in enumerate(both):
            covered = np.cumsum(totals[ARMS[STABLE], size_class]) >= QUANTILE * requests[ARMS[STABLE], size_class]
            threshold = int(np.argmax(covered))  # at most 1 % of the multiplied latencies are in buckets above
            above[:, :, place] = counts[:, :, size_class, threshold + 1 :].sum(2)
        shown = counts[:, :, both].sum(3).astype(np.float64)
        if above[ARMS[CANARY]].sum() <= (1 - QUANTILE) * shown[ARMS[CANARY]].sum():
            return 0.0
        arms = [(above[arm], shown[arm]) for arm in (ARMS[CANARY], ARMS[STABLE])]
        found = stratified_difference(arms[0], arms[1])
        return 0.0 if found is None else log_e_value_below(-found.value, found.variance, SCALE)
