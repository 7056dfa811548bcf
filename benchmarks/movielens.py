"""Models on MovieLens-100K, three seeds: DeepFM and baselines by both ways to split, and the family with histories.

Runs the pipeline of each config up to Transform (nothing again where that is cached), trains each model on the
transformed examples with the config's values, and scores the raw eval and test splits with the exported model, as
`recsys compare` does. Of the family the model with the best mean eval AUC is the chosen one. Prints a table, and as its
last line one JSON object.
"""

import argparse
import json
import logging
import statistics
from pathlib import Path

from components.contest import counted, entries, measure
from configs import load_config
from pipeline.prepare import prepare

CONFIGS = Path(__file__).parents[1] / "configs"
SEEDS = (1, 2, 3)
BASIC = ("item_mean", "lr", "fm", "deepfm")
CONTESTS = {  # name: config, what to override, models; none: all that the config names
    "user_time": ("movielens.yaml", "data.split.by=user_time", BASIC),
    "time": ("movielens.yaml", "data.split.by=time", BASIC),
    "family": ("movielens_family.yaml", "data.split.by=user_time", ()),
}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contests", default=",".join(CONTESTS), help="Which, with commas; default: all.")
    told = parser.parse_args()
    logging.disable(logging.WARNING)
    result: dict[str, float | str] = {}
    columns = ("eval AUC", "test AUC", "lowest", "highest", "LogLoss", "seconds")
    print(f"{'contest':10} {'model':20}" + "".join(f"{column:>9}" for column in columns))
    for contest in told.contests.split(","):
        file, override, names = CONTESTS[contest]
        config = load_config(CONFIGS / file, [override, f"runs.folder=../runs/bench-movielens/{contest}"])
        data = prepare(config)
        eval_auc: dict[str, float] = {}
        for entry in entries(config, names):
            runs = [measure(config, entry, seed, data) for seed in (SEEDS[:1] if counted(entry) else SEEDS)]
            aucs = [run.metrics["test"]["auc"] for run in runs]
            logloss = statistics.fmean(run.metrics["test"]["logloss"] for run in runs)
            eval_auc[entry.name] = statistics.fmean(run.metrics["eval"]["auc"] for run in runs)
            figures = [eval_auc[entry.name], statistics.fmean(aucs), min(aucs), max(aucs), logloss]
            seconds = statistics.fmean(run.seconds for run in runs)
            print(
                f"{contest:10} {entry.name:20}" + "".join(f"{x:9.4f}" for x in figures) + f"{seconds:9.1f}", flush=True
            )
            result[f"{entry.name}_{contest}_auc"] = round(statistics.fmean(aucs), 4)
            result[f"{entry.name}_{contest}_logloss"] = round(logloss, 4)
        result[f"chosen_{contest}"] = max(eval_auc, key=lambda name: eval_auc[name])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
