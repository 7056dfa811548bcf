"""A first config and schema for logs that nobody described yet: guesses, each with its reason."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from google.protobuf import text_format
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.stats_options import StatsOptions
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.ingest import reading
from components.ingest.files import LogFile, find_files
from components.ingest.pipeline import as_lists
from components.ingest.rows import RowTyper
from components.schema import column_types, infer_schema
from configs import Config, ConfigError, config_from_tree
from configs.data import Data

_SAMPLE_ROWS = 200_000
_MANY_VALUES = 1_000_000
_ROLES = {
    "user": r"user|customer|member|visitor|client|account|buyer|reader|viewer|listener|usuario|utilisateur|kunde|uid",
    "item": r"item|product|movie|film|article|song|track|book|video|game|sku|asin|isbn|course|recipe|content|listing|"
    r"producto|produit|artikel|pelicula",
    "time": r"time|date|stamp|\bts\b|_ts$|when|created|_at$|fecha|zeit|datum",
    "label": r"label|click|rating|stars|score|like|purchase|bought|convert|target|watched|played|rated|feedback|"
    r"puntuacion|note$|bewertung",
}
_TITLES = re.compile(r"title|name|titulo|titre|titel|nombre")
_POSITIVE_WORDS = {
    "1",
    "y",
    "yes",
    "true",
    "click",
    "clicked",
    "like",
    "liked",
    "buy",
    "bought",
    "purchase",
    "positive",
    "si",
    "ja",
    "oui",
}


@dataclass(frozen=True)
class Guess:
    """What a column was taken for, and why."""

    column: str
    role: str
    why: str


@dataclass(frozen=True)
class Proposal:
    """A config as text, the schema of the sampled rows, and the guesses behind them."""

    name: str
    source: str
    text: str
    guesses: list[Guess]
    sample: list[reading.Block]

    def write(self, target: Path, overwrite: bool) -> Path:
        """Write config and schema and return the schema's path. Raises ConfigError where they are there already."""
        schema_path = target.with_name(f"{target.stem}.schema.pbtxt")
        if not overwrite:
            for path in (target, schema_path):
                if path.exists():
                    raise ConfigError(f"{path}: is there already; --force overwrites it, --output names another")
        relative = os.path.relpath(self.source, target.absolute().parent)
        text = self.text.replace("@SOURCE@", json.dumps(relative, ensure_ascii=False)).replace("@CONFIG@", str(target))
        schema = self._schema(_checked(text, target))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        schema_path.write_text(schema, encoding="utf-8")
        return schema_path

    def _schema(self, config: Config) -> str:
        typer = RowTyper(config.data, config.raw_columns, datetime.now(UTC))
        batches = [typed.batch for typed in map(typer, self.sample) if typed.batch.num_rows]
        if not batches:
            bad = typer(self.sample[0]).bad
            raise ConfigError(
                f"{self.source}: no row fits the guesses: {bad[0][1] if bad else 'no rows'}; name the columns by hand"
            )
        table = pa.Table.from_batches(batches).combine_chunks()
        batch = pa.RecordBatch.from_arrays(
            [as_lists(c.combine_chunks()) for c in table.columns], names=table.column_names
        )
        statistics = stats_impl.generate_statistics_in_memory(batch, StatsOptions())
        assert isinstance(statistics, statistics_pb2.DatasetFeatureStatisticsList)
        schema = infer_schema(statistics, column_types(config), config.required_columns)
        return text_format.MessageToString(schema, as_utf8=True)


def propose(source: str, name: str | None, given: Mapping[str, str | None]) -> Proposal:
    """Look at logs and propose a config. `given` names the columns of roles that the caller knows.

    Raises ConfigError where a role's column cannot be guessed, RefusedError where the file cannot be read.
    """
    source = os.path.abspath(source) if "://" not in source else source
    file = find_files(_blank(None, None), source)[0]
    delimiter = _sniff_delimiter(file) if file.format == "csv" else None
    data = _blank(file.format, delimiter)
    blocks, frame = _sample(data, file)
    rename = {c: plain for c in frame.columns if (plain := _plain_name(c)) != c}
    if len(set(rename.values()) | (set(frame.columns) - set(rename))) < len(frame.columns):
        raise ConfigError(f"{file.path}: two columns differ only in characters that names cannot have; rename one")
    renamed = frame.rename(columns=rename)
    known = {role: rename.get(column, column) for role, column in given.items() if column}
    if wrong := sorted(set(known.values()) - set(renamed.columns)):
        raise ConfigError(f"{file.path}: no column {', '.join(wrong)}; it has {', '.join(map(str, frame.columns))}")
    look = _Look(renamed, known)
    chosen = _recommender_name(name or os.path.basename(file.path).split(".")[0])
    text = _config_text(chosen, file, delimiter, rename, look)
    return Proposal(chosen, source, text, look.guesses, blocks)


class _Look:
    """What the sample says about each column."""

    def __init__(self, frame: pd.DataFrame, known: Mapping[str, str]):
        self.frame = frame
        self.guesses: list[Guess] = []
        self.columns: dict[str, str] = {}
        for role in ("time", "label", "user", "item"):
            self.columns[role] = self._role(role, known.get(role))
        self.time_unit = _time_unit(frame[self.columns["time"]])
        self.positive = self._positive()
        self.display: str | None = None
        self.features: dict[str, dict[str, Any]] = {}
        for role in ("user", "item"):
            column = self.columns[role]
            distinct = frame[column].nunique()
            self.features[column] = self._text(column, role, distinct)
        for column in frame.columns:
            if column not in self.columns.values():
                self._feature(column)
        self.features["hour"] = {"kind": "time", "part": "hour"}
        self.features["weekday"] = {"kind": "time", "part": "weekday"}

    def _role(self, role: str, known: str | None) -> str:
        if known:
            self.guesses.append(Guess(known, role, "you said so"))
            return known
        free = [c for c in self.frame.columns if c not in self.columns.values()]
        named = [c for c in free if re.search(_ROLES[role], c.lower()) and self._fits(role, c)]
        if named:
            # An id beats a property of it: user_id before user_age.
            best = min(
                named,
                key=lambda c: (not re.search(r"id$|^id|uid", c.lower()) and role in ("user", "item"), free.index(c)),
            )
            self.guesses.append(
                Guess(
                    best,
                    role,
                    "its name"
                    + (f"; also possible: {', '.join(n for n in named if n != best)}" if len(named) > 1 else ""),
                )
            )
            return best
        fitting = [c for c in free if self._fits(role, c)]
        if role in ("user", "item") and fitting:
            best = max(fitting, key=lambda c: self.frame[c].nunique())
            self.guesses.append(
                Guess(best, role, f"{self.frame[best].nunique():,} different values, each seen several times")
            )
            return best
        if role in ("time", "label") and len(fitting) == 1:
            self.guesses.append(Guess(fitting[0], role, "the only column that could be"))
            return fitting[0]
        raise ConfigError(
            f"cannot tell which column is the {role}: {', '.join(fitting) or 'none'} would fit of "
            f"{', '.join(self.frame.columns)}; say it with --{role} COLUMN"
        )

    def _fits(self, role: str, column: str) -> bool:
        values = self.frame[column]
        present = values.notna().mean()
        if role == "time":
            return present > 0.5 and _time_unit(values) is not None
        if role == "label":
            return present > 0.5 and 2 <= values.nunique() <= 50
        distinct = values.nunique()
        return present > 0.5 and 2 < distinct < 0.7 * len(values)

    def _positive(self) -> str:
        column = self.columns["label"]
        values = self.frame[column].dropna()
        numbers = pd.to_numeric(values, errors="coerce")
        if values.str.lower().isin(["true", "false"]).all():
            positive = "> 0"
        elif numbers.notna().mean() > 0.99:
            levels = np.sort(numbers.dropna().unique())
            # Two levels: the upper one. More, as of ratings: the upper ones that hold nearest to half of the rows.
            shares = [abs((numbers >= level).mean() - 0.5) for level in levels[1:]]
            threshold = levels[1] if len(levels) == 2 else levels[1:][int(np.argmin(shares))] if shares else levels[0]
            positive = "> 0" if len(levels) == 2 and levels[0] == 0 else f">= {threshold:g}"
        else:
            counts = values.value_counts()
            word = next((v for v in counts.index if v.strip().lower() in _POSITIVE_WORDS), counts.index[-1])
            positive = f"== {word}"
        self.guesses.append(Guess(column, "label", f"positive where {positive}"))
        return positive

    def _feature(self, column: str) -> None:
        values = self.frame[column]
        present = values.dropna()
        if present.nunique() < 2:
            self.guesses.append(Guess(column, "left out", "it never changes"))
            return
        if (why := self._gives_away(column)) is not None:
            self.guesses.append(Guess(column, "left out", why))
            return
        owner, why = self._owner(column)
        numbers = pd.to_numeric(present, errors="coerce")
        distinct = present.nunique()
        if numbers.notna().mean() > 0.98 and distinct > 12:
            leading_zero = present.str.match(r"0\d").mean() > 0.01
            if not leading_zero:
                self.features[column] = {"kind": "bucketized", "of": owner, "buckets": 10}
                self.guesses.append(Guess(column, f"{owner}, number in 10 quantile buckets", why))
                return
        if distinct > 0.2 * len(present) or (owner == "item" and _TITLES.search(column.lower())):
            if owner == "item" and self.display is None:
                self.display = column
                self.guesses.append(Guess(column, "display", "names an item to people; not a feature"))
            else:
                self.guesses.append(Guess(column, "left out", f"{distinct:,} different values of {len(present):,}"))
            return
        separator = _separator(present)
        self.features[column] = self._text(column, owner, distinct, separator)
        several = f" split on {separator!r}" if separator else ""
        self.guesses.append(Guess(column, f"{owner}, text{several}", why))

    def _text(self, column: str, owner: str, distinct: int, separator: str | None = None) -> dict[str, Any]:
        if distinct > _MANY_VALUES // 10:
            return {"kind": "hashed", "of": owner, "buckets": _MANY_VALUES}
        feature: dict[str, Any] = {"kind": "vocabulary", "of": owner}
        if owner in ("user", "item") and column in self.columns.values():
            feature["oov"] = 4
        if distinct > 10_000:
            feature["min_count"] = 2
        if separator:
            feature["separator"] = separator
        return feature

    def _owner(self, column: str) -> tuple[str, str]:
        constant = {}
        for role in ("user", "item"):
            groups = self.frame[[self.columns[role], column]].dropna().groupby(self.columns[role])[column]
            sizes, distinct = groups.size(), groups.nunique()
            several = sizes > 1
            constant[role] = float((distinct[several] == 1).mean()) if several.any() else 0.0
        best = max(constant, key=lambda role: constant[role])
        if constant[best] > 0.9:
            return best, f"the same for {constant[best]:.0%} of {best}s"
        return "context", "changes for users and for items"

    def _gives_away(self, column: str) -> str | None:
        """Say why a column would tell the model the answer, if it would."""
        label = self._truth()
        values = self.frame[column].fillna("")
        if values.nunique() > 1000:
            values = (values != "").astype(str)
        if values.nunique() < 2:
            return None
        by_value = label.groupby(values).mean()
        pure = values.map((by_value < 0.01) | (by_value > 0.99)).mean()
        return "its values give the label away" if pure > 0.98 and by_value.max() > 0.99 else None

    def _truth(self) -> pd.Series:
        values = self.frame[self.columns["label"]].fillna("")
        operator, operand = self.positive.split(" ", 1)
        if operator == "==":
            return (values == operand).astype(float)
        numbers = pd.to_numeric(values.str.lower().replace({"true": "1", "false": "0"}), errors="coerce")
        return ((numbers >= float(operand)) if operator == ">=" else (numbers > float(operand))).astype(float)

    @property
    def split(self) -> str:
        """By each user's own time where users have a history, else by time."""
        return "user_time" if self.frame[self.columns["user"]].value_counts().median() >= 10 else "time"


def _config_text(name: str, file: LogFile, delimiter: str | None, rename: Mapping[str, str], look: _Look) -> str:
    columns = look.columns
    lines = [
        f"# Proposed by `recsys init` from {os.path.basename(file.path)}: guesses to look over.",
        "#   recsys run @CONFIG@",
        f"name: {name}",
        "data:",
        "  source: @SOURCE@",
        *([f"  format: {file.format}"] if delimiter not in (None, ",") else []),
        *([f"  delimiter: {_yaml(delimiter)}"] if delimiter not in (None, ",") else []),
        *([f"  rename: {_yaml(dict(rename))}"] if rename else []),
        *(f"  {role}: {columns[role]}" for role in ("user", "item", "time")),
        *([f"  time_unit: {look.time_unit}"] if look.time_unit != "s" else []),
        f"  label: {{column: {columns['label']}, positive: {_yaml(look.positive)}}}",
        f"  split: {{by: {look.split}, eval: 0.1, test: 0.1}}",
        *([f"  display: {look.display}"] if look.display else []),
        "features:",
        *(f"  {column}: {_yaml(feature)}" for column, feature in look.features.items()),
        "model: {type: deepfm}",
        "evaluation:",
        f"  slices: {_yaml([['user_activity'], ['item_popularity']])}",
        "  gates:",
        "    - {metric: auc, beats: item_mean}",
        "    - {metric: auc, not_below: blessed, by: 0.01}",
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """Return a value as YAML's flow style, plain where it can be."""
    if isinstance(value, dict):
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
    from io import StringIO

    from ruamel.yaml import YAML

    return config_from_tree(YAML(typ="safe", pure=True).load(StringIO(text)), target)


def _blank(format_: str | None, delimiter: str | None) -> Data:
    """Return the least that reading needs to know."""
    return Data.model_validate(
        {
            "source": "-", "format": format_, "delimiter": delimiter, "user": "user", "item": "item", "time": "time",
            "label": {"column": "label"}, "split": {"by": "time"}, "max_field_bytes": 1 << 30,
        }
    )  # fmt: skip


def _sniff_delimiter(file: LogFile) -> str:
    with reading.open_file(file) as stream:
        head = [stream.readline(1 << 16).decode(errors="replace") for _ in range(20)]
    counts = {d: len(next(csv.reader([head[0]], delimiter=d), [])) for d in (",", ";", "\t", "|")}
    return max(counts, key=lambda d: counts[d])


def _sample(data: Data, file: LogFile) -> tuple[list[reading.Block], pd.DataFrame]:
    """Return the first blocks of a file, and their cells as text."""
    if file.format in ("csv", "tsv"):
        names = reading.column_names(data, file)
    elif file.format == "parquet":
        names = reading.parquet_names(file)
    else:
        names = reading.any_names(file)
    blocks, rows = [], 0
    for block in reading.read(data, reading.pieces(file)[0], names):
        blocks.append(block)
        rows += block.table.num_rows
        if rows >= _SAMPLE_ROWS:
            break
    if not rows:
        raise ConfigError(f"{file.path}: no rows to look at")
    frame = pa.concat_tables([b.table for b in blocks], promote_options="permissive").to_pandas(types_mapper=None)
    text = frame.map(lambda v: None if v is None or v != v else str(v))
    return blocks, text.replace("", None)


def _plain_name(column: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.]+", "_", _without_accents(column.strip())).strip("_") or "column"
    return plain if re.match(r"[A-Za-z_]", plain) else f"c_{plain}"


def _without_accents(text: str) -> str:
    import unicodedata

    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _recommender_name(name: str) -> str:
    stem = re.sub(r"[^a-z0-9_-]", "_", _plain_name(name).lower())
    return stem if re.match(r"[a-z]", stem) else f"r{stem}"


def _separator(values: pd.Series) -> str | None:
    for separator in ("|", ";", ","):
        has = values.str.contains(separator, regex=False)
        if has.mean() > 0.15:
            parts = {p for cell in islice(values[has].unique(), 2000) for p in cell.split(separator)}
            if len(parts) < 0.5 * values.nunique() or len(parts) <= 50:
                return separator
    return None


def _time_unit(values: pd.Series) -> str | None:
    """Return the unit in which most values are times from 1990 on, or None."""
    sample = values.dropna().head(5000)
    if not len(sample):
        return None
    numbers = pd.to_numeric(sample, errors="coerce")
    if numbers.notna().mean() > 0.95:
        median = float(numbers.median())
        for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
            if 6.3e8 <= median / scale <= 4.1e9:
                return unit
        return None
    parsed = pd.to_datetime(sample, format="ISO8601", utc=True, errors="coerce")
    return "iso8601" if parsed.notna().mean() > 0.95 else None
