"""How to split the logs so that there is something to learn from and enough to judge by, tried on the sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.gates import Validation
from pipeline.proposal.roles import Roles
from pipeline.proposal.sample import Sample

_FEW_ROWS = 1000  # below, eval and test take a fifth each
_HISTORY = 10  # rows of the median user from which users' own time is worth following
_SHORT_HISTORY = 3  # of logs of positives alone, where a user without a past can be judged on nothing


@dataclass(frozen=True)
class SplitGuess:
    """How to split, and what speaks against judging by it."""

    by: str
    share: float
    warnings: list[str]


def find_split(sample: Sample, roles: Roles) -> SplitGuess:
    """Return the split for a sample, and what is too little in it."""
    rows = sample.rows
    share = 0.1 if rows >= _FEW_ROWS else 0.2
    by = _by(roles, share)
    warnings = []
    if sample.whole:
        held = int(rows * share)
        least = Validation().min_examples
        if held < least:
            warnings.append(
                f"{rows:,} rows leave about {held:,} for test, and the data gate asks for {least:,} in each split "
                "(validation.min_examples): it will stop the run. Bring more rows, or lower it and trust no metric"
            )
        if roles.truth is not None:
            positives = min(float(np.nansum(roles.truth)), float(np.nansum(1 - roles.truth))) * share
            if positives < Validation().min_positives:
                warnings.append(
                    f"about {positives:.0f} rows of the rarer label will be in test: too few to tell models apart"
                )
    return SplitGuess(by, share, warnings)


def _by(roles: Roles, share: float) -> str:
    counts = roles.user.counts
    median = float(np.median(counts)) if len(counts) else 0.0
    if roles.written is None:
        return "user_share"
    if median >= _HISTORY or (roles.label is None and median >= _SHORT_HISTORY) or len(counts) == 1:
        return "user_time"
    return (
        "time" if _parts_by_time(roles.written.seconds, share) else "user_time" if median >= _SHORT_HISTORY else "hash"
    )


def _parts_by_time(seconds: np.ndarray, share: float) -> bool:
    """Whether the newest rows can be parted from the rest: not where too many share a time."""
    known = np.sort(np.floor(seconds[np.isfinite(seconds)]))
    if not len(known):
        return False
    first, second = (known[min(int(len(known) * (1 - part * share)), len(known) - 1)] for part in (2, 1))
    sizes = (known < first).mean(), ((known >= first) & (known < second)).mean(), (known >= second).mean()
    return min(sizes) > 0.3 * share
