"""The data of a run, feature by feature: train against eval and test against the last accepted run."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types

from components.data_gate import BASELINE_FILE
from components.examples import read_batches
from components.ingest.component import COUNTS_FILE, DEAD_LETTERS_FILE
from components.ingest.splitting import SPLITS
from components.report.slices import short
from components.schema import load_statistics
from transforms.preprocessing import read_features
from transforms.transformed import transformed_features

LAST = "last"
_TOP_VALUES = 12
_LETTERS, _LETTERS_COUNTED = 20, 100_000


def counts(folder: str) -> dict[str, Any]:
    """Return ingest's counts by split, and the malformed rows: how many, how many of each reason, the first ones."""
    with open(os.path.join(folder, COUNTS_FILE), encoding="utf-8") as stream:
        tally = json.load(stream)
    splits = {
        split: {
            "rows": tally.get(f"{split}.rows", 0),
            "positive": tally.get(f"{split}.positive", 0),
            "cold_user": tally.get(f"{split}.cold_user", 0),
            "cold_item": tally.get(f"{split}.cold_item", 0),
            "from": tally.get(f"{split}.min.time"),
            "to": tally.get(f"{split}.max.time"),
        }
        for split in SPLITS
    }
    return {"splits": splits, "malformed": tally.get("malformed", 0), **_dead_letters(folder)}


def _dead_letters(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, DEAD_LETTERS_FILE)
    first: list[dict[str, str]] = []
    reasons: Counter[str] = Counter()
    read = 0
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if read >= _LETTERS_COUNTED:
                    break
                letter = json.loads(line)
                read += 1
                reasons[_kind(str(letter.get("reason", "")))] += 1
                if len(first) < _LETTERS:
                    first.append({key: str(value)[:200] for key, value in letter.items()})
    return {"letters": first, "letters_read": read, "reasons": reasons.most_common(10)}


def _kind(reason: str) -> str:
    """Return a reason with the column that it names and without the values that it quotes after it."""
    column, *rest = re.split(r"('[^']*')", reason)
    return (column + "".join("…" if i and part.startswith("'") else part for i, part in enumerate(rest)))[:120]


def features(statistics: types.Artifact, baseline: str | None, gate: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return what TFDV found of each column: by split and, from the folder of `baseline`, of the last accepted run.

    `gate` holds the data gate's findings and distances; the columns it refused come first.
    """
    sets = {split: load_statistics(statistics, split) for split in SPLITS}
    if baseline is not None:
        sets[LAST] = tfdv.load_stats_binary(os.path.join(baseline, BASELINE_FILE))
    by_set = {name: {_path(f): f for f in list_.datasets[0].features} for name, list_ in sets.items()}
    totals = {name: list_.datasets[0].num_examples for name, list_ in sets.items()}
    names = sorted({path for found in by_set.values() for path in found})
    distances = gate["distances"] if gate else {"skew": {}, "drift": {}}
    findings = gate["findings"] if gate else []
    rows = []
    for name in names:
        known = {s: by_set[s][name] for s in sets if name in by_set[s]}
        kinds = {_kind_of(f) for f in known.values()}
        rows.append(
            {
                "name": name,
                "kind": "text" if "text" in kinds else "number",
                "sets": {s: describe(f, totals[s]) for s, f in known.items()},
                "skew": {split: measured[name] for split, measured in distances["skew"].items() if name in measured},
                "drift": distances["drift"].get(name),
                "findings": [i for i, f in enumerate(findings) if f["feature"] == name],
                "errors": sum(f["feature"] == name and f["severity"] == "error" for f in findings),
            }
        )
    return sorted(rows, key=lambda row: (-row["errors"], -_worst_share(row), row["name"]))


def describe(feature: statistics_pb2.FeatureNameStatistics, total: int) -> dict[str, Any]:
    """Return a column's figures in one set of `total` examples, and its distribution."""
    kind = feature.WhichOneof("stats")
    stats = getattr(feature, kind)
    common = stats.common_stats
    # A row without a value is an empty list, which TFDV counts as there: of columns of one value, values are rows.
    single = common.max_num_values <= 1
    present = common.tot_num_values if single else common.num_non_missing
    known = total and (single or common.min_num_values >= 1)
    figures: dict[str, Any] = {"examples": total, "present": present, "missing": 1 - present / total if known else None}
    if kind == "string_stats":
        values = sum(b.sample_count for b in stats.rank_histogram.buckets)
        figures |= {
            "unique": stats.unique,
            "top": [[b.label, b.sample_count] for b in stats.rank_histogram.buckets[:_TOP_VALUES]],
            "ranked": values,
        }
    else:
        standard = next((h for h in stats.histograms if h.type == statistics_pb2.Histogram.STANDARD), None)
        figures |= {
            "mean": stats.mean,
            "std_dev": stats.std_dev,
            "min": stats.min,
            "median": stats.median,
            "max": stats.max,
            "zeros": stats.num_zeros,
            "buckets": [
                [short(b.low_value), short(b.high_value), short(b.sample_count)]
                for b in (standard.buckets if standard else [])
            ],
        }
    return figures


def unknown_shares(
    examples: types.Artifact, transform_graph: str, table: str, id_columns: tuple[str, str]
) -> dict[str, dict[str, float]]:
    """Return by feature and split (eval, test) the share of values outside the vocabulary, of those that are there.

    `examples` are the transformed ones, `table` is the feature table as JSON. Hashed features know no such values.
    """
    inputs = transformed_features(
        read_features(table), tft.TFTransformOutput(transform_graph).vocabulary_size_by_name, id_columns
    )
    ranged = {f.name: f.oov for f in inputs if f.oov is not None and f.oov[0] > 0}
    found: dict[str, dict[str, float]] = {name: {} for name in ranged}
    for split in SPLITS[1:]:
        tally = {name: [0, 0] for name in ranged}
        for batch in read_batches(examples, split):
            for name, (low, high) in ranged.items():
                if name not in batch.schema.names or pa.types.is_null(batch.schema.field(name).type):
                    continue
                ids = batch.column(name).flatten()
                given = pc.greater(ids, 0)
                outside = pc.and_(pc.greater_equal(ids, low), pc.less(ids, high))
                tally[name][0] += pc.sum(outside).as_py() or 0
                tally[name][1] += pc.sum(given).as_py() or 0
        for name, (outside, given) in tally.items():
            if given:
                found[name][split] = outside / given
    return found


def _worst_share(row: Mapping[str, Any]) -> float:
    """How near the column comes to one of its limits."""
    measured = [*row["skew"].values(), *([row["drift"]] if row["drift"] else [])]
    return max((value / limit if limit else float(value > 0) for _, value, limit in measured), default=-1.0)


def _kind_of(feature: statistics_pb2.FeatureNameStatistics) -> str:
    return "text" if feature.WhichOneof("stats") == "string_stats" else "number"


def _path(feature: statistics_pb2.FeatureNameStatistics) -> str:
    return ".".join(feature.path.step)
