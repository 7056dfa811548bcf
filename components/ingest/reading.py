"""Files to Arrow tables of text and numbers, block by block, with each row's line number and each bad row kept.

A record is one line: a line break inside quotes makes a malformed row, so that one stray quote costs one line and not
the rest of the file.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.ingest.files import LogFile
from components.refusal import RefusedError
from configs.data import Data

BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 256 << 20
KEPT_CHARACTERS = 500
VALUE_SEPARATOR = "\x1f"  # ASCII's unit separator: joins the values of formats that have lists


@dataclass(frozen=True)
class Piece:
    """A part of a file that one worker reads: a byte range of a text file, row groups of Parquet, or a whole file."""

    file: LogFile
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Block:
    """Rows read together.

    `lines[i]` is the line (row, for Parquet and TFRecord) of row i, counted from 1 within the piece. `bad` holds the
    lines that could not be read as a row at all: (line, reason, text).
    """

    table: pa.Table
    lines: np.ndarray
    bad: list[tuple[int, str, str]]


def pieces(file: LogFile, piece_bytes: int = 64 << 20) -> list[Piece]:
    """Return the parts in which `file` is read; only plain text can be cut."""
    if file.format in ("parquet", "tfrecord") or file.gzipped or file.bytes <= piece_bytes:
        return [Piece(file)]
    return [Piece(file, at, min(at + piece_bytes, file.bytes)) for at in range(0, file.bytes, piece_bytes)]


def column_names(data: Data, file: LogFile) -> list[str]:
    """Return the names in a delimited file's first line. Raises RefusedError where there is none."""
    with open_file(file) as stream:
        try:
            header = stream.readline(1 << 20)
        except (EOFError, OSError, zlib.error) as error:
            raise _unreadable(file, error) from None
    names = _parse_delimited(header.lstrip(b"\xef\xbb\xbf"), None, _delimiter(data, file)).table.column_names
    if not header.strip():
        raise RefusedError(f"{file.path}: the file is empty, not even a header line. Remove it or mend its producer.")
    return names


def parquet_names(file: LogFile) -> list[str]:
    """Return the names of a Parquet file's columns. Raises RefusedError where it is none."""
    try:
        with open_file(file) as stream:
            return pyarrow.parquet.ParquetFile(stream).schema_arrow.names
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(file, error) from None


def any_names(file: LogFile) -> list[str]:
    """Return the columns that the first rows of a JSON Lines or TFRecord file name."""
    names: dict[str, None] = {}
    if file.format == "tfrecord":
        import tensorflow as tf

        for record in tf.data.TFRecordDataset(file.path, "GZIP" if file.gzipped else "").take(1000).as_numpy_iterator():
            names.update(dict.fromkeys(sorted(tf.train.Example.FromString(record).features.feature)))
        return list(names)
    with open_file(file) as stream:
        for line in islice(stream, 1000):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            names.update(dict.fromkeys(row if isinstance(row, dict) else ()))
    return list(names)


def read(data: Data, piece: Piece, columns: list[str]) -> Iterator[Block]:
    """Yield the rows of a piece with those of `columns` that the file has, as text or as the types of the file.

    Raises RefusedError where the file is cut off or is not what its name says.
    """
    file = piece.file
    try:
        if file.format == "parquet":
            yield from _read_parquet(piece, columns)
        elif file.format == "tfrecord":
            yield from _read_tfrecord(piece, columns)
        else:
            yield from _read_lines(data, piece, columns)
    except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowInvalid, OSError) as error:
        raise _unreadable(file, error) from None


def count_lines(piece: Piece) -> int:
    """Return how many lines begin in the piece; used to turn a later piece's line numbers into the file's."""
    return sum(len(lines) for _, lines in _line_blocks(piece))


def _unreadable(file: LogFile, error: Exception) -> RefusedError:
    cut = isinstance(error, EOFError) or "end-of-stream" in str(error)
    what = "is cut off before its end" if cut else "cannot be read"
    return RefusedError(
        f"{file.path}: the file {what} as {file.format}{' in gzip' if file.gzipped else ''} ({error}). "
        "Nothing was taken from it; copy it again or remove it."
    )


def open_file(file: LogFile):
    """Open a file's bytes, unzipped."""
    raw = FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED)
    return gzip.GzipFile(fileobj=raw) if file.gzipped else raw


def _line_blocks(piece: Piece) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield blocks of whole lines with the offset at which each line begins."""
    line = 0
    with open_file(piece.file) as stream:
        at = piece.start
        rest = b""
        if at:
            # A line belongs to the piece in which it begins: skip the tail of one begun before.
            stream.seek(at - 1)
            at += len(stream.readline()) - 1
        while piece.end is None or at < piece.end:
            chunk = stream.read(BLOCK_BYTES)
            if not chunk:
                break
            cut = chunk.rfind(b"\n") + 1
            block, next_rest = (rest + chunk[:cut], chunk[cut:]) if cut else (b"", rest + chunk)
            if len(next_rest) > MAX_LINE_BYTES:
                raise RefusedError(
                    f"{piece.file.path}: line {line + 1} is longer than {MAX_LINE_BYTES >> 20} MiB. "
                    f"Is this {piece.file.format}?"
                )
            rest = next_rest
            if block:
                if piece.end is not None and at + len(block) > piece.end:
                    # Keep the line under way at the piece's end, leave the next ones to the next piece.
                    end = block.find(b"\n", max(piece.end - at - 1, 0)) + 1
                    block, rest = block[:end], b""
                    at = piece.end
                at += len(block)
                starts = _line_starts(block)
                line += len(starts)
                yield block, starts
        if rest and (piece.end is None or at < piece.end):
            yield rest, np.zeros(1, np.int64)


def _line_starts(block: bytes) -> np.ndarray:
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + 1
    starts = np.concatenate([[0], ends])
    return starts[:-1] if len(ends) and ends[-1] == len(block) else starts


def _read_lines(data: Data, piece: Piece, columns: list[str]) -> Iterator[Block]:
    file = piece.file
    delimited = file.format in ("csv", "tsv")
    names = column_names(data, file) if delimited else None
    before = 0
    for block, starts in _line_blocks(piece):
        numbers = np.arange(before + 1, before + len(starts) + 1)
        first = before == 0 and piece.start == 0
        before += len(starts)
        if first and delimited:
            head = int(starts[1]) if len(starts) > 1 else len(block)
            block, starts, numbers = block[head:], starts[1:] - head, numbers[1:]
        bad: list[tuple[int, str, str]] = []
        block, numbers = _without_unreadable_lines(block, starts, numbers, bad, quotes=delimited)
        if delimited:
            parsed = _parse_delimited(block, names, _delimiter(data, file))
            keep = np.ones(len(numbers), bool)
            for row in parsed.bad:
                keep[row[0] - 1] = False
                bad.append((int(numbers[row[0] - 1]), row[1], row[2]))
            table = parsed.table.select([c for c in columns if c in parsed.table.column_names])
            yield Block(table, numbers[keep], bad)
        else:
            yield _parse_json(block, numbers, bad, columns)


def _delimiter(data: Data, file: LogFile) -> str:
    return "\t" if file.format == "tsv" else data.delimiter or ","


def _without_unreadable_lines(
    block: bytes, starts: np.ndarray, numbers: np.ndarray, bad: list[tuple[int, str, str]], quotes: bool
) -> tuple[bytes, np.ndarray]:
    """Take out blank lines, lines that are not UTF-8 and, where quotes matter, lines with a quote left open."""
    if not len(starts):
        return b"", numbers
    lengths = np.diff(np.append(starts, len(block)))
    suspects = lengths <= 2
    if b'"' in block and quotes:
        is_quote = np.frombuffer(block, np.uint8) == ord('"')
        suspects |= np.add.reduceat(is_quote, starts, dtype=np.int64) % 2 == 1
    try:
        block.decode()
    except UnicodeDecodeError:
        high = np.frombuffer(block, np.uint8) >= 128
        suspects |= np.add.reduceat(high, starts, dtype=np.int64) > 0
    if not suspects.any():
        return block, numbers
    keep = np.ones(len(starts), bool)
    for index in np.flatnonzero(suspects):
        line = block[starts[index] : starts[index] + lengths[index]]
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text.strip():
            keep[index] = False  # a blank line is no row, and no fault
        elif quotes and line.count(b'"') % 2:
            keep[index] = False
            bad.append((int(numbers[index]), "a quote is left open on this line", text[:KEPT_CHARACTERS]))
        elif "\ufffd" in text and not _is_utf8(line):
            keep[index] = False
            bad.append((int(numbers[index]), "not UTF-8", text[:KEPT_CHARACTERS]))
    ends = starts + lengths
    kept = b"".join(block[s:e] for s, e in _runs(starts[keep], ends[keep]))
    return kept, numbers[keep]


def _runs(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Join neighbouring ranges."""
    if not len(starts):
        return
    gaps = np.flatnonzero(starts[1:] != ends[:-1])
    for first, last in zip(np.append(0, gaps + 1), np.append(gaps, len(starts) - 1), strict=True):
        yield int(starts[first]), int(ends[last])


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse_delimited(block: bytes, names: list[str] | None, delimiter: str) -> Block:
    """Parse lines as delimited text, every column as text. `bad` lines count from 1 within the block."""
    bad: list[tuple[int, str, str]] = []

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        bad.append(
            (row.number, f"{row.actual_columns} columns, expected {row.expected_columns}", row.text[:KEPT_CHARACTERS])
        )
        return "skip"

    if not block and names is not None:
        return Block(pa.table({n: pa.array([], pa.string()) for n in names}), np.zeros(0, np.int64), bad)
    # autogenerate_column_names only serves to read the header itself as a row of text.
    header = (
        names
        or pyarrow.csv.read_csv(
            pa.BufferReader(block or b"\n"),
            pyarrow.csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types={f"f{i}": pa.string() for i in range(1000)}),
        )
        .slice(0, 1)
        .to_pylist()[0]
        .values()
    )
    if names is None:
        return Block(pa.table({str(n): pa.array([], pa.string()) for n in header}), np.zeros(0, np.int64), bad)
    table = pyarrow.csv.read_csv(
        pa.BufferReader(block),
        pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
        pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=keep),
        pyarrow.csv.ConvertOptions(column_types={n: pa.string() for n in names}, strings_can_be_null=False),
    )
    return Block(table, np.arange(1, table.num_rows + 1), bad)


def _parse_json(block: bytes, numbers: np.ndarray, bad: list[tuple[int, str, str]], columns: list[str]) -> Block:
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(block), pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
        )
        if table.num_rows == len(numbers):
            wanted = [c for c in columns if c in table.column_names]
            return Block(_without_lists(table.select(wanted)), numbers, bad)
    except pa.ArrowInvalid:
        pass  # some line is not an object, or a key holds different types: tell the lines apart below
    rows, kept = [], []
    for number, line in zip(numbers, block.splitlines(), strict=True):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            bad.append((int(number), f"not a JSON object: {error}", line.decode()[:KEPT_CHARACTERS]))
            continue
        rows.append(row)
        kept.append(number)
    arrays = {c: pa.array([_json_text(row.get(c)) for row in rows], pa.string()) for c in columns}
    return Block(pa.table(arrays), np.array(kept, np.int64), bad)


def _json_text(value: object) -> str | None:
    if isinstance(value, list):
        return VALUE_SEPARATOR.join(_json_text(element) or "" for element in value)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _read_parquet(piece: Piece, columns: list[str]) -> Iterator[Block]:
    with open_file(piece.file) as stream:
        file = pyarrow.parquet.ParquetFile(stream)
        wanted = [c for c in columns if c in file.schema_arrow.names]
        before = 0
        for batch in file.iter_batches(batch_size=131_072, columns=wanted):
            yield Block(
                _without_lists(pa.Table.from_batches([batch])), np.arange(before + 1, before + batch.num_rows + 1), []
            )
            before += batch.num_rows


def _read_tfrecord(piece: Piece, columns: list[str]) -> Iterator[Block]:
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    before = 0
    records = tf.data.TFRecordDataset(piece.file.path, compression_type="GZIP" if piece.file.gzipped else "")
    try:
        for chunk in records.batch(8192).as_numpy_iterator():
            batch = decoder.DecodeBatch(list(chunk))
            wanted = pa.table({c: batch.column(c) for c in columns if c in batch.schema.names})
            yield Block(_without_lists(wanted), np.arange(before + 1, before + len(chunk) + 1), [])
            before += len(chunk)
    except (tf.errors.DataLossError, RuntimeError) as error:
        raise EOFError(f"record {before + 1} or later: {str(error).splitlines()[0]}") from None


def _without_lists(table: pa.Table) -> pa.Table:
    """Join the values of list columns into one text a cell: from here on, a cell is a cell in every format."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            column = table.column(index).combine_chunks()
            values = column.flatten().cast(pa.string())
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
            joined = pc.binary_join(pa.ListArray.from_arrays(offsets, values), VALUE_SEPARATOR)
            table = table.set_column(index, field.name, joined)
    return table
