"""How often the evaluator's 95 % intervals hold the true value, for users whose activity is uneven.

    make bench-intervals

Each simulation draws users anew: how active they are (alike, or by Zipf's law), how they rate, how well the model knows
them. The truth is the metric of a very large draw. A seed makes all of it the same on every machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
from scipy.stats import t as student

from components.evaluator.intervals import leave_one_out, standard_error
from components.evaluator.metrics import binary_metrics

METRICS = ("auc", "gauc", "logloss", "calibration")
ACTIVITY = {"alike": None, "zipf 2.5": 2.5, "zipf 2.0": 2.0}
USERS = (60, 300)
MOST = 400  # rows of one user
SIMULATIONS, TRUTH_USERS = 150, 30_000


def draw(random: np.random.Generator, users: int, exponent: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return users, labels and scores of `users` users, arrays of shape [rows]."""
    sizes = np.full(users, 20) if exponent is None else np.minimum(10 * random.zipf(exponent, users), MOST)
    user = np.repeat(np.arange(users, dtype=np.uint64), sizes)
    likes, known = random.normal(-0.5, 1, users)[user], random.normal(0.7, 0.3, users)[user]
    taste = random.normal(0, 1, len(user))
    labels = random.random(len(user)) < 1 / (1 + np.exp(-(likes + taste)))
    scores = 1 / (1 + np.exp(-(0.6 * likes + known * taste - 0.1)))
    return user * np.uint64(0x9E3779B97F4A7C15), labels.astype(np.float32), scores.astype(np.float32)


def covered(seed: int, users: int, exponent: float | None, simulations: int, truth_users: int) -> dict[str, float]:
    """Return by metric the share of simulations whose interval holds the truth."""
    random = np.random.default_rng(seed)
    truth = binary_metrics(*draw(random, truth_users, exponent))
    hits = dict.fromkeys(METRICS, 0)
    for _ in range(simulations):
        rows = draw(random, users, exponent)
        values, left_out = binary_metrics(*rows), leave_one_out(*rows)
        for metric in METRICS:
            error = standard_error(left_out.samples[metric])
            hits[metric] += abs(values[metric] - truth[metric]) <= student.ppf(0.975, left_out.freedom) * error
    return {metric: hits[metric] / simulations for metric in METRICS}


def cases() -> Iterator[tuple[str, int, float | None]]:
    for users in USERS:
        for name, exponent in ACTIVITY.items():
            yield f"{users} users, {name}", users, exponent


def main() -> None:
    found = {}
    for seed, (name, users, exponent) in enumerate(cases()):
        found[name] = covered(seed, users, exponent, SIMULATIONS, TRUTH_USERS)
        print(name, {metric: round(share, 3) for metric, share in found[name].items()}, file=sys.stderr, flush=True)
    shares = [share for by in found.values() for share in by.values()]
    print(json.dumps({"coverage": found, "lowest": min(shares), "mean": float(np.mean(shares))}))


if __name__ == "__main__":
    main()
