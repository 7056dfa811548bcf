from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from components.ingest.reading import Block
from components.ingest.rows import RowTyper
from configs.features import LABEL, MISSING_TIME, RawColumn
from tests.components.ingest.conftest import data

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIME = "1700000000"
NUMBER = RawColumn("price", "float", "item", None, float("nan"))
SEVERAL = RawColumn("genres", "string", "item", "|", "")
SINCE = RawColumn("joined", "int64", "user", None, MISSING_TIME)


def typed(columns=(), raw=(), **meaning):
    """Type rows of which `columns` gives cells that matter; the others are well-formed."""
    columns = dict(columns)
    size = len(next(iter(columns.values())))
    cells = {"user": ["u"] * size, "item": ["i"] * size, "time": [TIME] * size, "rating": ["5"] * size} | columns
    if meaning.get("time_unit", "s") != "s" and "time" not in columns:
        raise AssertionError("say the times")
    typer = RowTyper(data(**meaning), {c.name: c for c in raw}, NOW)
    return typer(Block(pa.table(cells), np.arange(2, size + 2), []))


def labels(cells, positive, kind=None):
    found = typed(
        {"rating": cells if kind is None else pa.array(cells, kind)},
        label={"column": "rating", "positive": positive},
    )
    return found.batch.column(LABEL).to_pylist(), found.bad


@pytest.mark.parametrize(
    ("cells", "positive", "expected"),
    [
        (["5", "4", "3.99", "-1"], ">= 4", [1, 1, 0, 0]),
        (["0.1", "0.2"], "> 0.1", [0, 1]),
        (["true", "FALSE", "True"], "> 0", [1, 0, 1]),
        (["click", "view", "click "], "== click", [1, 0, 0]),
        (["click", "view"], "!= view", [1, 0]),
        ([True, False], "> 0", [1, 0]),
        ([True, False], "== true", [1, 0]),
        ([5, 3], "== 5", [1, 0]),
    ],
)
def test_labels(cells, positive, expected):
    assert labels(cells, positive) == (expected, [])


def test_a_row_without_a_label_or_with_one_that_is_none_is_malformed():
    found, bad = labels(["true", None, "false", ""], "> 0")
    assert found == [1, 0]
    assert [line for line, _, _ in bad] == [3, 5]
    found, bad = labels(["5", "NA", "good", "nan"], ">= 4")
    assert found == [1]
    reasons = {line: reason for line, reason, _ in bad}
    assert reasons[4] == "column 'rating': 'good' is not a number"
    assert "is empty" in reasons[3]
    assert "is empty" in reasons[5]


@pytest.mark.parametrize(
    ("unit", "cell"),
    [
        ("s", "1700000000"),
        ("s", "1700000000.9"),
        ("s", 1700000000),
        ("s", 1.7e9),
        ("ms", "1700000000999"),
        ("us", "1700000000000001"),
        ("ns", 1700000000000000001),
        ("iso8601", "2023-11-14T22:13:20Z"),
        ("iso8601", "2023-11-14 23:13:20.5+01:00"),
        ("iso8601", "2023-11-14T22:13:20"),
        ("ms", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("iso8601", datetime(2023, 11, 14, 22, 13, 20)),
    ],
)
def test_times_in_every_unit_are_seconds(unit, cell):
    found = typed({"time": [cell]}, time_unit=unit)
    assert found.bad == []
    assert found.batch.column("time").to_pylist() == [1_700_000_000]
    assert found.batch.column("time").type == pa.int64()


def test_a_zone_of_a_parquet_time_is_kept():
    local = pa.array([datetime(2023, 11, 14, 22, 13, 20)], pa.timestamp("us", "America/New_York"))
    assert typed({"time": local}).batch.column("time").to_pylist() == [1_700_000_000]


def test_a_date_is_its_midnight():
    found = typed({"time": pa.array([date(2023, 11, 14)])})
    assert found.batch.column("time").to_pylist() == [1_699_920_000]


@pytest.mark.parametrize("cell", ["", None, "soon", "1e30", "-5", "631151999", "1767312001", "inf", "nan"])
def test_absurd_times_are_malformed(cell):
    found = typed({"time": [TIME, cell]})
    assert found.batch.num_rows == 1
    ((line, reason, _),) = found.bad
    assert line == 3
    assert "'time'" in reason


def test_iso_times_that_are_none_are_malformed():
    found = typed({"time": ["2023-11-14", "14.11.2023", None, "2023-13-01"]}, time_unit="iso8601")
    assert found.batch.num_rows == 1
    assert sorted(line for line, _, _ in found.bad) == [3, 4, 5]


def test_an_unsigned_time_too_large_for_a_time_is_malformed_not_a_crash():
    found = typed({"time": pa.array([2**64 - 1, 1_700_000_000], pa.uint64())})
    assert found.batch.num_rows == 1


def test_milliseconds_read_as_seconds_say_so():
    ((_, reason, _),) = typed({"time": ["1700000000000"]}).bad
    assert reason == "column 'time': '1700000000000' is outside 1990-01-01 to 2026-01-02 read as s"


def test_the_time_range_of_the_config_holds():
    found = typed({"time": ["86400", "31536000"]}, time_range=["1970-01-01", "1970-06-01"])
    assert found.batch.column("time").to_pylist() == [86400]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["007", "7", "Zoë", "用户"], ["007", "7", "Zoë", "用户"]),
        ([7, 12], ["7", "12"]),
        ([7.0, 12.5], ["7", "12.5"]),
        (pa.array([b"a", b"b"]).cast(pa.string()), ["a", "b"]),
        ([2**62, -1], [str(2**62), "-1"]),
    ],
)
def test_ids_are_text_as_written(cells, expected):
    assert typed({"user": cells}).batch.column("user").to_pylist() == expected


@pytest.mark.parametrize("missing", ["", None])
def test_a_row_without_an_id_is_malformed(missing):
    found = typed({"item": ["i", missing]})
    assert found.batch.num_rows == 1
    assert found.bad[0][:2] == (3, "column 'item': is empty")


def test_an_id_that_is_not_a_number_among_numbers_is_missing_not_nan():
    found = typed({"user": pa.array([1.0, float("nan"), None, 2.0])})
    assert found.batch.column("user").to_pylist() == ["1", "2"]
    assert [line for line, _, _ in found.bad] == [3, 4]


def test_numbers():
    cells = ["1.5", " 2 ", "-3", "1e39", "-inf", "", "NA", "nan", r"\N", "+4"]
    found = typed({"price": cells}, [NUMBER])
    largest = float(np.finfo(np.float32).max)
    assert found.bad == []
    assert found.batch.column("price").to_pylist() == [1.5, 2, -3, largest, -largest, None, None, None, None, 4]
    assert found.batch.column("price").type == pa.float32()


def test_a_number_that_is_none_is_malformed():
    found = typed({"price": ["1", "1,5", "cheap"]}, [NUMBER])
    assert found.batch.column("price").to_pylist() == [1]
    assert [reason for _, reason, _ in found.bad] == [
        "column 'price': '1,5' is not a number",
        "column 'price': 'cheap' is not a number",
    ]


@pytest.mark.parametrize("cells", [[1, None], [1.0, float("nan")], [True, None], pa.array([1, None], pa.decimal128(9))])
def test_numbers_that_are_numbers_already(cells):
    assert typed({"price": cells}, [NUMBER]).batch.column("price").to_pylist() == [1, None]


def test_several_values_lose_the_empty_ones_and_nothing_else():
    found = typed({"genres": ["a|b", "", None, "|c||d|", "a\x1fb"]}, [SEVERAL])
    assert found.batch.column("genres").to_pylist() == [["a", "b"], None, None, ["c", "d"], ["a", "b"]]
    only = typed({"genres": ["|", "a"]}, [SEVERAL])
    assert only.batch.column("genres").to_pylist() == [None, ["a"]]


def test_a_time_that_is_missing_in_a_feature_stays_missing():
    found = typed({"joined": ["100", "", None]}, [SINCE])
    assert found.batch.column("joined").to_pylist() == [100, None, None]


def test_a_field_of_ten_megabytes_costs_its_row():
    found = typed({"title": ["short", "x" * 10_000_000]}, [RawColumn("title", "string", "item", None, "")])
    assert found.batch.num_rows == 1
    ((line, reason, shown),) = found.bad
    assert (line, reason) == (3, "column 'title': 10,000,000 bytes, over data.max_field_bytes (65,536)")
    assert len(shown) <= 500


def test_a_row_is_malformed_once_whatever_is_wrong_with_it():
    found = typed({"user": ["", "u"], "time": ["x", TIME], "rating": ["y", "5"]})
    assert len(found.bad) == 1


def test_no_rows_are_no_rows():
    nothing = pa.array([], pa.string())
    found = typed(dict.fromkeys(("user", "price", "genres", "joined"), nothing), [NUMBER, SEVERAL, SINCE])
    assert found.batch.num_rows == 0


def test_ids_that_look_like_huge_numbers_do_no_harm():
    """pandas' to_numeric ends the process without a word at such exponents."""
    found = typed({"price": ["787E7527758764FDFFB68D094C870977", "12E7527758764", "3e4"]}, [NUMBER])
    assert [reason for _, reason, _ in found.bad] == [
        "column 'price': '787E7527758764FDFFB68D094C870977' is not a number"
    ]
    assert found.batch.column("price").to_pylist() == [float(np.finfo(np.float32).max), 30_000.0]


@pytest.mark.parametrize(
    ("cell", "meaning", "value"),
    [
        ("3,5", {"decimal": ","}, 3.5),
        ("-1.234,5", {"decimal": ",", "thousands": "."}, -1234.5),
        ("1,234,567", {"thousands": ","}, 1_234_567.0),
        ("1\u202f234", {"thousands": " "}, 1234.0),
        ("1'000.25", {"thousands": "'"}, 1000.25),
    ],
)
def test_numbers_are_read_as_the_config_says_they_are_written(cell, meaning, value):
    assert typed({"price": [cell]}, [NUMBER], **meaning).batch.column("price").to_pylist() == [value]
    assert typed({"price": [cell]}, [NUMBER]).bad, "and not guessed at"


def test_a_separator_of_thousands_parts_groups_of_three():
    assert [reason for _, reason, _ in typed({"price": ["1,2345"]}, [NUMBER], thousands=",").bad] == [
        "column 'price': '1,2345' is not a number"
    ]


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("14/11/2023 22:13", "%d/%m/%Y %H:%M"),
        ("11-14-2023 10:13 PM", "%m-%d-%Y %I:%M %p"),
        ("20231114221300", "%Y%m%d%H%M%S"),
        ("14.11.2023 23:13 +0100", "%d.%m.%Y %H:%M %z"),
    ],
)
def test_times_can_be_of_any_form(cell, form):
    found = typed({"time": [cell, "soon"]}, time_format=form)
    assert found.batch.column("time").to_pylist() == [1_699_999_980]
    assert [reason for _, reason, _ in found.bad] == [f"column 'time': 'soon' is not a time as {form}"]
