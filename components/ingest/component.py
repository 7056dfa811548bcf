"""The TFX component: an ExampleGen whose driver lists the files, so that changed logs are never taken from cache."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, base_driver, executor_spec
from tfx.orchestration import data_types_utils
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Catalogue, IngestReport
from components.ingest import pipeline, reading
from components.ingest.files import LogFile, find_files, fingerprint, newest_span
from components.ingest.rows import RowTyper
from components.ingest.splitting import SPLITS
from components.refusal import RefusedError
from components.schema import read_schema
from configs import Config, ConfigError, canonical_json
from configs.data import Data, span_number, spans_until
from configs.features import History, RawColumn, columns_from_json, columns_to_json, histories

COUNTS_FILE = "counts.json"
DEAD_LETTERS_FILE = "dead_letters.jsonl"


class IngestSpec(ComponentSpec):
    """Parameters are JSON: cache keys hold their text."""

    PARAMETERS = {
        "data": ExecutionParameter(type=str),
        "source": ExecutionParameter(type=str),
        "columns": ExecutionParameter(type=str),
        "histories": ExecutionParameter(type=str),
        "evidence": ExecutionParameter(type=str),
        "schema": ExecutionParameter(type=str),
        "files": ExecutionParameter(type=str, optional=True),
        "fingerprint": ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "catalogue": ChannelParameter(type=Catalogue),
        "report": ChannelParameter(type=IngestReport),
    }


class IngestDriver(base_driver.BaseDriver):
    """Puts the files to read, and a fingerprint of them, into the parameters before the cache is asked."""

    def run(self, execution_info) -> driver_output_pb2.DriverOutput:
        """Resolve `files` and `fingerprint`."""
        given = execution_info.exec_properties
        files = find_files(Data.model_validate_json(given["data"]), given["source"])
        result = driver_output_pb2.DriverOutput()
        for key, value in (
            ("files", json.dumps([asdict(f) for f in files])),
            ("fingerprint", fingerprint(files)),
        ):
            data_types_utils.set_metadata_value(result.exec_properties[key], value)
        return result


class IngestExecutor(base_beam_executor.BaseBeamExecutor):
    """Runs the Beam pipeline and refuses logs that no model should learn from."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write examples, catalogue and report. Raises RefusedError."""
        data = Data.model_validate_json(exec_properties["data"])
        columns = columns_from_json(exec_properties["columns"])
        files = [LogFile(**f) for f in json.loads(exec_properties["files"])]
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        report = artifact_utils.get_single_instance(output_dict["report"])
        now = datetime.now(UTC)
        check_headers(data, columns, files, now, exec_properties["schema"])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        outputs = pipeline.Outputs(
            split=_SplitFolder({s: artifact_utils.get_split_uri([examples], s) for s in SPLITS}),
            catalogue=artifact_utils.get_single_instance(output_dict["catalogue"]).uri,
            dead_letters=os.path.join(report.uri, DEAD_LETTERS_FILE),
            counts=os.path.join(report.uri, COUNTS_FILE),
        )
        with self._make_beam_pipeline() as root:
            histories = [History(**h) for h in json.loads(exec_properties["histories"])]
            pipeline.build(root, data, columns, files, outputs, now, histories)
        with open(outputs.counts) as stream:
            counts = json.load(stream)
        examples.span = newest_span(files)
        report.set_string_custom_property("summary", summary(counts) + spans_read(data, files))
        try:
            judge(data, files, counts, outputs.dead_letters)
        except RefusedError as refusal:
            evidence = exec_properties["evidence"]
            if not os.path.exists(outputs.dead_letters):
                raise
            os.makedirs(evidence, exist_ok=True)
            kept = shutil.copy(outputs.dead_letters, os.path.join(evidence, DEAD_LETTERS_FILE))
            raise RefusedError(f"{refusal} Malformed rows with their reasons: {kept}") from None


class _SplitFolder(dict):
    def __call__(self, split: str) -> str:
        return self[split]


class Ingest(base_beam_component.BaseBeamComponent):
    """Reads interaction logs into examples."""

    SPEC_CLASS = IngestSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(IngestExecutor)
    DRIVER_CLASS = IngestDriver

    def __init__(self, config: Config, evidence: str):
        super().__init__(
            spec=IngestSpec(
                data=canonical_json(config.data),
                source=config.source,
                columns=columns_to_json(config.raw_columns.values()),
                histories=json.dumps([asdict(history) for history in histories(config.features)], sort_keys=True),
                evidence=evidence,
                schema=config.schema_path,
                examples=types.Channel(type=standard_artifacts.Examples),
                catalogue=types.Channel(type=Catalogue),
                report=types.Channel(type=IngestReport),
            )
        )


def check_headers(
    data: Data, columns: Mapping[str, RawColumn], files: list[LogFile], now: datetime, schema: str
) -> None:
    """Check what files name before anything is read.

    Raises RefusedError where a file is empty or lacks a column. Raises ConfigError where it is the config that names
    the column wrongly: no file has it, and it is like another one, or there is a curated schema without it.
    """
    typer = RowTyper(data, columns, now)
    missing, names = set(typer.columns), set()
    for file in files:
        if file.bytes == 0:
            raise RefusedError(f"{file.path}: the file is empty. Remove it or mend its producer.")
        if file.format in ("csv", "tsv"):
            found = reading.column_names(data, file)
        elif file.format == "parquet":
            found = reading.parquet_names(file)
        else:
            return  # whose rows each name their own
        missing -= set(found)
        names |= set(found)
    wrong = [c for c in typer.columns if c in missing]
    likely = {c: get_close_matches(c, sorted(names - set(typer.columns)), n=1, cutoff=0.7) for c in wrong}
    if (
        wrong
        and len(names) > 1
        and (any(likely.values()) or not _in_schema(schema, [data.rename.get(c, c) for c in wrong]))
    ):
        hints = [f"{c!r} (did you mean {near[0]!r}?)" if (near := likely[c]) else repr(c) for c in wrong]
        raise ConfigError(
            f"the config names column {', '.join(hints)}, which no file of {data.source} has; they have "
            f"{', '.join(map(repr, sorted(names)[:30]))}"
        )
    for file in files:
        if file.format in ("csv", "tsv"):
            typer.check_header(file, reading.column_names(data, file))
        else:
            typer.check_header(file, reading.parquet_names(file))


def _in_schema(path: str, columns: list[str]) -> bool:
    """Whether the curated schema knows some of these columns, or there is none that could say."""
    if not os.path.exists(path):
        return True
    known = {feature.name for feature in read_schema(path).feature}
    return any(column in known for column in columns)


def judge(data: Data, files: list[LogFile], counts: Mapping[str, int], dead_letters: str) -> None:
    """Raise RefusedError where too many rows are malformed, a split is empty or all labels are alike."""
    source = files[0].path if len(files) == 1 else f"{files[0].path} and {len(files) - 1} more"
    kept = sum(counts.get(f"{split}.rows", 0) for split in SPLITS)
    good, malformed = kept + counts.get("left_out", 0), counts.get("malformed", 0)
    if not good and not malformed:
        raise RefusedError(f"{source}: no rows. Mend the producer of the logs.")
    if malformed > data.max_malformed * (good + malformed):
        first = _first_letter(dead_letters)
        raise RefusedError(
            f"{source}: {malformed:,} of {good + malformed:,} rows are malformed "
            f"({malformed / (good + malformed):.1%}, data.max_malformed allows {data.max_malformed:.1%}). "
            f"First: {first}."
        )
    if not kept and data.label:
        raise RefusedError(
            f"{source}: none of {good:,} rows is positive and kept: column {data.label.column!r} never meets "
            f"data.label.positive: {data.label.positive!r}. Mend the label or the condition."
        )
    for split in SPLITS:
        if not counts.get(f"{split}.rows", 0):
            raise RefusedError(
                f"{source}: split {split!r} got none of {kept:,} rows with data.split.by: {data.split.by}. "
                "Give more rows, larger shares, or split another way."
            )
    if data.positives_only or data.label is None:
        return
    train, positive = counts["train.rows"], counts["train.positive"]
    if positive in (0, train):
        what = "positive" if positive else "negative"
        raise RefusedError(
            f"{source}: all {train:,} training rows are {what}: column {data.label.column!r} "
            f"{'always' if positive else 'never'} meets data.label.positive: {data.label.positive!r}. "
            "Mend the label or the condition."
        )


def summary(counts: Mapping[str, int]) -> str:
    """Return the counts in a line: rows a split, malformed rows, and the cold share of the test split."""
    rows = {split: counts.get(f"{split}.rows", 0) for split in SPLITS}
    test = max(rows["test"], 1)
    twice = sum(counts.get(f"{split}.in_train", 0) for split in SPLITS[1:])
    return (
        f"{sum(rows.values()):,} rows: "
        + ", ".join(f"{split} {n:,}" for split, n in rows.items())
        + (f"; not positive, left out {counts['left_out']:,}" if counts.get("left_out") else "")
        + f"; malformed {counts.get('malformed', 0):,}; cold rows in test: "
        f"users {counts.get('test.cold_user', 0) / test:.1%}, items {counts.get('test.cold_item', 0) / test:.1%}"
        + (f"; also in train, cell for cell: {twice:,} rows of eval and test" if twice else "")
    )


def spans_read(data: Data, files: list[LogFile]) -> str:
    """Return which spans were read and which days of the window had no logs; empty where the logs have no spans."""
    read = sorted({span_number(f.span) for f in files if f.span})
    if not read:
        return ""
    wanted = spans_until(data.span, data.window) if data.span else set(read)
    text = f"; span {read[-1]}" if len(read) == 1 else f"; spans {read[0]} to {read[-1]}"
    gone = sorted(wanted - set(read))
    return text + (f", no logs of {', '.join(map(str, gone))}" if gone else "")


def _first_letter(path: str) -> str:
    with open(path) as stream:
        letter = json.loads(stream.readline())
    return f"line {letter['line']} of {letter['file']}, {letter['reason']}"
