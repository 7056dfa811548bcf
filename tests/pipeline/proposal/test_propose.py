"""Logs as people have them: what is proposed for each, and that ingest takes it."""

import gzip
import importlib
import json

import numpy as np
import pandas as pd
import pytest

from components.refusal import RefusedError
from configs import ConfigError, load_config
from pipeline.proposal import Given, propose

START = 1_700_000_000


def events(rows=3000, users=150, items=80, seed=0) -> pd.DataFrame:
    """Who met what, when, and whether they liked it; people act in sittings."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, rows)
    item = (random.zipf(1.3, rows) - 1) % items
    sitting = random.integers(0, 3, rows)
    time = START + (user * 7919 + sitting * 104_729) % 2_500_000 + random.integers(0, 1800, rows)
    liked = random.random(rows) < 1 / (1 + np.exp(-(np.sin(user) + np.cos(item))))
    frame = pd.DataFrame({"user": user, "item": item, "time": time, "liked": liked})
    return frame.sort_values("time", kind="stable").reset_index(drop=True)


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return events()


@pytest.fixture
def proposed(tmp_path):
    """Write a frame, propose for it, and return the config, the proposal, and the reason for each column."""

    def proposed(frame: pd.DataFrame | bytes, name="logs.csv", given=Given(), **options):  # noqa: B008
        path = tmp_path / name
        if isinstance(frame, bytes):
            path.write_bytes(frame)
        elif name.endswith(".parquet"):
            frame.to_parquet(path)
        elif "jsonl" in name:
            frame.to_json(path, orient="records", lines=True, **options)
        else:
            frame.to_csv(path, index=False, **options)
        proposal = propose(str(path), None, given)
        target = tmp_path / "configs" / "logs.yaml"
        proposal.write(target, overwrite=True)
        why = {}
        for guess in proposal.guesses:
            why[guess.column] = f"{why.get(guess.column, '')} {guess.role}: {guess.why}".strip()
        return load_config(target), proposal, why

    return proposed


def day_first(times) -> pd.Series:
    return pd.to_datetime(times, unit="s").dt.strftime("%d/%m/%Y %H:%M")


def test_swedish_headers_day_first_times_decimal_commas_and_codes_of_cities(log, proposed):
    frame = pd.DataFrame(
        {
            "artikelnummer": 100 + log["item"],
            "användarnummer": 1000 + log["user"],
            "tidpunkt": day_first(log["time"]),
            "klickade": np.where(log["liked"], "ja", "nej"),
            "ålder": 18 + log["user"] % 50,
            "stad": (log["user"] * 37 % 23) * 101 + 114,
            "pris": (9.5 + log["item"] * 3).map(lambda x: f"{x:.2f}".replace(".", ",")),
        }
    )
    config, _, _ = proposed(frame, sep=";")
    data = config.data
    assert (data.user, data.item, data.time) == ("anvandarnummer", "artikelnummer", "tidpunkt")
    assert (data.time_format, data.decimal, data.delimiter) == ("%d/%m/%Y %H:%M", ",", ";")
    assert (data.label.column, data.label.positive) == ("klickade", "== ja")
    kinds = {
        name: (feature.kind, feature.of)
        for name, feature in config.features.items()
        if name in frame or name == "alder"
    }
    assert kinds == {
        "artikelnummer": ("vocabulary", "item"),
        "alder": ("bucketized", "user"),
        "stad": ("vocabulary", "user"),
        "pris": ("bucketized", "item"),
    }


def test_chinese_headers_in_a_file_of_excels(log, proposed):
    frame = pd.DataFrame(
        {
            "商品编号": log["item"],
            "用户编号": log["user"],
            "时间": log["time"] * 1000,
            "是否购买": log["liked"].astype(int),
            "商品类别": log["item"] % 7,
        }
    )
    config, _, _ = proposed(frame, encoding="utf-8-sig")
    assert config.data.rename == {
        "商品编号": "item", "用户编号": "user", "时间": "time", "是否购买": "label", "商品类别": "column_5"
    }  # fmt: skip
    assert (config.data.user, config.data.item, config.data.time_unit) == ("user", "item", "ms")
    assert config.features["column_5"].of == "item"


def test_spanish_headers_thousands_and_ratings(log, proposed):
    frame = pd.DataFrame(
        {
            "id_cliente": log["user"],
            "id_producto": log["item"],
            "fecha": pd.to_datetime(log["time"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"),
            "valoracion": 1 + log["liked"] * 2 + np.arange(len(log)) % 3,
            "precio": (1000 + log["item"] * 250).map(lambda x: f"{x:,}".replace(",", ".") + ",50"),
        }
    )
    config, _, _ = proposed(frame, "logs.tsv", sep="\t")
    data = config.data
    assert (data.user, data.item, data.time, data.time_unit) == ("id_cliente", "id_producto", "fecha", "iso8601")
    assert (data.label.column, data.decimal, data.thousands) == ("valoracion", ",", ".")
    assert data.label.positive.startswith(">= ")
    assert config.features["precio"].kind == "bucketized"


def test_commas_inside_numbers_part_no_values(log, proposed):
    frame = log.assign(
        price=(1000 + log["item"] * 250).map("{:,}".format),
        tags=log["item"].map(lambda i: ",".join("abcdef"[i % 5 : i % 7]) or "g"),
    )
    config, _, _ = proposed(frame)
    assert config.features["price"].kind == "bucketized"
    assert config.data.thousands == ","
    assert config.features["tags"].separator == ","


@pytest.mark.parametrize("weight", ["plays", "antal_spelningar", "播放次数"])
def test_counts_of_plays_without_label_and_time_are_positives(log, proposed, weight, monkeypatch):
    frame = pd.DataFrame({"user": log["user"], "artist": log["item"], weight: 1 + log["time"] % 90})
    config, proposal, why = proposed(frame.drop_duplicates(["user", "artist"]))
    assert config.data.label is None
    assert config.data.time is None
    assert config.data.weight is None
    assert "ease does not use it; ials does" in why.get(weight, why.get("weight"))
    assert weight not in config.features
    assert config.data.split.by == "user_share"
    assert "every row is a positive" in why["(none)"]
    assert not proposal.warnings
    monkeypatch.setattr(importlib.import_module("pipeline.proposal.propose"), "_MOST_ITEMS_SQUARED", 1)
    config, _, why = proposed(frame.drop_duplicates(["user", "artist"]))
    assert (config.model.type, config.data.weight in (weight, "weight")) == ("ials", True)


def test_a_constant_label_is_none(log, proposed):
    config, _, why = proposed(pd.DataFrame({"user": log["user"], "item": log["item"], "rating": 1, "ts": log["time"]}))
    assert config.data.label is None
    assert "every row is a positive" in why["(none)"]


def test_columns_that_give_the_label_away_are_left_out_with_their_auc(log, proposed):
    frame = log.drop(columns="liked")
    frame["plays"] = np.random.default_rng(1).geometric(0.02, len(log)) * (1 + log["user"] % 9)
    frame["loved"] = (frame["plays"] > frame.groupby("user")["plays"].transform("median")).astype(int)
    frame["flag"] = frame["loved"]
    frame["propensity_score"] = np.random.default_rng(2).random(len(log))
    config, _, why = proposed(frame, given=Given(label="loved"))
    assert config.features.keys() == {"user", "item", "hour", "weekday"}
    assert "gives the label away: AUC" in why["plays"]
    assert "1.000 within a user" in why["plays"]
    assert "AUC 1.000 by itself" in why["flag"]
    assert "left out" in why["propensity_score"]


def test_columns_of_the_logs_keep_their_names(log, proposed):
    frame = log.assign(weekday=log["time"] // 86400 % 7, hour=log["time"] // 3600 % 24)
    config, _, _ = proposed(frame)
    assert config.features["weekday"].kind != "time"
    assert config.features["hour"].kind != "time"


def test_a_file_of_one_user(log, proposed):
    frame = pd.DataFrame({"item_id": log["item"], "user_id": 7, "ts": log["time"], "click": log["liked"].astype(int)})
    config, _, _ = proposed(frame)
    assert (config.data.user, config.data.item) == ("user_id", "item_id")
    assert config.data.split.by == "user_time"


def test_equal_times_are_none(log, proposed):
    config, _, why = proposed(log.assign(time=START))
    assert config.data.time is None
    assert "all are equal" in why["time"]


def test_few_rows_are_said_before_any_training(log, proposed):
    _, proposal, _ = proposed(log.head(120))
    assert "leave about 24 for test, and the data gate asks for 100" in proposal.warnings[0]


def test_an_event_of_several_kinds_is_positive_where_it_says_most(log, proposed):
    kinds = np.where(log["liked"], np.where(log["item"] % 3, "addtocart", "transaction"), "view")
    config, _, _ = proposed(log.drop(columns="liked").assign(event=kinds, time=log["time"] * 1000))
    assert (config.data.label.column, config.data.label.positive) == ("event", "== transaction")
    assert config.data.time_unit == "ms"


def test_ids_that_look_like_huge_numbers(log, proposed):
    frame = log.assign(
        user=log["user"].map("787E7527758764FDFFB68D094C8{:05d}".format), size=log["item"].map("12E{}".format)
    )
    config, _, _ = proposed(frame, "apps.jsonl")
    assert config.data.user == "user"


def test_the_item_has_a_name_but_not_from_a_mostly_empty_column(log, proposed):
    titles = log["item"].map("The {}, part two".format)
    frame = log.assign(subtitle=titles.where(np.arange(len(log)) % 20 == 0), title=titles)
    config, _, _ = proposed(frame)
    assert config.data.display == "title"
    config, _, _ = proposed(frame.drop(columns="title"))
    assert config.data.display is None


def test_purchases_in_parquet_with_times_of_its_own(log, proposed):
    frame = pd.DataFrame(
        {
            "customer": log["user"], "sku": log["item"], "bought_at": pd.to_datetime(log["time"], unit="s"),
            "released": pd.to_datetime(log["item"] * 86400 * 30 + 10**9, unit="s"),
        }
    )  # fmt: skip
    config, _, _ = proposed(frame, "purchases.parquet")
    assert (config.data.time, config.data.label) == ("bought_at", None)


def test_zipped_json_lines_and_booleans(log, proposed):
    lines = "\n".join(json.dumps(row) for row in log.assign(liked=log["liked"].map(bool)).to_dict("records"))
    config, _, _ = proposed(gzip.compress(lines.encode()), "logs.jsonl.gz")
    assert (config.data.label.column, config.data.label.positive) == ("liked", "> 0")


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_trailing_delimiters_and_carriage_returns(log, proposed, ending):
    lines = ["user,item,time,liked,", *(f"{u},{i},{t},{int(y)}," for u, i, t, y in log.itertuples(index=False))]
    config, _, _ = proposed(ending.join(lines).encode())
    assert config.data.label.column == "liked"


def test_some_malformed_rows_are_let_pass_and_said(log, proposed):
    frame = log.assign(liked=log["liked"].astype(int).astype(object))
    frame.loc[frame.index % 20 == 0, "liked"] = ""
    config, proposal, _ = proposed(frame)
    assert config.data.max_malformed == pytest.approx(0.08)
    assert (
        "150 of 3,000 rows are malformed (5.0%), the first at line 2: column 'liked': is empty" in proposal.warnings[0]
    )


def test_numbers_of_rows_and_orders_are_neither_items_nor_features(log, proposed):
    frame = pd.DataFrame(
        {
            "InvoiceNo": 536_365 + np.arange(len(log)) // 2,
            "impression_id": np.arange(len(log)),
            "StockCode": log["item"].map("{}A".format),
            "CustomerID": log["user"].where(np.arange(len(log)) % 4 > 0),
            "InvoiceDate": pd.to_datetime(log["time"], unit="s").dt.strftime("%m/%d/%Y %H:%M"),
            "Quantity": np.arange(len(log)) % 7 - 1,
        }
    )
    config, proposal, _ = proposed(frame)
    assert (config.data.user, config.data.item) == ("CustomerID", "StockCode")
    assert config.data.time_format == "%m/%d/%Y %H:%M"
    assert config.data.weight is None, "a returned piece counts less than nothing"
    assert not {"InvoiceNo", "impression_id"} & config.features.keys()
    assert "rows are malformed (25.0%)" in proposal.warnings[0]


def test_what_the_caller_knows_counts(log, proposed):
    frame = log.rename(columns={"user": "a", "item": "b", "time": "c", "liked": "d"})
    frame["c"] = pd.to_datetime(frame["c"], unit="s").dt.strftime("%Y|%d|%m")
    frame["d"] = frame["d"].astype(int)
    given = Given(user="b", item="a", time="c", label="d", positive="== 0", time_format="%Y|%d|%m")
    config, _, _ = proposed(frame, given=given)
    data = config.data
    assert (data.user, data.item, data.time_format, data.label.positive) == ("b", "a", "%Y|%d|%m", "== 0")
    timeless, _, _ = proposed(frame, given=Given(user="a", item="b", timeless=True, positives_only=True))
    assert (timeless.data.time, timeless.data.label) == (None, None)


@pytest.mark.parametrize(
    ("content", "given", "said"),
    [
        ("196,242,3,881250949\n186,302,3,891717742\n", Given(), "that is data, not a header"),
        ("user,user\na,b\n", Given(), "names 'user' twice"),
        ("user,item\n", Given(), "no row can be read"),
        ('user,item\n"a\n', Given(), "a quote is left open"),
        ("user,item,when\na,b,soon\n", Given(time="when"), "--time when: 'soon' is no time .* --time-format"),
        ("user,item,when\na,b,1700000000\n", Given(label="likes"), "no column likes; it has user, item, when"),
        ("price\n1.5\n2.5\n", Given(), "--user COLUMN and --item COLUMN"),
    ],
)  # fmt: skip
def test_what_cannot_be_described_says_what_to_do(proposed, content, given, said):
    with pytest.raises((ConfigError, RefusedError), match=said):
        proposed(content.encode(), given=given)


def test_utf_16_is_named(log, proposed):
    with pytest.raises(RefusedError, match="UTF-16"):
        proposed(log, encoding="utf-16")
