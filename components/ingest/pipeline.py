"""The Beam pipeline from files to example shards, catalogue and counts. Its elements are Arrow batches, not rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton

from components.ingest import reading, splitting
from components.ingest.batches import TogetherByUser, as_lists, by_bucket, committed, concat, cut
from components.ingest.duplicates import straddling
from components.ingest.files import LogFile, newest_span
from components.ingest.history import AFTER, add_histories
from components.ingest.rows import RowTyper
from components.ingest.splitting import POSITION_COLUMN, ROW_HASH_COLUMN, SPLIT_COLUMN, SPLITS
from configs.data import Data, span_number
from configs.features import ACTIVITY_BANDS, DERIVED_COLUMNS, LABEL, TRAIN_EVENTS, History, RawColumn

_BAND_STARTS = np.array([0, 1, 10, 50, 200])
assert len(_BAND_STARTS) == len(ACTIVITY_BANDS)


@dataclass(frozen=True)
class Outputs:
    """Where the pipeline writes. `split` gives the folder of a split's shards."""

    split: Callable[[str], str]
    catalogue: str
    dead_letters: str
    counts: str


def shard_count(files: list[LogFile]) -> int:
    """Return how many shards each split gets: about 64 MiB of input each, and enough to spread over workers."""
    size = sum(f.bytes * (6 if f.gzipped or f.format == "parquet" else 1) for f in files)
    return int(np.clip(size >> 26, 4, 2000))


def build(
    root: beam.Pipeline,
    data: Data,
    raw_columns: Mapping[str, RawColumn],
    files: list[LogFile],
    outputs: Outputs,
    now: datetime,
    histories: Sequence[History] = (),
) -> None:
    """Add the whole of ingest to a Beam pipeline."""
    typer = RowTyper(data, raw_columns, now)
    shards = shard_count(files)
    pieces = [piece for file in files for piece in reading.pieces(file)]

    read = (
        root
        | "Pieces" >> beam.Create(pieces)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(_Read(data, typer, files)).with_outputs("bad", "lines", "left_out", main="rows")
    )
    rows = _split(read.rows, data, shards)
    if histories:
        if not data.split.within_users:  # which leaves a user's rows together
            rows = rows | "RowsOfUsers" >> TogetherByUser(data.user, shards)
        rows = rows | "Histories" >> beam.FlatMap(add_histories, data, histories)
    made = {*DERIVED_COLUMNS, POSITION_COLUMN, *(prefix + h.name for h in histories for prefix in ("", AFTER))}
    users = rows | "TrainUsers" >> _TrainCounts(data.user)
    items = rows | "TrainItems" >> _TrainCounts(data.item)
    examples = rows | "Derive" >> beam.Map(_derive, data.user, data.item, AsSingleton(users), AsSingleton(items))

    written = (
        examples
        | "Shards" >> beam.FlatMap(_by_shard, shards, made)
        | "GroupShards" >> beam.GroupByKey()
        | "WriteShards" >> beam.ParDo(_WriteShard(outputs.split, shards, data.time))
    )
    for owner, column, trained in (("user", data.user, users), ("item", data.item, items)):
        of_owner = [c for c in raw_columns.values() if c.of == owner and c.name != column]
        kept = [column, *(c.name if c.length is None else AFTER + c.name for c in of_owner)]
        if owner == "item" and data.display and data.display not in kept:
            kept.append(data.display)
        rows | f"Latest {owner}" >> _Catalogue(
            f"{outputs.catalogue}/{owner}s", column, kept, data.time, shards, trained
        )
    _write_counts(read, written, straddling(rows, data, made, shards), outputs)


def _write_counts(read, written, twice, outputs: Outputs) -> None:
    """Write how many rows of each kind there were, and the malformed ones."""
    counts = (
        (
            written,
            read.bad | "CountBad" >> beam.combiners.Count.Globally() | beam.Map(lambda n: {"malformed": n}),
            read.left_out | "CountLeftOut" >> beam.CombineGlobally(sum) | beam.Map(lambda n: {"left_out": n}),
            twice,
        )
        | beam.Flatten()
        | "SumCounts" >> beam.CombineGlobally(_sum_counts)
    )
    counts | "WriteCounts" >> beam.Map(_write_text, outputs.counts)
    lines = read.lines | "LinesOfPieces" >> beam.combiners.ToDict()
    (
        read.bad
        | "OneKey" >> beam.WithKeys(None)
        | "GatherBad" >> beam.GroupByKey()
        | "WriteDeadLetters" >> beam.Map(_write_dead_letters, outputs.dead_letters, AsSingleton(lines))
    )


class _Read(beam.DoFn):
    """Reads pieces. Main output: typed batches; `bad`: (file, start, line in piece, reason, text); `lines`: counts;
    `left_out`: counts of well-formed rows that are not kept.
    """

    def __init__(self, data: Data, typer: RowTyper, files: list[LogFile]):
        self._data = data
        self._typer = typer
        self._newest = newest_span(files)
        self._places = {file.path: place for place, file in enumerate(files)}

    def process(self, piece: reading.Piece):
        file = piece.file
        for block in reading.read(self._data, piece, self._typer.columns):
            typed = self._typer(block)
            for line, reason, text in typed.bad:
                yield beam.pvalue.TaggedOutput("bad", (file.path, piece.start, line, reason, text))
            if typed.left_out:
                yield beam.pvalue.TaggedOutput("left_out", typed.left_out)
            if typed.batch.num_rows:
                yield self._placed(self._assigned(typed.batch, file), piece, typed.lines)
        # Only a file that is cut into pieces needs its lines counted, to number those of the later pieces.
        cut = piece.end is not None
        yield beam.pvalue.TaggedOutput("lines", ((file.path, piece.start), reading.count_lines(piece) if cut else 0))

    def _assigned(self, batch: pa.RecordBatch, file: LogFile) -> pa.RecordBatch:
        """Add the split where it follows from the file; past this only the rows are known."""
        split = self._data.split
        if split.by != "span":
            return batch
        newest = span_number(file.span or "0") == self._newest
        return splitting.assign_by_span(batch, newest, split.columns or [self._data.user], split)

    def _placed(self, batch: pa.RecordBatch, piece: reading.Piece, lines: np.ndarray) -> pa.RecordBatch:
        """Add where in the logs each row is, if that says which came first."""
        if self._data.ties != "file":
            return batch
        # A piece has no more lines than bytes, so its start and the line within it grow together.
        places = (self._places[piece.file.path] << 40) + piece.start + lines
        return splitting.with_column(batch, POSITION_COLUMN, places)


def _split(rows, data: Data, shards: int):
    if data.split.by == "span":
        return rows
    if data.split.by == "hash":
        columns = data.split.columns or [data.user]
        return rows | "SplitByHash" >> beam.Map(splitting.assign_by_hash, columns, data.split)
    if data.split.by == "time":
        cuts = (
            rows
            | "Times" >> beam.Map(lambda batch, time: batch.column(time).to_numpy(), data.time)
            | "TimeCounts" >> beam.CombineGlobally(splitting.TimeCounts())
            | "Cuts" >> beam.Map(splitting.time_cuts, data.split)
        )
        return rows | "SplitByTime" >> beam.Map(splitting.assign_by_time, data.time, AsSingleton(cuts))
    together = rows | "Users" >> TogetherByUser(data.user, shards)
    return together | "SplitWithinUsers" >> beam.Map(splitting.assign_within_users, data)


class _TrainCounts(beam.PTransform):
    """Rows of the training split by hashed id: (sorted hashes, counts)."""

    def __init__(self, column: str):
        super().__init__()
        self._column = column

    def expand(self, rows):
        return rows | beam.Map(_train_counts, self._column) | beam.CombineGlobally(_merge_id_counts)


def _train_counts(batch: pa.RecordBatch, column: str) -> tuple[np.ndarray, np.ndarray]:
    train = batch.column(SPLIT_COLUMN).to_numpy() == 0
    return np.unique(splitting.stable_hash(batch.column(column))[train], return_counts=True)


def _merge_id_counts(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    parts = list(parts)
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    ids, inverse = np.unique(np.concatenate([p[0] for p in parts]), return_inverse=True)
    counts = np.bincount(inverse, np.concatenate([p[1] for p in parts]), len(ids))
    return ids, counts.astype(np.int64)


def _counts_of(column: pa.Array, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return how many training rows each value of a column has; `ids` are sorted hashes."""
    if not len(ids):
        return np.zeros(len(column), np.int64)
    hashes = splitting.stable_hash(column)
    at = np.minimum(np.searchsorted(ids, hashes), len(ids) - 1)
    return np.where(ids[at] == hashes, counts[at], 0)


def _derive(batch: pa.RecordBatch, user: str, item: str, users, items) -> pa.RecordBatch:
    """Add the columns of DERIVED_COLUMNS."""
    derived = {}
    for column, cold, band, (ids, counts) in (
        (user, "cold_user", "user_activity", users),
        (item, "cold_item", "item_popularity", items),
    ):
        seen = _counts_of(batch.column(column), ids, counts)
        derived[cold] = pa.array(np.where(seen == 0, "yes", "no"))
        bands = np.array(ACTIVITY_BANDS)[np.searchsorted(_BAND_STARTS, seen, side="right") - 1]
        derived[band] = pa.array(bands)
    for name in DERIVED_COLUMNS:
        batch = splitting.with_column(batch, name, derived[name])
    return batch


def _by_shard(batch: pa.RecordBatch, shards: int, made: set[str]) -> Iterable[tuple[tuple[int, int], pa.RecordBatch]]:
    # The shard is drawn from the row as it was read, not from its place in the input or what was `made` of it, so
    # shards are alike and runs repeatable.
    hashes = splitting.row_hash(batch.select([c for c in batch.schema.names if c not in made]))
    batch = batch.select([c for c in batch.schema.names if not c.startswith(AFTER)])
    batch = splitting.with_column(batch, ROW_HASH_COLUMN, hashes)
    keys = batch.column(SPLIT_COLUMN).to_numpy().astype(np.int64) * shards + (hashes % np.uint64(shards)).astype(
        np.int64
    )
    for key, part in cut(batch, keys):
        yield divmod(key, shards), part


class _WriteShard(beam.DoFn):
    """Writes one shard of a split as gzipped TFRecords of tf.train.Examples, and yields its counts."""

    def __init__(self, folder: Callable[[str], str], shards: int, time: str | None):
        self._folders = {split: folder(split) for split in SPLITS}
        self._shards = shards
        self._time = time

    def process(self, element):
        from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

        from components.examples import record_writer

        (split_index, shard), batches = element
        batch = concat(batches)
        split = SPLITS[split_index]
        batch = batch.take(pa.array(np.argsort(batch.column(ROW_HASH_COLUMN).to_numpy(), kind="stable")))
        columns = [c for c in batch.schema.names if not c.startswith("__")]
        encoded = RecordBatchToExamplesEncoder().encode(
            pa.RecordBatch.from_arrays([as_lists(batch.column(c)) for c in columns], names=columns)
        )
        path = f"{self._folders[split]}/data_tfrecord-{shard:05d}-of-{self._shards:05d}.gz"
        with committed(path) as temporary, record_writer(temporary) as writer:
            for example in encoded:
                writer.write(example)
        counts = {
            "rows": batch.num_rows,
            "positive": int(pc.sum(batch.column(LABEL)).as_py()),
            "cold_user": int((batch.column("cold_user").to_numpy(zero_copy_only=False) == "yes").sum()),
            "cold_item": int((batch.column("cold_item").to_numpy(zero_copy_only=False) == "yes").sum()),
        }
        if self._time is not None:
            times = batch.column(self._time).to_numpy()
            counts |= {"min.time": int(times.min()), "max.time": int(times.max())}
        yield {f"{split}.{name}": n for name, n in counts.items()}


def _latest_by_bucket(batch: pa.RecordBatch, column: str, kept: list[str], time: str | None, buckets: int):
    batch = batch.select(list(dict.fromkeys([*kept, *([time] if time else [])])))
    yield from by_bucket(_latest(batch, column, time), column, buckets)


def _latest(batch: pa.RecordBatch, column: str, time: str | None) -> pa.RecordBatch:
    """Keep each id's newest row; of several at the same time, or without a time, the same one in every run."""
    ids = splitting.stable_hash(batch.column(column))
    times = [batch.column(time).to_numpy()] if time else []
    order = np.lexsort((splitting.row_hash(batch), *times, ids))
    last = np.append(ids[order][1:] != ids[order][:-1], True)[: len(ids)]
    return batch.take(pa.array(order[last]))


class _Catalogue(beam.PTransform):
    """Writes each id's newest columns, in files by a hash of the id."""

    def __init__(self, folder: str, column: str, kept: list[str], time: str | None, shards: int, trained):
        super().__init__()
        self._folder, self._column, self._kept, self._time = folder, column, kept, time
        self._shards, self._trained = shards, trained

    def expand(self, rows):
        return (
            rows
            | beam.FlatMap(_latest_by_bucket, self._column, self._kept, self._time, self._shards)
            | beam.GroupByKey()
            | beam.ParDo(
                _WriteCatalogue(self._folder, self._column, self._time, self._shards), AsSingleton(self._trained)
            )
        )


class _WriteCatalogue(beam.DoFn):
    """Writes each id's newest columns, and how many training rows it has, as Parquet."""

    def __init__(self, folder: str, column: str, time: str | None, shards: int):
        self._folder = folder
        self._column = column
        self._time = time
        self._shards = shards

    def process(self, element, trained):
        bucket, batches = element
        batch = concat(batches)
        path = f"{self._folder}/part-{bucket:05d}-of-{self._shards:05d}.parquet"
        table = pa.Table.from_batches([_latest(batch, self._column, self._time)]).sort_by(self._column)
        table = table.rename_columns([name.removeprefix(AFTER) for name in table.column_names])
        events = pa.array(_counts_of(table.column(self._column).combine_chunks(), *trained))
        table = table.append_column(TRAIN_EVENTS, events)
        with committed(path) as temporary, FileSystems.create(temporary) as stream:
            pyarrow.parquet.write_table(table, stream)


def _sum_counts(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for key, value in part.items():
            join = min if ".min." in key else max if ".max." in key else int.__add__
            total[key] = join(total[key], value) if key in total else value
    return total


def _write_text(value: dict, path: str) -> None:
    with FileSystems.create(path) as stream:
        stream.write(json.dumps(value, indent=1, sort_keys=True).encode())


def _write_dead_letters(element, path: str, lines: dict[tuple[str, int], int]) -> None:
    """Write malformed rows, as JSON Lines sorted by place, with the line numbers of the whole file."""
    before: dict[tuple[str, int], int] = {}
    for file in {file for file, _ in lines}:
        total = 0
        for start in sorted(s for f, s in lines if f == file):
            before[file, start] = total
            total += lines[file, start]
    _, letters = element
    placed = sorted((file, line + before[file, start], reason, row) for file, start, line, reason, row in letters)
    with FileSystems.create(path, mime_type="application/x-ndjson") as stream:
        for file, line, reason, row in placed:
            letter = {"file": file, "line": line, "reason": reason, "row": row}
            stream.write((json.dumps(letter, ensure_ascii=False) + "\n").encode())
