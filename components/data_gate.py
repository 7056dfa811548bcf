"""The data gate: anomalies against the schema, drift against the last accepted run, skew between splits.

It always ends with a verdict and its findings, which is what stops the run; it never passes in silence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import leaks
from components.artifacts import DataBlessing, publish
from components.distances import distances
from components.examples import read_batches
from components.ingest.splitting import SPLITS
from components.outcomes import NodeId
from components.schema import load_statistics
from components.verdict import Direction, Reason, Ruling, Verdict
from configs import Config, canonical_json
from configs.features import LABEL
from configs.gates import Validation

FINDINGS_FILE = "findings.json"
BASELINE_FILE = "baseline.pb"
_MAX_OFFENDERS = 3
_MAX_TOLD = 5


@dataclass
class Finding:
    """One thing that is not as it should be. `severity` is `error` (stops the run) or `warning`.

    `value` and `limit` are numbers where the measure is one; else `value` says what was found, and the limit is the
    schema.
    """

    severity: str
    split: str
    feature: str
    measure: str
    value: float | str
    limit: float | None
    what: str
    examples: list[str] = field(default_factory=list)
    direction: Direction = Direction.AT_MOST

    def as_reason(self) -> Reason:
        """Return what it speaks against the data."""
        number = self.value if isinstance(self.value, float | int) else None
        found = str(self.value)
        if self.limit is not None:
            found = f"{self.measure} {self.value:g}, {self.direction} {self.limit:g} allowed"
        shown = f" (for example {'; '.join(self.examples[:2])})" if self.examples else ""
        return Reason(
            text=f"{self.feature} in {self.split}: {self.what}; {found}{shown}", metric=self.measure, slice=self.split,
            feature=self.feature, value=number, limit=self.limit,
            direction=None if self.limit is None else self.direction,
        )  # fmt: skip


def schema_findings(
    anomalies: anomalies_pb2.Anomalies, split: str, warn: list[str], schema: schema_pb2.Schema, examples: types.Artifact
) -> list[Finding]:
    """Return a finding for every anomaly that ExampleValidator saw in a split, with rows that show it."""
    findings = []
    for name, info in sorted(anomalies.anomaly_info.items()):
        for reason in info.reason:
            kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            findings.append(
                Finding(
                    severity="warning" if kind in warn else "error",
                    split=split,
                    feature=name,
                    measure=kind,
                    value=reason.description,
                    limit=None,
                    what=reason.short_description,
                    examples=offending_rows(examples, split, name, schema),
                )
            )
    return findings


def distance_findings(
    measured: Mapping[str, tuple[str, float, float]],
    what: str,
    split: str,
    before: statistics_pb2.DatasetFeatureStatisticsList,
    now: statistics_pb2.DatasetFeatureStatisticsList,
) -> list[Finding]:
    """Return a finding for every feature whose distance is over its limit, with the values that moved most."""
    return [
        Finding("error", split, name, measure, round(value, 3), limit, what, moved_values(name, before, now))
        for name, (measure, value, limit) in sorted(measured.items())
        if value > limit
    ]


def label_findings(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList], label: str, fewest: int
) -> list[Finding]:
    """Return a warning for each split that models are judged on whose rarer label is there less than `fewest` times."""
    findings = []
    for split in SPLITS[1:]:
        feature = _feature_statistics(statistics[split], label)
        if feature is None:
            continue
        rows = feature.num_stats.common_stats.num_non_missing
        positives = round(feature.num_stats.mean * rows)
        rarer, what = min((positives, "positives"), (rows - positives, "negatives"))
        if rarer < fewest:
            findings.append(
                Finding(
                    "warning", split, label, what, rarer, fewest,
                    f"only {rarer:,} {what}: metrics of {split} tell little, whatever they are",
                    direction=Direction.AT_LEAST,
                )
            )  # fmt: skip
    return findings


def leak_findings(examples: types.Artifact, user: str, columns: Sequence[str]) -> list[Finding]:
    """Return a warning for each column that all but decides the label in the training split's first rows."""
    findings = []
    for name, leak in leaks.of_columns(read_batches(examples, SPLITS[0]), user, columns).items():
        if leak.suspicious:
            findings.append(
                Finding(
                    "warning", SPLITS[0], name, "leak", round(leak.worst, 4), leaks.SUSPICIOUS_AUC,
                    f"gives the label away ({leak}): is it known before the event? If not, take it out of features",
                )
            )  # fmt: skip
    return findings


def offending_rows(examples: types.Artifact, split: str, column: str, schema: schema_pb2.Schema) -> list[str]:
    """Return the first few examples of a split that break the schema in a column."""
    feature = next((f for f in schema.feature if f.name == column), None)
    found: list[str] = []
    for batch in read_batches(examples, split):
        if column not in batch.schema.names or pa.types.is_null(batch.schema.field(column).type):
            return [f"no row of {split} has {column!r}"]
        values = batch.column(column)
        bad = pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)
        if feature is not None and not pc.any(bad).as_py():
            flat, parents = values.flatten(), pc.list_parent_indices(values)
            rows = pc.unique(parents.filter(_outside(flat, feature, schema)))
            bad = pc.is_in(pa.array(range(batch.num_rows), rows.type), rows)
        for row in batch.filter(bad).slice(0, _MAX_OFFENDERS - len(found)).to_pylist():
            found.append(", ".join(f"{k}={_shown(v)}" for k, v in row.items()))
        if len(found) >= _MAX_OFFENDERS:
            break
    return found


def moved_values(
    name: str, before: statistics_pb2.DatasetFeatureStatisticsList, now: statistics_pb2.DatasetFeatureStatisticsList
) -> list[str]:
    """Return what changed most in a feature: shares of values, or the mean of a number."""
    old, new = _feature_statistics(before, name), _feature_statistics(now, name)
    if old is None or new is None:
        return ["the feature is missing on one side"]
    if new.HasField("string_stats"):
        shares = [_shares(f) for f in (old, new)]
        moved = sorted({*shares[0], *shares[1]}, key=lambda v: -abs(shares[1].get(v, 0.0) - shares[0].get(v, 0.0)))
        return [f"{v!r}: {shares[0].get(v, 0.0):.1%} -> {shares[1].get(v, 0.0):.1%}" for v in moved[:_MAX_OFFENDERS]]
    return [
        f"{measure}: {getattr(old.num_stats, measure):.4g} -> {getattr(new.num_stats, measure):.4g}"
        for measure in ("mean", "median", "std_dev")
    ]


def _outside(values: pa.Array, feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> pa.Array:
    kind = feature.WhichOneof("domain_info")
    if kind in ("domain", "string_domain"):
        domain = (
            feature.string_domain
            if kind == "string_domain"
            else next(d for d in schema.string_domain if d.name == feature.domain)
        )
        return pc.invert(pc.is_in(values, pa.array([v.encode() for v in domain.value], values.type)))
    if kind in ("int_domain", "float_domain"):
        domain = getattr(feature, kind)
        low = pc.less(values, domain.min) if domain.HasField("min") else pa.scalar(False)
        high = pc.greater(values, domain.max) if domain.HasField("max") else pa.scalar(False)
        outside = pc.or_(low, high)
        return outside if isinstance(outside, pa.Array) else pa.array([outside.as_py()] * len(values))
    return pa.array([False] * len(values))


def _feature_statistics(statistics, name: str):
    return next((f for f in statistics.datasets[0].features if ".".join(f.path.step) == name), None)


def _shares(feature) -> dict[str, float]:
    total = sum(b.sample_count for b in feature.string_stats.rank_histogram.buckets) or 1.0
    return {b.label: b.sample_count / total for b in feature.string_stats.rank_histogram.buckets}


def _shown(value: Any) -> str:
    cells = [
        v.decode(errors="replace") if isinstance(v, bytes) else f"{v:g}" if isinstance(v, float) else str(v)
        for v in value or []
    ]
    return "|".join(cells)[:60] if cells else "(missing)"


class DataGateSpec(ComponentSpec):
    """`validation` is JSON, and so is `compared`: columns, and what is looked for in them."""

    PARAMETERS = {
        "validation": ExecutionParameter(type=str),
        "compared": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "baseline": ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=DataBlessing)}


class DataGateExecutor(base_executor.BaseExecutor):
    """Judges the data of a run."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write verdict and findings."""
        validation = Validation.model_validate_json(exec_properties["validation"])
        given = json.loads(exec_properties["compared"])
        compared = given["columns"]
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        statistics_artifact = artifact_utils.get_single_instance(input_dict["statistics"])
        anomalies_artifact = artifact_utils.get_single_instance(input_dict["anomalies"])
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        schema = tfdv.load_schema_text(os.path.join(schema_uri, "schema.pbtxt"))
        statistics = {split: load_statistics(statistics_artifact, split) for split in SPLITS}

        findings: list[Finding] = []
        for split in SPLITS:
            count = int(statistics[split].datasets[0].num_examples)
            if count < validation.min_examples:
                findings.append(
                    Finding(
                        "error", split, "(all)", "examples", count, validation.min_examples,
                        "fewer examples than validation.min_examples", direction=Direction.AT_LEAST,
                    )
                )  # fmt: skip
            findings += schema_findings(
                _load_anomalies(anomalies_artifact, split), split, validation.warn, schema, examples
            )
        if given["label"]:
            findings += label_findings(statistics, LABEL, validation.min_positives)
            findings += leak_findings(examples, given["user"], given["features"])
        skew_limits = {c: _limit(validation, c, "skew") for c in compared}
        measured: dict[str, Any] = {"skew": {}, "drift": {}}
        for split in SPLITS[1:]:
            skew = distances(statistics["train"], statistics[split], skew_limits, compared)
            measured["skew"][split] = skew
            findings += distance_findings(
                skew, f"skew between train and {split}", split, statistics["train"], statistics[split]
            )
        if input_dict.get("baseline"):
            path = os.path.join(input_dict["baseline"][0].uri, BASELINE_FILE)
            before = tfdv.load_stats_binary(path)
            drift_limits = {c: _limit(validation, c, "drift") for c in compared}
            measured["drift"] = distances(before, statistics["train"], drift_limits, compared)
            findings += distance_findings(
                measured["drift"], "drift since the last accepted run", "train", before, statistics["train"]
            )

        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        verdict = _verdict(findings, measured)
        publish(verdict, blessing, examples.span or 0)
        with open(os.path.join(blessing.uri, FINDINGS_FILE), "w") as stream:
            json.dump(
                {"blessed": verdict.accepted, "findings": [asdict(f) for f in findings], "distances": measured},
                stream,
                indent=1,
            )
        with open(os.path.join(blessing.uri, BASELINE_FILE), "wb") as stream:
            stream.write(statistics["train"].SerializeToString())


class DataGate(base_component.BaseComponent):
    """Blesses the data of a run or stops it."""

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(DataGateExecutor)

    def __init__(self, config: Config, **inputs: types.BaseChannel):
        super().__init__(
            spec=DataGateSpec(
                validation=canonical_json(config.validation),
                compared=json.dumps(_compared(config)),
                blessing=types.Channel(type=DataBlessing),
                **inputs,
            )
        )


def _compared(config: Config) -> dict[str, Any]:
    """Return the columns to compare with the column of their owner's ids, and what the label is looked for in."""
    ids = {"user": config.data.user, "item": config.data.item}
    raw = config.raw_columns
    known = (config.data.user, config.data.item)
    return {
        "columns": {name: ids.get(raw[name].of) if name in raw else None for name in config.compared_columns},
        "features": [c.name for c in raw.values() if c.type != "int64" and c.length is None and c.name not in known],
        "label": not config.data.positives_only,
        "user": config.data.user,
    }


def _limit(validation: Validation, column: str, kind: str) -> float:
    own = validation.limits.get(column)
    value = getattr(own, kind) if own else None
    return getattr(validation, kind) if value is None else value


def _load_anomalies(artifact: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    path = os.path.join(artifact_utils.get_split_uri([artifact], split), "SchemaDiff.pb")
    with open(path, "rb") as stream:
        return anomalies_pb2.Anomalies.FromString(stream.read())


def _verdict(findings: list[Finding], measured: dict[str, Any]) -> Verdict:
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        count = f"{len(errors)} finding{'s' if len(errors) > 1 else ''}"
        return Verdict(
            by=NodeId.DATA_GATE,
            ruling=Ruling.REFUSED,
            summary=f"refused: {count}",
            sentence=f"The data gate refused the data: {count}. Nothing was trained; the version now served stays.",
            reasons=tuple(f.as_reason() for f in errors),
            next="Fix the logs. If the data has really changed, `recsys schema diff` shows how and `recsys schema "
            "accept` takes it; limits of drift and skew are in `validation`.",
            details=FINDINGS_FILE,
        )
    worst = max(((v[1], n) for split in measured["skew"].values() for n, v in split.items()), default=(0.0, "none"))
    drift = max(((v[1], n) for n, v in measured["drift"].items()), default=None)
    count = f"{len(findings)} warning{'' if len(findings) == 1 else 's'}"
    said = f"accepted, {count}; largest skew {worst[0]:.3f} ({worst[1]})"
    said += f", drift {drift[0]:.3f} ({drift[1]})" if drift else ", no earlier run to drift from"
    for warning in findings[:_MAX_TOLD]:
        said += f"; warning: {warning.feature} in {warning.split}: {warning.what}"
    return Verdict(by=NodeId.DATA_GATE, ruling=Ruling.ACCEPTED, summary=said, details=FINDINGS_FILE)
