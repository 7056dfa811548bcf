"""What `recsys init` proposes, untouched, on logs that it was not tuned for: does the model beat its baselines?

Each log is described by `propose`, ingested and transformed once, and the proposed model and its baselines are trained
on it with three seeds, in memory, as `recsys compare` does. scikit-learn's LogisticRegression is fitted to the same
transformed features (one-hot, pooled as ours; C = 1). Prints a table of test figures, and as its last line one JSON
object: the worst of all logs and seeds' means. With few positives in the test split both AUC and calibration are
mostly chance: how many there are is said of each log.
"""

import argparse
import json
import logging
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.open_bandit import fetch
from components.contest import Data, Entry, counted, measure, training_task
from configs import Config, load_config
from interactions.synthetic import generate
from models.training.examples import Examples
from models.training.job import Job
from pipeline.prepare import prepare
from pipeline.proposal.propose import propose
from pipeline.proposal.roles import Given

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "runs" / "bench-defaults"
MOVIELENS = ROOT / "data" / "movielens" / "interactions.tsv"
SEEDS = (1, 2, 3)


def synthetic(rows: int, rate: float, still: bool) -> Callable[[Path], str]:
    """Return what writes a synthetic log; one that is `still` has no drift, and no users and items that come later."""

    def write(folder: Path) -> str:
        path = folder / "logs.csv"
        if not path.exists():
            generate(path, rows, click_rate=rate, **({"drift": 0.0, "late": 0.0} if still else {}))
        return str(path)

    return write


LOGS: dict[str, tuple[Callable[[Path], str], list[str]]] = {
    "movielens_user_time": (lambda folder: str(MOVIELENS), ["data.split.by=user_time"]),
    "movielens_time": (lambda folder: str(MOVIELENS), ["data.split.by=time"]),
    "open_bandit": (fetch, []),
    **{
        f"synthetic_{rows // 1000}k_{rate:.0%}{'_still' if still else ''}": (synthetic(rows, rate, still), [])
        for rows in (20_000, 500_000)
        for rate in (0.2, 0.01)
        for still in (False, True)
    },
}


def described(name: str, rows: int | None) -> Config:
    """Return the config that is proposed for a log, of its first `rows` rows where that is given."""
    source, overrides = LOGS[name]
    folder = FOLDER / (name if rows is None else f"{name}-{rows}")
    folder.mkdir(parents=True, exist_ok=True)
    path = source(folder)
    if rows is not None:
        cut = folder / f"cut{Path(path).suffix}"
        with open(path, encoding="utf-8") as whole, open(cut, "w", encoding="utf-8") as part:
            part.writelines(line for _, line in zip(range(rows + 1), whole, strict=False))
        path = str(cut)
    proposal = propose(path, "log", Given())
    proposal.write(folder / "log.yaml", overwrite=True)
    # Its distances between splits are not what is measured here.
    return load_config(folder / "log.yaml", [*overrides, "validation.skew=1", f"runs.folder={folder}/runs"])


def peer(config: Config, data: Data) -> float:
    """Return the test AUC of scikit-learn's logistic regression on the transformed features."""
    task = training_task(config, config.baselines["lr"], config.training, 1)
    job = Job(task, data.graph, [], [], "", "")

    def matrix(split: str) -> tuple[sp.csr_matrix, np.ndarray]:
        source = Examples([f"{data.transformed}/Split-{split}/*.gz"], job.features)
        inputs, labels = next(iter(source.batches(source.count, 1)))
        columns = []
        for f in job.features:
            value = inputs[f.name].numpy()
            if not f.size:
                columns.append(sp.csr_matrix(value[:, None]))
                continue
            value = value.reshape(len(value), -1)
            rows, places = np.nonzero(value >= 0)
            counts = np.maximum((value >= 0).sum(axis=1), 1) if f.pool == "mean" else np.ones(len(value))
            of = value[rows, places]
            columns.append(sp.csr_matrix((1.0 / counts[rows], (rows, of)), shape=(len(value), f.size)))
        return sp.hstack(columns).tocsr(), labels.numpy()

    x, y = matrix("train")
    fitted = LogisticRegression(max_iter=1000).fit(x, y)
    x, y = matrix("test")
    return float(roc_auc_score(y, fitted.decision_function(x)))


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", default=",".join(LOGS), help="Names of logs, with commas; default: all.")
    parser.add_argument("--rows", type=int, help="Only so many rows of each.")
    parser.add_argument("--seeds", default="1,2,3", help="Seeds, with commas.")
    told = parser.parse_args()
    logging.disable(logging.WARNING)
    seeds = [int(seed) for seed in told.seeds.split(",")]
    margins, calibrations, of_lr, positives = {}, {}, {}, {}
    print(f"{'log':28} {'model':10} {'test AUC':>9} {'LogLoss':>9} {'calibration':>12} {'seconds':>8}")
    for name in told.logs.split(","):
        config = described(name, told.rows)
        data = prepare(config)
        auc: dict[str, float] = {}
        entries = [Entry(n, m, config.training) for n, m in config.baselines.items()]
        for entry in [*entries, Entry("candidate", config.model, config.training)]:
            runs = [measure(config, entry, seed, data) for seed in (seeds[:1] if counted(entry) else seeds)]
            mean = {m: statistics.fmean(r.metrics["test"][m] for r in runs) for m in ("auc", "logloss", "calibration")}
            auc[entry.name] = mean["auc"]
            seconds = statistics.fmean(run.seconds for run in runs)
            print(
                f"{name:28} {entry.name:10} {mean['auc']:9.4f} {mean['logloss']:9.4f} "
                f"{mean['calibration']:12.3f} {seconds:8.1f}",
                flush=True,
            )
        lr = peer(config, data)
        judged = runs[0].metrics["test"]
        positives[name] = round(judged["mean_label"] * judged["example_count"])
        print(f"{name:28} {'sklearn lr':10} {lr:9.4f}   of {positives[name]:,} positives", flush=True)
        margins[name] = auc["candidate"] - max(value for key, value in auc.items() if key != "candidate")
        calibrations[name] = mean["calibration"]
        of_lr[name] = auc["lr"] - lr
    print(
        json.dumps(
            {
                "worst_margin": round(min(margins.values()), 4),
                "worst_calibration": round(max(calibrations.values(), key=lambda c: abs(math.log(c))), 3),
                "worst_lr_margin": round(min(of_lr.values()), 4),
                "margins": {name: round(value, 4) for name, value in margins.items()},
                "calibrations": {name: round(value, 3) for name, value in calibrations.items()},
                "lr_margins": {name: round(value, 4) for name, value in of_lr.items()},
                "test_positives": positives,
            }
        )
    )


if __name__ == "__main__":
    main()
