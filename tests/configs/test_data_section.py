from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import ConfigError
from configs.data import Label, span_before, spans_until


@pytest.mark.parametrize(
    ("positive", "operator", "operand"),
    [
        (">= 4", ">=", 4.0),
        ("<-1.5e3", "<", -1500.0),
        ("== 1", "==", 1.0),
        ("!= 0", "!=", 0.0),
        ("== click", "==", "click"),
        ("==  'buy now' ", "==", "buy now"),
        ("!= Köp", "!=", "Köp"),
        ("== nan", "==", "nan"),
        ("== 1_000", "==", "1_000"),
        ("== >= 4", "==", ">= 4"),
    ],
)
def test_a_label_compares_with_a_number_or_a_text(positive, operator, operand):
    label = Label(column="y", positive=positive)
    assert (label.operator, label.operand) == (operator, operand)
    assert type(label.operand) is type(operand)


@pytest.mark.parametrize("positive", ["4", "=> 4", "> click", ">= nan", "< inf", "<= 1_0", "", "=="])
def test_what_is_no_comparison_is_refused(positive):
    with pytest.raises(ValueError, match=r"expected a comparison|compares numbers"):
        Label(column="y", positive=positive)


@given(st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_can_be_compared_with(operator, number):
    label = Label(column="y", positive=f"{operator} {number!r}")
    assert (label.operator, label.operand) == (operator, number)


@pytest.mark.parametrize(
    ("override", "place", "expectation"),
    [
        ("data.item=u", "data", "user, item, time and label.column must be different columns"),
        ("data.label.column=t", "data", "user, item, time and label.column must be different columns"),
        ("data.user='1 x'", "data.user", "expected text that matches"),
        ("data.source=''", "data.source", "expected a length of at least 1"),
        ("data.split={}", "data.split.by", "required key 'by' is missing"),
        ("data.split.by=random", "data.split.by", "expected 'time', 'user_time', .* got 'random'"),
        ("data.split.eval=0", "data.split", "eval and test must each be above 0"),
        ("data.split.test=0.9", "data.split", "eval and test must .* leave something to train on"),
        ("data.split.test=1.1", "data.split.test", "expected less than or equal to 1"),
        (
            "data.split={by: leave_one_out, test: 0.2}",
            "data.split",
            "by: leave_one_out takes one event each, no shares",
        ),
        ("data.split.at_least=1", "data.split", "at_least only goes with by: user_time and by: user_share"),
        ("data.weight=plays", "data", "weight is for logs of positives: leave out label, or give it keep: positives"),
        ("data.time=", "data", "split.by: time needs data.time, which these logs have not: use user_share"),
        ("data.split.columns=[u]", "data.split", "columns only go with by: hash"),
        ("data.window=2", "data", "window needs a {SPAN} in source"),
        ("data.span=3", "data", "span needs a {SPAN} in source"),
        ("data.split.by=span", "data", "split.by: span needs a {SPAN} in source"),
        ("data.span=today", "data.span", "expected text that matches"),
        ("data.window=0", "data.window", "expected greater than or equal to 1"),
        ("data.format=xml", "data.format", "expected 'csv', 'tsv', 'jsonl', 'parquet' or 'tfrecord', got 'xml'"),
        ("data.delimiter=;;", "data.delimiter", "expected text that matches"),
        ("data.delimiter='\"'", "data.delimiter", "expected text that matches"),
        ("data.time_unit=h", "data.time_unit", "expected 's', 'ms', 'us', 'ns' or 'iso8601', got 'h'"),
        ("data.time_range=[2021-01-01, 2020-01-01]", "data.time_range", "expected the earlier time first"),
        ("data.max_malformed=1.5", "data.max_malformed", "expected less than or equal to 1"),
        ("data.max_field_bytes=1", "data.max_field_bytes", "expected greater than or equal to 16"),
    ],
)
def test_these_are_refused(load, smallest, override, place, expectation):
    with pytest.raises(ConfigError, match=f"{smallest.name}: {place}: {expectation}"):
        load(override)


TIMELESS = ("data.time=", "data.split={by: user_share}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.split.by=user_time", r"data: split\.by: user_time needs data\.time"),
        ("data.split.by=leave_one_out", r"data: split\.by: leave_one_out needs data\.time"),
        ("data.time_unit=ms", r"data: time_unit says how to read data\.time"),
        ("data.ties=file", r"data: ties says how to read data\.time"),
        ("data.time_range=[2020-01-01, 2021-01-01]", r"data: time_range says how to read data\.time"),
        ("features.hour={kind: time, part: hour}", r"features: feature 'hour' is of kind time and needs data\.time"),
        (
            "features.recent={kind: sequence, feature: i}",
            r"features: feature 'recent' is a sequence and needs data\.time",
        ),
    ],
)
def test_logs_without_a_time_know_no_order(load, override, said):
    assert load(*TIMELESS).required_columns == ["u", "i", "label"]
    with pytest.raises(ConfigError, match=said):
        load(*TIMELESS, override)


def test_logs_of_positives_need_no_label_and_may_have_a_weight(load):
    config = load("data.label=", "data.weight=plays")
    assert config.data.positives_only
    assert config.required_columns == ["u", "i", "t", "plays", "label"]
    assert config.compared_columns == ["u", "i", "plays"], "a label that is always 1 has nothing to compare"
    kept = load("data.label.keep=positives", "data.weight=plays")
    assert kept.data.positives_only
    assert not load().data.positives_only
    with pytest.raises(ConfigError, match=r"'plays' is data\.weight, .* cannot be a feature"):
        load("data.label=", "data.weight=plays", "features.plays={kind: numeric, of: context}")
    with pytest.raises(ConfigError, match=r"features.s.events: negative, but these logs hold positives alone"):
        load("data.label=", "features.s={kind: sequence, feature: i, events: negative}")


def test_a_delimiter_goes_with_csv_only(load):
    assert load("data.delimiter=;").data.delimiter == ";"
    assert load("data.delimiter='\t'", "data.format=csv").data.delimiter == "\t"
    with pytest.raises(ConfigError, match="data: delimiter only goes with format: csv"):
        load("data.delimiter=;", "data.format=parquet")


def test_spans_take_a_window_and_hashing_takes_columns(load):
    assert load("data.source=logs-{SPAN}.csv", "data.window=7").data.window == 7
    assert load("data.split={by: hash, columns: [u, i]}").data.split.columns == ["u", "i"]


@pytest.mark.parametrize("first", ["2020-01-01", "2020-01-01T00:00:00Z", "'2020-01-01T02:00:00+02:00'"])
def test_times_without_a_zone_are_utc(load, first):
    data = load(f"data.time_range=[{first}, 2021-01-01]").data
    assert data.time_range == (datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))


@given(st.dates(date(1900, 1, 1), date(2900, 1, 1)), st.integers(1, 400), st.sampled_from(["%Y%m%d", "%Y-%m-%d"]))
def test_the_window_of_a_day_is_so_many_days_that_end_with_it(day, window, form):
    expected = {int((day - timedelta(days=n)).strftime("%Y%m%d")) for n in range(window)}
    assert spans_until(day.strftime(form), window) == expected
    assert span_before(day.strftime(form)) == (day - timedelta(days=1)).strftime(form)


@given(st.integers(1, 10**7 - 1), st.integers(1, 400))
def test_the_window_of_a_number_is_so_many_numbers_that_end_with_it(number, window):
    assert spans_until(str(number), window) == {n for n in range(number - window + 1, number + 1) if n >= 0}
    assert span_before(str(number)) == str(number - 1)


def test_eight_digits_that_are_no_day_are_a_number():
    assert spans_until("20260231", 2) == {20260231, 20260230}
    assert span_before("20260231") == "20260230"
    with pytest.raises(ValueError, match="no span comes before 0"):
        span_before("0")
