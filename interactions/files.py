"""Files of logs in any format, written table by table; a file appears by one rename."""

from __future__ import annotations

import contextlib
import gzip
import os
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class Target:
    """One file, written under a hidden name beside its own, which it takes when it is whole."""

    def __init__(self, path: Path, extension: str, leftovers: contextlib.ExitStack) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")
        self._raw = leftovers.enter_context(self._partial.open("wb"))
        self._writer: _Writer | None = None
        leftovers.callback(self._partial.unlink, missing_ok=True)
        leftovers.callback(self._close)
        self._extension = extension

    def write(self, table: pa.Table) -> None:
        """Add a table's rows."""
        if self._writer is None:
            self._writer = _open_writer(self._raw, self._extension, table.schema)
        self._writer.write_table(table)

    def finish(self) -> None:
        """Give the file, now whole, its name."""
        self._close()
        self._partial.replace(self._path)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._raw.close()


class _TextWriter:
    def __init__(self, raw: IO[bytes], gzipped: bool) -> None:
        # No file name and no time in the gzip header: the same rows are the same bytes.
        self._gzip = gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) if gzipped else None
        self._sink: IO[bytes] = self._gzip or raw  # type: ignore[assignment]

    def close(self) -> None:
        if self._gzip is not None:
            self._gzip.close()


class _DelimitedWriter(_TextWriter):
    def __init__(self, raw: IO[bytes], gzipped: bool, delimiter: str, schema: pa.Schema) -> None:
        super().__init__(raw, gzipped)
        self._sink.write((delimiter.join(schema.names) + "\n").encode())
        # No value here needs quotes; Arrow would put every text in some.
        options = pa.csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none")
        self._options = options

    def write_table(self, table: pa.Table) -> None:
        text = pa.BufferOutputStream()
        pa.csv.write_csv(table, text, self._options)
        self._sink.write(memoryview(text.getvalue()))


class _JsonLinesWriter(_TextWriter):
    def write_table(self, table: pa.Table) -> None:
        self._sink.write(memoryview(_json_lines(table)))


def _json_lines(table: pa.Table) -> pa.Buffer:
    """Return one JSON object a line, `null` where missing. Texts must hold no control characters."""
    parts: list[pa.Array | str] = ["{"]
    for index, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        values = column.combine_chunks()
        text = values.cast(pa.string())
        if pa.types.is_string(values.type):
            escaped = pc.replace_substring(pc.replace_substring(values, "\\", "\\\\"), '"', '\\"')
            text = pc.binary_join_element_wise('"', escaped, '"', "")
        parts += [f'{", " if index else ""}"{name}": ', pc.fill_null(text, "null")]
    lines = pc.binary_join_element_wise(*parts, "}\n", "")
    offsets = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    return lines.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _open_writer(raw: IO[bytes], extension: str, schema: pa.Schema) -> _Writer:
    if extension == ".parquet":
        return pa.parquet.ParquetWriter(raw, schema)
    gzipped = extension.endswith(".gz")
    if extension.startswith(".jsonl"):
        return _JsonLinesWriter(raw, gzipped)
    return _DelimitedWriter(raw, gzipped, "\t" if extension.startswith(".tsv") else ",", schema)


def split_name(path: Path) -> tuple[str, str]:
    """Return a file's name without its ending, and the ending. Raises ValueError where it is none of FORMATS."""
    for extension in FORMATS:
        if path.name.endswith(extension) and path.name != extension:
            return path.name.removesuffix(extension), extension
    raise ValueError(f"{path}: expected a name that ends in one of {', '.join(FORMATS)}")
