"""Which files a run reads: globs, folders, and rolling windows of spans."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from apache_beam.io.filesystems import FileSystems

from configs import ConfigError
from configs.data import Data, FileFormat

_ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}


@dataclass(frozen=True)
class LogFile:
    """One file of interaction logs."""

    path: str
    bytes: int
    modified: float
    format: FileFormat
    gzipped: bool
    span: str | None = None


def find_files(data: Data, source: str) -> list[LogFile]:
    """Return the files that `source` (absolute) stands for, by name; with `{SPAN}`, those of the newest spans.

    Raises ConfigError where there is none or a file's format cannot be told.
    """
    pattern = source.replace("{SPAN}", "*").rstrip("/")
    try:
        # Beam takes a local folder for a file of that name.
        found = [] if os.path.isdir(pattern) else FileSystems.match([pattern])[0].metadata_list
        found = found or FileSystems.match([f"{pattern}/*"])[0].metadata_list
    except Exception as error:
        raise ConfigError(f"data.source: {source} cannot be listed: {error}") from None
    files = [_log_file(data, m) for m in sorted(found, key=lambda m: m.path) if _is_data(m.path)]
    if "{SPAN}" in source:
        files = _newest_spans(files, source, data.window)
    if not files:
        raise ConfigError(f"data.source: no file matches {source}. Fetch the logs first, or mend the pattern.")
    return files


def fingerprint(files: list[LogFile]) -> str:
    """Return a digest that changes when a file is added, removed, resized or rewritten."""
    text = "\n".join(f"{f.path}\t{f.bytes}\t{f.modified}" for f in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_data(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return not name.startswith((".", "_"))


def _log_file(data: Data, metadata) -> LogFile:
    path = metadata.path
    stem = path.lower()
    gzipped = stem.endswith(".gz")
    stem = stem.removesuffix(".gz")
    format_ = data.format or next((f for ending, f in _ENDINGS.items() if stem.endswith(ending)), None)
    if format_ is None:
        raise ConfigError(f"data.format: cannot tell the format of {path} from its name; name it: csv, tsv, jsonl, ...")
    return LogFile(path, metadata.size_in_bytes, metadata.last_updated_in_seconds or 0.0, format_, gzipped)


def _newest_spans(files: list[LogFile], source: str, window: int) -> list[LogFile]:
    # A span is a number or a day; both sort as text once numbers are padded alike.
    glob_free = re.escape(source).replace(re.escape("{SPAN}"), r"(?P<span>\d[\d-]*)", 1)
    glob_free = glob_free.replace(re.escape("{SPAN}"), r"(?P=span)").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    glob_free = re.sub(r"\\\[(.+?)\\\]", lambda m: f"[{m[1]}]", glob_free.rstrip("/"))
    expression = re.compile(glob_free + r"(?:/.*)?$")
    spans: dict[str, list[LogFile]] = {}
    for file in files:
        if match := expression.match(file.path):
            spans.setdefault(match["span"], []).append(file)
    newest = sorted(spans, key=lambda span: (len(span.replace("-", "")), span))[-window:]
    return [LogFile(f.path, f.bytes, f.modified, f.format, f.gzipped, span) for span in newest for f in spans[span]]
