"""Models that rank all items, on MovieLens-100K: three seeds, chosen on eval; and how fast two of them train.

Two protocols, full ranking, seen items left out. `positives`: ratings of 4 or more, each user's last tenth is test, the
tenth before it eval. `next`: all events, each user's last is test. Prints tables, and as its last line one JSON object.
MODELS=a,b and SEEDS=1 in the environment make it shorter; KEEP=FOLDER writes predictions there.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.recommend import recommend_p99_ms
from benchmarks.topk import topk_1e6_ms
from benchmarks.topn.arrays import known_of, save
from benchmarks.topn.quality import Splits, mean, measure
from benchmarks.training.__main__ import pytorch
from components.contest import counted, entries
from configs import load_config
from pipeline.prepare import prepare

HERE = Path(__file__).parent
CONFIGS = Path(__file__).parents[2] / "configs"
SEEDS = tuple(map(int, os.environ.get("SEEDS", "1,2,3").split(",")))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
EPOCHS = {"lightgcn": "8", "sasrec": "3"}
COLUMNS = ("eval ndcg@10", "test ndcg@10", "recall@10", "recall@100", "lowest", "highest", "of train", "seconds")


def override(config: str) -> list[str]:
    return [f"runs.folder=../runs/bench-topn/{config}"]


def quality(name: str) -> dict[str, float]:
    """Print a table and return each model's mean NDCG@10 on test, and the one chosen on eval."""
    config = load_config(CONFIGS / f"{name}.yaml", override(name))
    data = prepare(config)
    splits = Splits.of(config, data)
    wanted = os.environ.get("MODELS")
    keep = Path(os.environ["KEEP"]) if "KEEP" in os.environ else None
    print(f"\n{name:18}" + "".join(f"{c:>13}" for c in COLUMNS), flush=True)
    found, on_eval = {}, {}
    for entry in entries(config):
        if wanted and entry.name not in wanted.split(","):
            continue
        seeds = SEEDS[:1] if counted(entry) else SEEDS
        runs = [measure(config, entry, seed, data, splits, keep) for seed in seeds]
        tests = [run["test"]["ndcg@10"] for run in runs]
        found[entry.name], on_eval[entry.name] = sum(tests) / len(tests), mean(runs, "eval", "ndcg@10")
        figures = [on_eval[entry.name], found[entry.name], *(mean(runs, "test", f"recall@{k}") for k in (10, 100))]
        figures += [min(tests), max(tests), mean(runs, "test of train", "ndcg@10")]
        seconds = sum(run["history"]["seconds"] for run in runs) / len(runs)
        print(f"{entry.name:18}" + "".join(f"{x:13.4f}" for x in figures) + f"{seconds:13.1f}", flush=True)
    if on_eval:
        found["chosen"] = found[max(on_eval, key=lambda n: on_eval[n])]
    return found


def speed() -> dict[str, float | None]:
    """Return how many times as many events a second of CPU time we train on as PyTorch; both one thread, in turns."""
    result: dict[str, float | None] = {}
    python = pytorch()
    environment = os.environ | {"THREADS": "1", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for model, name in (("lightgcn", "movielens_topn"), ("sasrec", "movielens_next")):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/events.npz"
            save(path, known_of(str(CONFIGS / f"{name}.yaml"), override(name))[0])
            sides = {"ours": [sys.executable, "-m", "benchmarks.topn.ours", model]}
            if python:
                sides["PyTorch"] = [python, str(HERE / f"pytorch_{model}.py")]
            best = dict.fromkeys(sides, 0.0)
            for _ in range(ROUNDS):
                for side, command in sides.items():
                    done = subprocess.run(
                        [*command, path, EPOCHS[model]], env=environment, capture_output=True, text=True
                    )
                    if done.returncode:
                        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
                    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
                    best[side] = max(best[side], *(line["events_per_cpu_second"] for line in lines))
        for side, events in best.items():
            print(f"{model}, {side:10}{events:14,.0f} events a second of CPU time, one thread", flush=True)
        result[f"{model}_vs_pytorch"] = round(best["ours"] / best["PyTorch"], 2) if python else None
    return result


def main() -> None:
    """Print the tables and the JSON line."""
    logging.disable(logging.WARNING)
    positives, following = quality("movielens_topn"), quality("movielens_next")
    result = {f"{name}_ndcg10": round(value, 4) for name, value in (positives | following).items() if name != "chosen"}
    result["best_ndcg10"] = round(positives["chosen"], 4) if positives else None
    print()
    result |= speed()
    result["topk_1e6_ms"] = round(topk_1e6_ms(), 2)
    result["recommend_p99_ms"] = round(recommend_p99_ms(), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
