import os

import pytest

from components.ingest.files import NoLogsYetError, find_files, fingerprint, newest_span
from configs import ConfigError
from tests.components.ingest.conftest import data


@pytest.fixture
def logs(tmp_path):
    for name in ("a.csv", "b.csv.gz", "_SUCCESS", ".hidden.csv", "days.v1/20260101.jsonl", "bare/x.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def found(source, **meaning):
    return [f.path.rsplit("/", 1)[-1] for f in find_files(data(**meaning), str(source))]


def test_a_file_a_glob_and_a_folder(logs):
    assert found(logs / "a.csv") == ["a.csv"]
    assert found(logs / "[ab].*") == ["a.csv", "b.csv.gz"]
    assert found(logs) == ["a.csv", "b.csv.gz"]
    assert found(f"{logs}/") == ["a.csv", "b.csv.gz"]
    assert found(logs / "days.v1") == ["20260101.jsonl"], "a dot in a folder's name makes it no file"


def test_a_file_without_an_ending_needs_its_format(logs):
    (logs / "plain").write_bytes(b"x")
    assert found(logs / "plain", format="csv") == ["plain"]
    with pytest.raises(ConfigError, match=r"data\.format: cannot tell the format of .*plain"):
        found(logs / "plain")


def test_formats_follow_the_names(logs):
    assert [(f.format, f.gzipped) for f in find_files(data(), str(logs))] == [("csv", False), ("csv", True)]
    assert find_files(data(), str(logs / "bare"))[0].format == "parquet"


def test_nothing_found_names_the_pattern(logs):
    with pytest.raises(ConfigError, match=r"no file matches .*none\.csv"):
        found(logs / "none.csv")


@pytest.mark.parametrize(
    ("spans", "window", "expected"),
    [
        (["1", "2", "9", "10"], 2, ["9", "10"]),
        (["20260131", "20260201", "20251231"], 2, ["20260131", "20260201"]),
        (["2026-01-31", "2026-02-01"], 1, ["2026-02-01"]),
        (["7"], 5, ["7"]),
    ],
)
@pytest.mark.parametrize("pattern", ["logs-{SPAN}.csv", "{SPAN}/part-*.csv", "{SPAN}/{SPAN}.csv", "{SPAN}"])
def test_a_window_takes_the_newest_spans(tmp_path, spans, window, expected, pattern):
    for span in spans:
        path = tmp_path / pattern.replace("{SPAN}", span).replace("*", "0")
        path = path / "x.csv" if pattern == "{SPAN}" else path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    source = str(tmp_path / pattern)
    assert [f.span for f in find_files(data(source=source, window=window), source)] == expected


def test_the_fingerprint_follows_what_the_files_are(logs):
    before = fingerprint(find_files(data(), str(logs)))
    assert fingerprint(find_files(data(), str(logs))) == before
    (logs / "a.csv").write_bytes(b"xy")
    assert fingerprint(find_files(data(), str(logs))) != before


def test_a_file_rewritten_with_its_size_and_time_kept_is_another(logs):
    before, file = fingerprint(find_files(data(), str(logs))), logs / "a.csv"
    times = file.stat()
    file.write_bytes(b"y")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(find_files(data(), str(logs))) != before


@pytest.fixture
def days(tmp_path):
    for day in ("2026-01-30", "2026-01-31", "2026-02-02", "2026-02-03"):
        (tmp_path / f"{day}.csv").write_bytes(b"x")
    return f"{tmp_path}/{{SPAN}}.csv"


@pytest.mark.parametrize(
    ("span", "window", "expected"),
    [
        ("20260202", 1, ["2026-02-02"]),
        ("2026-02-02", 3, ["2026-01-31", "2026-02-02"]),
        ("20260202", 99, ["2026-01-30", "2026-01-31", "2026-02-02"]),
        ("20260130", 2, ["2026-01-30"]),
    ],
)
def test_a_run_for_a_day_reads_the_window_that_ends_with_it(days, span, window, expected):
    files = find_files(data(source=days, span=span, window=window), days)
    assert [f.span for f in files] == expected
    assert newest_span(files) == int(span.replace("-", ""))


def test_a_day_without_logs_is_waited_for_and_not_replaced_by_another(days):
    with pytest.raises(NoLogsYetError, match=r"no logs of 20260201 .* yet; the newest there is 20260203"):
        find_files(data(source=days, span="20260201", window=5), days)
