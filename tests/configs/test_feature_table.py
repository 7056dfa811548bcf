import json
import math
import re

import pytest
from ruamel.yaml import YAML

from configs import ConfigError
from configs.features import DERIVED_COLUMNS, MISSING_TIME, History, RawColumn, histories


def test_raw_columns_follow_from_the_features_in_their_order(load):
    config = load(
        "features.age={kind: numeric, of: user}",
        "features.age_band={kind: bucketized, of: user, buckets: 4, from: age}",
        "features.tags={kind: hashed, of: item, separator: '|', buckets: 9}",
        "features.hour={kind: time, part: hour}",
        "features.account_age={kind: time, part: age, of: user, since: joined}",
        "features.pair={kind: crossed, cross: [age_band, hour], buckets: 9}",
    )
    columns = config.raw_columns
    assert list(columns) == ["u", "i", "age", "tags", "t", "joined"]
    assert {name: (c.name, c.type, c.of) for name, c in columns.items()} == {
        "u": ("u", "string", "user"),
        "i": ("i", "string", "item"),
        "age": ("age", "float", "user"),
        "tags": ("tags", "string", "item"),
        "t": ("t", "int64", "context"),
        "joined": ("joined", "int64", "user"),
    }
    assert columns["u"].default == ""
    assert math.isnan(columns["age"].default)
    assert columns["t"].default == columns["joined"].default == MISSING_TIME
    assert config.slice_columns == ["u", "i", "tags", *DERIVED_COLUMNS]


@pytest.mark.parametrize(
    "override",
    [
        "features.u2={kind: hashed, of: user, from: u, buckets: 100}",
        "features.u={kind: hashed, of: user, buckets: 100}",
        "features.part={kind: vocabulary, of: user, column: other, default: none, top: 5, dim: 3}",
        "features.sum={kind: vocabulary, of: context, separator: ' ', pool: sum, min_count: 2}",
        "features.n={kind: numeric, of: item, scale: log, default: -1.5e300}",
        "features.x={kind: crossed, cross: [u, i], buckets: 2}",
        "features.weekday={kind: time, part: weekday, dim: 2}",
        "features.recent={kind: sequence, feature: i, length: 5, events: negative, delay: 60}",
    ],
)
def test_these_go(load, override):
    name = override.partition("=")[0].split(".")[1]
    assert name in load(override).features


@pytest.mark.parametrize(
    ("override", "place", "expectation"),
    [
        ("features.a={kind: numeric, of: usr}", "features.a.of", "expected 'user', 'item' or 'context', got 'usr'"),
        ("features.u.separator=''", "features.u.separator", "expected a length of at least 1"),
        ("features.u.dim=0", "features.u.dim", "expected greater than or equal to 1"),
        ("features.u.oov=0", "features.u.oov", "expected greater than or equal to 1"),
        ("features.u.default=3", "features.u.default", "expected a valid string, got 3"),
        ("features.a={kind: numeric, of: user, default: .inf}", "features.a.default", "expected a finite number"),
        (
            "features.a={kind: bucketized, of: user, buckets: 1}",
            "features.a.buckets",
            "expected greater than or equal to 2",
        ),
        ("features.a={kind: time, part: age}", "features.a", "since goes with part: age"),
        ("features.a={kind: time, part: hour, since: b}", "features.a", "since goes with part: age"),
        ("features.a={kind: time, part: year}", "features.a.part", "expected 'hour', 'weekday' or 'age'"),
        ("features.x={kind: crossed, cross: [u, no], buckets: 9}", "features.x.cross", "no feature 'no'"),
        ("features.x={kind: crossed, cross: [u, x], buckets: 9}", "features.x.cross", "'x' must be single-valued"),
        (
            "features.x={kind: crossed, cross: [u, u], buckets: 9}",
            "features.x.cross",
            "expected two different features",
        ),
        ("features.x={kind: crossed, cross: [u], buckets: 9}", "features.x.cross.1", "a value is missing"),
        ("features.r={kind: sequence, feature: no}", "features.r.feature", "no feature 'no'"),
        ("features.r={kind: sequence, feature: u}", "features.r.feature", "'u' must be .* of the item or the context"),
        (
            "features.y={kind: sequence, feature: i}",
            "features.y",
            "a sequence is a new column, and the logs have a column 'y'",
        ),
        (
            "features.t={kind: sequence, feature: i}",
            "features.t",
            "a sequence is a new column, and the logs have a column 't'; rename it",
        ),
        (
            "features.u={kind: sequence, feature: i}",
            "features.u",
            "a sequence is a new column, and the logs have a column 'u'",
        ),
        ("features.cold_user={kind: vocabulary, of: user}", "features", "column 'cold_user' is one that ingest adds"),
        (
            "features.cold_user={kind: vocabulary, of: user, from: c}",
            "features",
            "column 'cold_user' is one that ingest",
        ),
        ("data.label.column=cold_item", "data.label.column", "'cold_item' is a column that ingest adds"),
        ("data.user=label", "data.user", "'label' is a column that ingest adds"),
        ("features.a={kind: numeric, of: item, from: label}", "features", "column 'label' is one that ingest adds"),
        ("features.label={kind: numeric, of: item, from: b}", "features", "column 'label' is one that ingest adds"),
        ("data.display=user_activity", "data.display", "'user_activity' is a column that ingest adds"),
        ("features.a={kind: numeric, of: item, from: y}", "features", "the label column 'y' cannot be a feature"),
        (
            "features.a={kind: numeric, of: context, from: t}",
            "features.a",
            "'t' is the time of the event; use kind: time",
        ),
        (
            "features.u={kind: numeric, of: user}",
            "features.u",
            "'u' is the user's id: expected kind vocabulary or hashed",
        ),
        (
            "features.u={kind: vocabulary, of: user, separator: x}",
            "features.u",
            "'u' is the user's id: .* no separator",
        ),
        ("features.u={kind: vocabulary, of: item}", "features.u", "'u' is the user's id: .* of: user"),
        ("features.a={kind: bucketized, of: item, from: i, buckets: 3}", "features.a", "'i' is the item's id"),
    ],
)
def test_these_are_refused(load, smallest, override, place, expectation):
    with pytest.raises(ConfigError, match=f"{smallest.name}: {place}: {expectation}"):
        load(override)


def test_a_sequence_is_a_list_column_that_neither_slices_nor_drifts(load):
    config = load(
        "features.brand={kind: vocabulary, of: item, from: maker}",
        "features.recent={kind: sequence, feature: brand, length: 5, delay: 60}",
    )
    assert config.raw_columns["recent"] == RawColumn("recent", "string", "user", None, "", 5)
    assert histories(config.features) == [History("recent", "maker", 5, "all", 60)]
    assert "recent" not in config.slice_columns + config.compared_columns


@pytest.mark.parametrize("kind", ["numeric", "vocabulary"])
def test_a_cross_takes_no_numbers_and_no_lists(load, kind):
    with pytest.raises(
        ConfigError, match=r"features\.x\.cross: 'a' must be single-valued and neither crossed nor numeric"
    ):
        load(
            f"features.a={{kind: {kind}, of: user{', separator: x' if kind == 'vocabulary' else ''}}}",
            "features.x={kind: crossed, cross: [u, a], buckets: 9}",
        )


@pytest.mark.parametrize(
    "second", ["{kind: numeric, of: item, from: c}", "{kind: hashed, of: user, from: c, buckets: 9}",
               "{kind: hashed, of: item, from: c, buckets: 9, separator: x}"]
)  # fmt: skip
def test_two_features_must_read_a_column_alike(load, second):
    with pytest.raises(ConfigError, match=r"features: feature 'b' reads column 'c' as .*another feature reads it as"):
        load("features.a={kind: vocabulary, of: item, from: c}", f"features.b={second}")


def test_the_label_may_be_called_label(load):
    assert load("data.label.column=label").data.label.column == "label"
    with pytest.raises(ConfigError, match="features: the label column 'label' cannot be a feature"):
        load("data.label.column=label", "features.a={kind: numeric, of: item, from: label}")


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("{last: {kind: vocabulary, of: user, share: nothing}}", "features.last.share: 'nothing' is no other"),
        ("{last: {kind: vocabulary, of: user, share: i, dim: 3}}", "features.last.dim: 'i', whose table it shares"),
        ("{a: {kind: hashed, of: user, buckets: 9}, b: {kind: hashed, of: user, share: a, buckets: 8}}",
         "features.b.buckets: expected 9"),
        ("{last: {kind: vocabulary, of: user, share: i}, next: {kind: vocabulary, of: user, share: last}}", "name 'i'"),
        ("{alone: {kind: vocabulary, of: context, cold: content}}", "needs another feature of context"),
        ("{last: {kind: vocabulary, of: user, share: i, cold: mean}}", "cold: mean belongs to 'i'"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(load, features, said):
    tables = YAML(typ="safe").load(features)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(*(f"features.{name}={json.dumps(table)}" for name, table in tables.items()))
