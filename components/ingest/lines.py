"""The lines of a text file: whole lines block by block, and without those that no reader could take as a row."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.ingest.files import LogFile
from components.refusal import RefusedError

BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 256 << 20
KEPT_CHARACTERS = 500
# The most that gzip can is 1032, with one byte over and over; logs come to 5 or 20, the dullest to less than 100.
MAX_GZIP_RATIO = 200
UNSUSPICIOUS_BYTES = 64 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@dataclass(frozen=True)
class Piece:
    """A part of a file that one worker reads: a byte range of a text file, row groups of Parquet, or a whole file."""

    file: LogFile
    start: int = 0
    end: int | None = None


def check_encoding(file: LogFile, head: bytes) -> None:
    """Raise RefusedError where a text file's first bytes show that it is not UTF-8."""
    known = next((name for mark, name in _OTHER_ENCODINGS.items() if head.startswith(mark)), None)
    if known is None and b"\x00" in head:
        known = "UTF-16 or binary"
    if known:
        raise RefusedError(
            f"{file.path}: the file is {known}, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8 FILE > NEWFILE"
        )
    if not is_utf8(head):
        raise RefusedError(
            f"{file.path}: the first line is not UTF-8. Convert the file: iconv -f ISO-8859-1 -t UTF-8 FILE > NEWFILE, "
            "or from whatever encoding it is in."
        )


def open_file(file: LogFile):
    """Open a file's bytes, unzipped."""
    raw = FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED)
    return gzip.GzipFile(fileobj=raw) if file.gzipped else raw


def line_blocks(piece: Piece) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield blocks of whole lines with the offset at which each line begins."""
    line = taken = 0
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
            taken += len(chunk)
            if piece.file.gzipped and taken > max(UNSUSPICIOUS_BYTES, MAX_GZIP_RATIO * piece.file.bytes):
                raise RefusedError(
                    f"{piece.file.path}: its gzip unpacks to more than {MAX_GZIP_RATIO} times its "
                    f"{piece.file.bytes:,} bytes, as no log does. Unpack it and see what it holds."
                )
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


def without_unreadable_lines(
    block: bytes, starts: np.ndarray, numbers: np.ndarray, bad: list[tuple[int, str, str]], delimiter: str | None
) -> tuple[bytes, np.ndarray]:
    """Take out blank lines, lines that are not UTF-8 and, of delimited text, lines that are not one whole record."""
    if not len(starts):
        return b"", numbers
    lengths = np.diff(np.append(starts, len(block)))
    suspects = lengths <= 2
    record = _record(delimiter) if delimiter is not None else None
    if record and (b'"' in block or block.count(b"\r") != block.count(b"\r\n")):
        marks = np.isin(np.frombuffer(block, np.uint8), (ord('"'), ord("\r")))
        suspects |= np.add.reduceat(marks, starts, dtype=np.int64) > 0
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
        elif record and not record.fullmatch(line):
            keep[index] = False
            what = "a quote is left open on this line" if b'"' in line else "a carriage return inside the line"
            bad.append((int(numbers[index]), what, text[:KEPT_CHARACTERS]))
        elif "\ufffd" in text and not is_utf8(line):
            keep[index] = False
            bad.append((int(numbers[index]), "not UTF-8", text[:KEPT_CHARACTERS]))
    ends = starts + lengths
    kept = b"".join(block[s:e] for s, e in _runs(starts[keep], ends[keep]))
    return kept, numbers[keep]


@cache
def _record(delimiter: str) -> re.Pattern[bytes]:
    """Return what a line must be for a CSV reader to take it, and nothing after it, as one record."""
    end = re.escape(delimiter).encode() + rb"\r\n"
    field = rb'(?:"(?:[^"\n]++|"")*+"[^%b]*+|[^"%b][^%b]*+|)' % (end, end, end)
    return re.compile(rb"%b(?:%b%b)*+\r?\n?" % (field, re.escape(delimiter).encode(), field))


def _runs(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Join neighbouring ranges."""
    if not len(starts):
        return
    gaps = np.flatnonzero(starts[1:] != ends[:-1])
    for first, last in zip(np.append(0, gaps + 1), np.append(gaps, len(starts) - 1), strict=True):
        yield int(starts[first]), int(ends[last])


def is_utf8(line: bytes) -> bool:
    """Whether bytes are text."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
