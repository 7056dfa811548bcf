"""Files to Arrow tables of text and numbers, block by block, with each row's line number and each bad row kept.

A record is one line: a line break inside quotes makes a malformed row, so that one stray quote costs one line and not
the rest of the file.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from components.ingest.files import LogFile
from components.ingest.lines import (
    BYTE_ORDER_MARK,
    KEPT_CHARACTERS,
    MAX_LINE_BYTES,
    Piece,
    check_encoding,
    is_utf8,
    line_blocks,
    open_file,
    without_unreadable_lines,
)
from components.refusal import RefusedError
from configs.data import Data

MAX_COLUMNS = 5_000
VALUE_SEPARATOR = "\x1f"  # ASCII's unit separator: joins the values of formats that have lists


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
    """Return the names in a delimited file's first line; a column without a name gets one from its place.

    Raises RefusedError where there is no header, a name is there twice, or the file is not UTF-8.
    """
    with open_file(file) as stream:
        try:
            header = stream.readline(1 << 20).removeprefix(BYTE_ORDER_MARK)
        except (EOFError, OSError, zlib.error) as error:
            raise _unreadable(file, error) from None
    check_encoding(file, header)
    if not header.strip():
        raise RefusedError(f"{file.path}: the first line is empty, it has no header. Remove it or mend its producer.")
    try:
        names = [
            name or f"unnamed_{place}" for place, name in enumerate(_header_names(header, _delimiter(data, file)), 1)
        ]
    except pa.ArrowInvalid as error:
        raise _unreadable(file, error) from None
    if len(names) > MAX_COLUMNS:
        raise RefusedError(
            f"{file.path}: the header names {len(names):,} columns, and at most {MAX_COLUMNS:,} are read. "
            "Is the delimiter right? Else keep only the columns that the config uses."
        )
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise RefusedError(f"{file.path}: the header names {', '.join(map(repr, twice))} twice. Mend the producer.")
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
        for number, line in enumerate(islice(iter(lambda: stream.readline(MAX_LINE_BYTES), b""), 1000)):
            if not number:
                check_encoding(file, line)
                if line.lstrip().startswith(b"["):
                    raise RefusedError(
                        f"{file.path}: one JSON array, not JSON Lines. Convert it: jq -c '.[]' FILE > NEWFILE.jsonl"
                    )
            try:
                row = json.loads(line.removeprefix(BYTE_ORDER_MARK))
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
    return sum(len(lines) for _, lines in line_blocks(piece))


def _unreadable(file: LogFile, error: Exception) -> RefusedError:
    cut = isinstance(error, EOFError) or "end-of-stream" in str(error)
    what = "is cut off before its end" if cut else "cannot be read"
    return RefusedError(
        f"{file.path}: the file {what} as {file.format}{' in gzip' if file.gzipped else ''} ({error}). "
        "Nothing was taken from it; copy it again or remove it."
    )


def _read_lines(data: Data, piece: Piece, columns: list[str]) -> Iterator[Block]:
    file = piece.file
    delimited = file.format in ("csv", "tsv")
    names = column_names(data, file) if delimited else None
    before = 0
    for block, starts in line_blocks(piece):
        numbers = np.arange(before + 1, before + len(starts) + 1)
        first = before == 0 and piece.start == 0
        before += len(starts)
        if first and delimited:
            head = int(starts[1]) if len(starts) > 1 else len(block)
            block, starts, numbers = block[head:], starts[1:] - head, numbers[1:]
        elif first and block.startswith(BYTE_ORDER_MARK):
            mark = len(BYTE_ORDER_MARK)
            block, starts = block[mark:], np.maximum(starts - mark, 0)
        bad: list[tuple[int, str, str]] = []
        delimiter = _delimiter(data, file) if delimited else None
        block, numbers = without_unreadable_lines(block, starts, numbers, bad, delimiter)
        if names is not None and delimiter is not None:
            parsed = _parse_delimited(block, names, delimiter)
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


def _header_names(header: bytes, delimiter: str) -> list[str]:
    header = header.rstrip(b"\r\n") + b"\n"  # Arrow takes a line without its end for no line
    table = pyarrow.csv.read_csv(
        pa.BufferReader(header),
        pyarrow.csv.ReadOptions(autogenerate_column_names=True, use_threads=False, block_size=len(header) + 1),
        pyarrow.csv.ParseOptions(delimiter=delimiter),
        pyarrow.csv.ConvertOptions(column_types={f"f{i}": pa.string() for i in range(1000)}),
    )
    return [str(name) for name in table.slice(0, 1).to_pylist()[0].values()]


def _parse_delimited(block: bytes, names: list[str], delimiter: str) -> Block:
    """Parse lines as delimited text, every column as text. `bad` lines count from 1 within the block."""
    bad: list[tuple[int, str, str]] = []

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        bad.append(
            (row.number, f"{row.actual_columns} columns, expected {row.expected_columns}", row.text[:KEPT_CHARACTERS])
        )
        return "skip"

    if not block:
        return Block(pa.table({n: pa.array([], pa.string()) for n in names}), np.zeros(0, np.int64), bad)
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
        table = table.select([c for c in columns if c in table.column_names])
        if table.num_rows == len(numbers) and all(map(_is_exact, table.columns)):
            return _cells(table, numbers, bad, columns)
    except pa.ArrowInvalid:
        pass  # some line is not an object, or a key holds different types: tell the lines apart below
    rows, kept = [], []
    for number, line in zip(numbers, block.removesuffix(b"\n").split(b"\n") if block else [], strict=True):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
            cells = [_json_text(row.get(c)) for c in columns]
            "".join(c or "" for c in cells).encode()  # JSON can spell half a character; Arrow cannot hold it
        except (ValueError, RecursionError) as error:
            bad.append((int(number), f"not a JSON object: {error}", line.decode()[:KEPT_CHARACTERS]))
            continue
        rows.append(cells)
        kept.append(number)
    arrays = {c: pa.array([row[i] for row in rows], pa.string()) for i, c in enumerate(columns)}
    return Block(pa.table(arrays), np.array(kept, np.int64), bad)


def _is_exact(column: pa.ChunkedArray) -> bool:
    """Whether Arrow kept what the JSON said: it reads dates out of text, and large integers as rounded floats."""
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    if pa.types.is_float64(kind) and kind == column.type:
        return (pc.max(pc.abs(column)).as_py() or 0.0) < 2**53
    return pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _json_text(value: object) -> str | None:
    if isinstance(value, list):
        return VALUE_SEPARATOR.join(_json_text(element) or "" for element in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # an id is the same whether its writer put 12 or 12.0
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _read_parquet(piece: Piece, columns: list[str]) -> Iterator[Block]:
    with open_file(piece.file) as stream:
        file = pyarrow.parquet.ParquetFile(stream)
        wanted = [c for c in columns if c in file.schema_arrow.names]
        for name in wanted:
            kind = file.schema_arrow.field(name).type
            if pa.types.is_nested(kind) and not (_is_list(kind) and not pa.types.is_nested(kind.value_type)):
                raise RefusedError(
                    f"{piece.file.path}: column {name!r} is {kind}; only single values and lists of them can be read. "
                    "Flatten it."
                )
        before = 0
        for batch in file.iter_batches(batch_size=131_072, columns=wanted):
            numbers = np.arange(before + 1, before + batch.num_rows + 1)
            yield _cells(pa.Table.from_batches([batch]), numbers, [], columns)
            before += batch.num_rows


def _read_tfrecord(piece: Piece, columns: list[str]) -> Iterator[Block]:
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    before = 0

    def decode(examples: list[bytes], numbers: np.ndarray) -> Block:
        batch = decoder.DecodeBatch(examples)
        return _cells(pa.Table.from_batches([batch]), numbers, [], columns)

    records = tf.data.TFRecordDataset(piece.file.path, compression_type="GZIP" if piece.file.gzipped else "")
    try:
        for chunk in records.batch(8192).as_numpy_iterator():
            numbers = np.arange(before + 1, before + len(chunk) + 1)
            before += len(chunk)
            try:
                yield decode(list(chunk), numbers)
            except RuntimeError:  # some record is no Example, or a feature holds different types: one at a time
                for number, record in zip(numbers, chunk, strict=True):
                    try:
                        yield decode([record], np.array([number]))
                    except RuntimeError as error:
                        empty = pa.table({c: pa.array([], pa.string()) for c in columns})
                        reason = f"not a tf.train.Example: {str(error).splitlines()[0]}"
                        yield Block(empty, np.zeros(0, np.int64), [(int(number), reason, repr(record[:80]))])
    except tf.errors.DataLossError as error:
        raise EOFError(f"record {before + 1} or later: {str(error).splitlines()[0]}") from None


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _cells(table: pa.Table, numbers: np.ndarray, bad: list[tuple[int, str, str]], columns: list[str]) -> Block:
    """Make a cell a cell in every format: lists joined into one text, bytes decoded, absent columns empty.

    A row with bytes that are not UTF-8 is bad.
    """
    readable = np.ones(len(numbers), bool)
    arrays: dict[str, pa.Array] = {}
    for name in columns:
        if name not in table.column_names:
            arrays[name] = pa.nulls(len(numbers), pa.string())
            continue
        column = table.column(name).combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not _is_list(column.type):
            arrays[name] = _decoded(column, np.arange(len(column)), readable)
            continue
        if pa.types.is_fixed_size_list(column.type):
            column = column.cast(pa.list_(column.type.value_type))
        values = _decoded(column.flatten(), pc.list_parent_indices(column).to_numpy(), readable).cast(pa.string())
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        arrays[name] = pc.binary_join(pa.ListArray.from_arrays(offsets, pc.fill_null(values, "")), VALUE_SEPARATOR)
    joined = pa.table(arrays)
    if readable.all():
        return Block(joined, numbers, bad)
    bad = bad + [
        (int(numbers[row]), "not UTF-8", " | ".join(map(str, joined.slice(row, 1).to_pylist()[0].values())))
        for row in np.flatnonzero(~readable)
    ]
    return Block(joined.filter(pa.array(readable)), numbers[readable], bad)


def _decoded(values: pa.Array, rows: np.ndarray, readable: np.ndarray) -> pa.Array:
    """Return bytes as text and other values as they are; marks in `readable` the rows where that cannot be done."""
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        return values.cast(pa.string())
    if not (
        pa.types.is_binary(values.type)
        or pa.types.is_large_binary(values.type)
        or pa.types.is_fixed_size_binary(values.type)
        or pa.types.is_binary_view(values.type)
    ):
        return values
    values = values.cast(pa.binary())
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        cells = values.to_pylist()
        fine = np.array([cell is None or is_utf8(cell) for cell in cells])
        readable[rows[~fine]] = False
        return pa.array([None if c is None else c.decode(errors="replace") for c in cells], pa.string())
