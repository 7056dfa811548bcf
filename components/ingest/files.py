"""Which files a run reads: globs, folders, and rolling windows of spans."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace

from apache_beam.io.filesystems import FileSystems

from configs import ConfigError
from configs.data import SPAN, Data, FileFormat, span_number, spans_until

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


class NoLogsYetError(Exception):
    """The span that a run is for has no logs. They may come yet, so trying again later can help."""


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
    """Return the files that `source` (absolute) stands for, by name; with `{SPAN}`, those of its window of spans.

    Raises ConfigError where there is none or a file's format cannot be told, NoLogsYetError where `data.span` is given
    and has none.
    """
    pattern = source.replace(SPAN, "*").rstrip("/")
    try:
        # Beam takes a local folder for a file of that name.
        found = [] if os.path.isdir(pattern) else FileSystems.match([pattern])[0].metadata_list
        found = found or FileSystems.match([f"{pattern}/*"])[0].metadata_list
    except Exception as error:
        raise ConfigError(f"data.source: {source} cannot be listed: {error}") from None
    files = [_log_file(data, m) for m in sorted(found, key=lambda m: m.path) if _is_data(m.path)]
    if SPAN in source:
        files = _window(files, source, data)
    if not files:
        raise ConfigError(f"data.source: no file matches {source}. Fetch the logs first, or mend the pattern.")
    return files


def fingerprint(files: list[LogFile]) -> str:
    """Return a digest that changes when a file is added, removed, resized or rewritten.

    Of local and mounted files the time of the last change counts too, which no program can set back: one rewritten
    with its size and time of modification kept is seen. Remote file systems have no such time.
    """
    text = "\n".join(f"{f.path}\t{f.bytes}\t{f.modified}\t{_changed(f.path)}" for f in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_ctime_ns
    except OSError:
        return 0


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


def newest_span(files: list[LogFile]) -> int:
    """Return the span that a run over these files is for, as a number; 0 where the logs have no spans."""
    return max((span_number(f.span) for f in files if f.span), default=0)


def _window(files: list[LogFile], source: str, data: Data) -> list[LogFile]:
    """Return the files of the spans that `data` asks for, each with its span, in order of spans."""
    glob_free = re.escape(source).replace(re.escape(SPAN), r"(?P<span>\d[\d-]*)", 1)
    glob_free = glob_free.replace(re.escape(SPAN), r"(?P=span)").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    glob_free = re.sub(r"\\\[(.+?)\\\]", lambda m: f"[{m[1]}]", glob_free.rstrip("/"))
    expression = re.compile(glob_free + r"(?:/.*)?$")
    found = [replace(file, span=match["span"]) for file in files if (match := expression.match(file.path))]
    numbers = {span_number(f.span) for f in found if f.span}
    if data.span is None:
        wanted = set(sorted(numbers)[-data.window :])
    elif span_number(data.span) not in numbers:
        newest = f"the newest there is {max(numbers)}" if numbers else "there is none at all"
        raise NoLogsYetError(
            f"data.span: no logs of {data.span} in {source} yet; {newest}. Try again when they are in."
        )
    else:
        wanted = spans_until(data.span, data.window)
    kept = [f for f in found if f.span and span_number(f.span) in wanted]
    return sorted(kept, key=lambda f: span_number(f.span or "0"))
