"""The newest features of each user and item, as ingest left them: what a client sends for an id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from components.refusal import RefusedError
from components.versions import artifacts_of, manifest_path, versions
from configs import Config, ConfigError
from configs.features import TRAIN_EVENTS, RawColumn
from models.recommend import best_items as candidate


@dataclass(frozen=True)
class Items:
    """All items: ids, what people call them, and the columns to rank them by."""

    ids: list[str]
    names: list[str]
    columns: Mapping[str, list[Any]]


def newest_version(config: Config) -> Path:
    """Return the folder of the newest served version. Raises ConfigError where there is none."""
    if not (there := versions(config.model_folder)):
        raise ConfigError(f"{config.model_folder}: no version is served; `recsys run {config.path}` pushes one")
    return there[max(there)]


class Catalogue:
    """Reads the catalogue at `folder`."""

    @classmethod
    def of(cls, version: Path, config: Config) -> Catalogue:
        """Return the catalogue that a served version was pushed with. Raises ConfigError where it says none."""
        folder = artifacts_of(version).get("catalogue")
        if folder is None:
            raise ConfigError(f"{manifest_path(version)} names no catalogue: this version was not pushed by a run")
        return cls(folder, config)

    def __init__(self, folder: str, config: Config):
        self._folder = folder
        self._data = config.data
        self._raw = config.raw_columns

    def user(self, user: str) -> dict[str, Any] | None:
        """Return a user's features but the id; None where the logs do not know the user."""
        table = self._read("users", pc.field(self._data.user) == user)
        if not table.num_rows:
            return None
        columns = [c for c in self._columns("user") if c.name != self._data.user]
        cells = {c.name: _cells(table.column(c.name), c)[0] for c in columns}
        return {name: cell for name, cell in cells.items() if cell != self._raw[name].default}

    def items(self) -> Items:
        """Return every item the logs know."""
        table = self._read("items", None)
        ids = table.column(self._data.item).to_pylist()
        names = table.column(self._data.display).to_pylist() if self._data.display else ids
        columns = {c.name: _cells(table.column(c.name), c) for c in self._columns("item")}
        return Items(ids, [name or "" for name in names], columns)

    def _columns(self, owner: str) -> list[RawColumn]:
        return [c for c in self._raw.values() if c.of == owner]

    def _read(self, what: str, where: pc.Expression | None) -> pa.Table:
        return pyarrow.dataset.dataset(f"{self._folder}/{what}", format="parquet").to_table(filter=where)


def candidates(folder: str, item: str, columns: Mapping[str, RawColumn]) -> candidate.Items:
    """Return the items of the catalogue at `folder` that training has met: those that may be recommended.

    `item` is the column of their ids. Raises RefusedError for a catalogue that does not count them.
    """
    table = pyarrow.dataset.dataset(f"{folder}/items", format="parquet").to_table()
    if TRAIN_EVENTS not in table.column_names:
        raise RefusedError(f"{folder}: this catalogue was written by an earlier version; run Ingest again")
    table = table.filter(pc.field(TRAIN_EVENTS) > 0)
    cells = {c.name: _cells(table.column(c.name), c) for c in columns.values() if c.of == "item"}
    return candidate.Items.in_fixed_order(table.column(item).to_pylist(), cells, table.column(TRAIN_EVENTS).to_pylist())


def _cells(column: pa.ChunkedArray, raw: RawColumn) -> list[Any]:
    """Return what a request holds for each cell: several values joined, missing ones as the default, lists as lists."""
    if raw.length is not None:
        return [v or raw.default for v in column.to_pylist()]
    separator = raw.separator or ""
    joined = [separator.join(v) if isinstance(v, list) else v for v in column.to_pylist()]
    return [raw.default if v is None else v * raw.per_second if raw.type == "int64" else v for v in joined]
