"""The data path, from logs to metrics: stock components and ours on the same synthetic rows, in one run.

    make bench-pipeline

Each stage runs in a process of its own, imports not counted, first ours, then stock; from the second on both read what
our ingest wrote, so that results can be compared. `cpu` has the ratios of CPU time, which hold on a loaded machine.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = 500_000
MORE = 10
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
_TOLERANCE = {"auc": 2e-3, "prauc": 5e-3}  # TFMA's are sums over 10,000 thresholds, ours over all scores


def take(stage: str, folder: Path, who: str) -> dict[str, float]:
    """Run a stage in a process of its own and return what it took."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline.stages", stage, str(folder), who],
        env={**os.environ, **_QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    took = json.loads(done.stdout.splitlines()[-1])
    print(f"{stage:<11}{who:<6}", *(f"{name} {value:,.1f}" for name, value in took.items()), flush=True)
    return took


def measure(folder: Path, rows: int, sides: tuple[str, ...]) -> dict[str, dict[str, dict[str, float]]]:
    """Run all stages on `rows` rows and return what each took, by stage and side."""
    from benchmarks import evaluator, ingest
    from benchmarks.pipeline.stages import STAGES

    (folder / "logs").mkdir(parents=True)
    ingest.write_csv(folder / "logs" / "events.csv", rows)
    print(f"{rows:,} rows", flush=True)
    took: dict[str, dict[str, dict[str, float]]] = {}
    for stage in STAGES:
        if stage == "transform":
            write_schema(folder)
        if stage == "evaluate":
            evaluator.write_models(str(folder / "models"), column="price")
        took[stage] = {who: take(stage, folder, who) for who in sides}
    return took


def write_schema(folder: Path) -> None:
    import tensorflow_data_validation as tfdv

    statistics = tfdv.load_stats_binary(str(folder / "statistics" / "ours" / "Split-train" / "FeatureStats.pb"))
    schema = tfdv.infer_schema(statistics, infer_feature_shape=False)
    (folder / "schema").mkdir()
    tfdv.write_schema_text(schema, str(folder / "schema" / "schema.pbtxt"))


def differences(folder: Path) -> list[str]:
    """Return where the two sides' results differ."""
    return [*_in_rows(folder), *_in_statistics(folder), *_in_transforms(folder), *_in_metrics(folder)]


def _records(pattern: str, folder: Path) -> Iterator[dict[str, Any]]:
    import tensorflow as tf

    files = sorted(str(path) for path in folder.glob(pattern))
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        yield {name: value.SerializeToString(deterministic=True) for name, value in features.items()}


def _in_rows(folder: Path) -> Iterator[str]:
    mine, theirs = (
        collections.Counter((row["user"], row["item"], row["time"]) for row in _records(pattern, folder / "ingest"))
        for pattern in ("ours/Split-*/*.gz", "stock/Split-*/*.gz")
    )
    if mine != theirs:
        yield "ingest: rows"


def _in_statistics(folder: Path) -> Iterator[str]:
    import tensorflow_data_validation as tfdv

    for split in ("train", "eval", "test"):
        mine, theirs = (
            {
                f.path.step[0]: f
                for f in tfdv.load_stats_binary(str(folder / "statistics" / who / f"Split-{split}" / "FeatureStats.pb"))
                .datasets[0]
                .features
            }
            for who in ("ours", "stock")
        )
        for name in mine.keys() | theirs.keys():
            one, other = mine[name], theirs[name]
            if one.WhichOneof("stats") == "string_stats":
                same = one == other
            else:
                a, b = one.num_stats, other.num_stats
                same = (a.min, a.max, a.num_zeros, a.common_stats) == (b.min, b.max, b.num_zeros, b.common_stats)
                same &= math.isclose(a.mean, b.mean, rel_tol=1e-9) and math.isclose(a.std_dev, b.std_dev, rel_tol=1e-9)
            if not same:
                yield f"statistics: {name} in {split}"


def _in_transforms(folder: Path) -> Iterator[str]:
    assets = {who: folder / "transform" / who / "graph" / "transform_fn" / "assets" for who in ("ours", "stock")}
    for path in assets["ours"].iterdir():
        if path.read_bytes() != (assets["stock"] / path.name).read_bytes():
            yield f"transform: vocabulary {path.name}"
    ids = [
        collections.Counter(
            tuple(row[name] for name in ("user", "item", "hour", "label"))
            for row in _records(f"{who}/examples/Split-train/*.gz", folder / "transform")
        )
        for who in ("ours", "stock")
    ]
    if ids[0] != ids[1]:
        yield "transform: examples of train"


def _in_metrics(folder: Path) -> Iterator[str]:
    from benchmarks import evaluator

    found, _ = evaluator.largest_differences(
        str(folder / "evaluate" / "ours"), str(folder / "evaluate" / "stock"), list(evaluator.MODELS)
    )
    print("metrics, largest differences:", found)
    for metric, difference in found.items():
        if difference > _TOLERANCE.get(metric, 1e-4):
            yield f"evaluate: {metric}"


def ratios(took: dict[str, dict[str, dict[str, float]]], figure: str) -> dict[str, float]:
    """Return stock's time over ours, by stage and for all stages together."""
    found = {stage: sides["stock"][figure] / sides["ours"][figure] for stage, sides in took.items()}
    sums = [sum(sides[who][figure] for sides in took.values()) for who in ("stock", "ours")]
    return {name: round(value, 2) for name, value in {**found, "whole": sums[0] / sums[1]}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--more", type=int, default=MORE, help="times as many rows for ours alone; 0 leaves that out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        took = measure(folder / "once", given.rows, ("ours", "stock"))
        wrong = differences(folder / "once")
        for line in wrong:
            print("differs:", line)
        result = {**ratios(took, "seconds"), "equal": not wrong, "cpu": ratios(took, "cpu"), "rows": given.rows}
        if given.more:
            more = measure(folder / "more", given.rows * given.more, ("ours",))
            for name, figure, join in (("time", "cpu", sum), ("memory", "peak", max)):
                totals = [join(sides["ours"][figure] for sides in t.values()) for t in (more, took)]
                result[f"rows{given.more}x_{name}"] = round(totals[0] / totals[1], 2)
            result["peak_mib"] = {s: round(sides["ours"]["peak"] / 2**20) for s, sides in more.items()}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
