"""From a file of logs to the text of a config, checked against the rows that it came from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from google.protobuf import text_format
from ruamel.yaml import YAML
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.stats_options import StatsOptions
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.ingest import reading
from components.ingest.batches import as_lists
from components.ingest.files import LogFile, find_files
from components.ingest.rows import RowTyper, Typed
from components.schema import column_types, infer_schema
from configs import Config, ConfigError, config_from_tree
from configs.model import MODELS
from pipeline.proposal.features import Features
from pipeline.proposal.roles import Given, Guess, Roles, find_roles
from pipeline.proposal.sample import Sample, blank, plain_name, take
from pipeline.proposal.splits import SplitGuess, find_split

_MALFORMED, _TOO_MANY = 0.01, 0.5
_MOST_ITEMS_SQUARED = 10_000
_SLICES = ("evaluation:", "  slices: [[user_activity], [item_popularity]]")


@dataclass(frozen=True)
class Proposal:
    """A config as text, the schema of the sampled rows, the guesses behind them, and what to know before a run."""

    name: str
    source: str
    text: str
    guesses: list[Guess]
    sample: list[reading.Block]
    warnings: list[str] = field(default_factory=list)

    def write(self, target: Path, overwrite: bool) -> Path:
        """Write config and schema and return the schema's path. Raises ConfigError where they are there already."""
        schema_path = target.with_name(f"{target.stem}.schema.pbtxt")
        if not overwrite:
            for path in (target, schema_path):
                if path.exists():
                    raise ConfigError(f"{path}: is there already; --force overwrites it, --output names another")
        relative = os.path.relpath(self.source, target.absolute().parent)
        text = self.text.replace("@SOURCE@", json.dumps(relative, ensure_ascii=False)).replace("@CONFIG@", str(target))
        typed = _typed(_checked(text, target), self.sample)
        text = text.replace("@MALFORMED@\n", self._malformed(typed))
        config = _checked(text, target)
        schema = _schema(config, typed)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        schema_path.write_text(schema, encoding="utf-8")
        return schema_path

    def _malformed(self, typed: list[Typed]) -> str:
        """Return the limit for malformed rows where the sample is over the usual one. Raises ConfigError."""
        bad = [letter for block in typed for letter in block.bad]
        rows = len(bad) + sum(block.batch.num_rows + block.left_out for block in typed)
        share = len(bad) / max(rows, 1)
        if share <= _MALFORMED / 2:
            return ""
        line, reason, _ = bad[0]
        said = f"{len(bad):,} of {rows:,} rows are malformed ({share:.1%}), the first at line {line}: {reason}"
        if share > _TOO_MANY:
            raise ConfigError(f"{self.source}: with these guesses {said}. Name the columns by hand, or mend the file")
        self.warnings.append(f"{said}. data.max_malformed was set to let them pass; they are left out")
        return f"  max_malformed: {min(round(share * 1.5 + 0.005, 2), 1.0)}\n"


def propose(source: str, name: str | None, given: Given) -> Proposal:
    """Look at logs and propose a config. `given` holds what the caller knows.

    Raises ConfigError where a role's column cannot be guessed, RefusedError where the file cannot be read.
    """
    source = os.path.abspath(source) if "://" not in source else source
    file = find_files(blank(given.format, given.delimiter), source)[0]
    sample = take(file, given.delimiter)
    roles = find_roles(sample, given)
    _name_by_role(sample, roles)
    split = find_split(sample, roles)
    features = Features(sample, roles)
    chosen = _recommender_name(name or os.path.basename(file.path).split(".")[0])
    _leave_weight(roles)
    text = _config_text(chosen, given, sample, roles, split, features)
    return Proposal(chosen, source, text, roles.guesses + features.guesses, sample.blocks, list(split.warnings))


def _name_by_role(sample: Sample, roles: Roles) -> None:
    """Have columns whose names the config cannot hold at all called after their role."""
    of_role = {"user": roles.user, "item": roles.item, "time": roles.time, "label": roles.label, "weight": roles.weight}
    taken = {c.plain for c in sample.columns}
    for role, column in of_role.items():
        if (
            column is not None
            and column.plain.startswith("column_")
            and column.plain != column.name
            and role not in taken
        ):
            roles.guesses = [Guess(role, g.role, g.why) if g.column == column.plain else g for g in roles.guesses]
            column.plain = role


def _leave_weight(roles: Roles) -> None:
    """Propose a weight only where the proposed model uses it."""
    if roles.weight is None or MODELS[_ranker(roles)].uses_weight:
        return
    why = f"how much a positive counts: {_ranker(roles)} does not use it; ials does, with `weight` under data"
    column, roles.weight = roles.weight.plain, None
    roles.guesses = [Guess(column, "left out", why) if g.column == column else g for g in roles.guesses]


def _ranker(roles: Roles) -> str:
    # In closed form a model of items by items is the better one, where the square of their number fits into memory.
    return "ease" if roles.item.distinct <= _MOST_ITEMS_SQUARED else "ials"


def _config_text(name: str, given: Given, sample: Sample, roles: Roles, split: SplitGuess, features: Features) -> str:
    used = {*features.table, *(c.plain for c in roles.columns), features.display or ""}
    lines = [
        f"# Proposed by `recsys init` from {os.path.basename(sample.file.path)}: guesses to look over.",
        "#   recsys run @CONFIG@",
        f"name: {name}",
        "data:",
        "  source: @SOURCE@",
        *_reading_lines(given, sample, sample.file, used),
        *_role_lines(roles),
        f"  split: {{by: {split.by}, eval: {split.share}, test: {split.share}}}",
        *([f"  display: {features.display}"] if features.display else []),
        "@MALFORMED@",
        "features:",
        *(f"  {column}: {_yaml(feature)}" for column, feature in features.table.items()),
        *_model_lines(roles),
    ]
    return "\n".join(lines) + "\n"


def _reading_lines(given: Given, sample: Sample, file: LogFile, used: set[str]) -> list[str]:
    rename = {c.name: c.plain for c in sample.columns if c.plain in used and c.name != c.plain}
    lines = []
    odd = file.format == "csv" and sample.delimiter not in (None, ",")
    if odd or given.format is not None:
        lines.append(f"  format: {file.format}")
    if odd:
        lines.append(f"  delimiter: {_yaml(sample.delimiter)}")
    if sample.decimal != ".":
        lines.append(f"  decimal: {_yaml(sample.decimal)}")
    if sample.thousands:
        lines.append(f"  thousands: {_yaml(sample.thousands)}")
    if rename:
        lines.append(f"  rename: {_yaml(rename)}")
    return lines


def _role_lines(roles: Roles) -> list[str]:
    lines = [f"  user: {roles.user.plain}", f"  item: {roles.item.plain}"]
    if roles.time is not None and roles.written is not None:
        lines.append(f"  time: {roles.time.plain}")
        if roles.written.form is not None:
            lines.append(f"  time_format: {_yaml(roles.written.form)}")
        elif roles.written.unit != "s":
            lines.append(f"  time_unit: {roles.written.unit}")
    if roles.label is not None:
        lines.append(f"  label: {{column: {roles.label.plain}, positive: {_yaml(roles.positive)}}}")
    if roles.weight is not None:
        lines.append(f"  weight: {roles.weight.plain}")
    return lines


def _model_lines(roles: Roles) -> list[str]:
    """Return model, baselines and slices. Gates are those of a config without any, which docs/config.md lists."""
    if roles.label is not None:
        return ["model: {type: auto}", *_SLICES]
    return [f"model: {{type: {_ranker(roles)}}}", "baselines: {item_knn: {type: item_knn}}", *_SLICES]


def _yaml(value: Any) -> str:
    """Return a value as YAML's flow style, plain where it can be."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(k)}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)
        and value.lower() not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


def _checked(text: str, target: Path) -> Config:
    plain = text.replace("@MALFORMED@\n", "")
    return config_from_tree(YAML(typ="safe", pure=True).load(StringIO(plain)), target)


def _typed(config: Config, sample: list[reading.Block]) -> list[Typed]:
    typer = RowTyper(config.data, config.raw_columns, datetime.now(UTC))
    return [typer(block) for block in sample]


def _schema(config: Config, typed: list[Typed]) -> str:
    batches = [block.batch for block in typed if block.batch.num_rows]
    if not batches:
        raise ConfigError("no row fits the guesses; name the columns by hand")
    table = pa.Table.from_batches(batches).combine_chunks()
    batch = pa.RecordBatch.from_arrays([as_lists(c.combine_chunks()) for c in table.columns], names=table.column_names)
    statistics = stats_impl.generate_statistics_in_memory(batch, StatsOptions())
    assert isinstance(statistics, statistics_pb2.DatasetFeatureStatisticsList)
    schema = infer_schema(statistics, column_types(config), config.required_columns)
    return text_format.MessageToString(schema, as_utf8=True)


def _recommender_name(name: str) -> str:
    stem = re.sub(r"[^a-z0-9_-]", "_", plain_name(name).lower())
    return stem if re.match(r"[a-z]", stem) else f"r{stem}"
