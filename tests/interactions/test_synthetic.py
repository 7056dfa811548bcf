import csv
import gzip
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from configs import load_config
from interactions.files import FORMATS
from interactions.synthetic import START, config_text, generate
from pipeline.commands.data import app

ROWS = 300_000  # more than two chunks


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("synthetic") / "logs.parquet", ROWS, seed=3, probability=True)


@pytest.fixture(scope="session")
def logs(made) -> pa.Table:
    return pa.parquet.read_table(made.files[0])


def auc_of(p: np.ndarray, clicked: np.ndarray) -> float:
    """AUC by ranks with ties shared (Mann-Whitney), the long way."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(clicked.sum())
    return (rank[clicked == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(p) - positives))


@pytest.mark.parametrize("part", ["all", "newest"])
def test_the_ceilings_are_what_the_probabilities_in_the_file_score(made, logs, part):
    first = 0 if part == "all" else ROWS * 9 // 10
    p, clicked = logs["click_probability"].to_numpy()[first:], logs["clicked"].to_numpy()[first:]
    ceiling = getattr(made, part)
    assert ceiling.rows == len(p)
    assert ceiling.click_rate == pytest.approx(clicked.mean())
    assert ceiling.logloss == pytest.approx(-np.mean(np.log(np.where(clicked == 1, p, 1 - p))), rel=1e-9)
    assert 0 < ceiling.auc_error < 1e-4
    assert abs(ceiling.auc - auc_of(p, clicked)) <= ceiling.auc_error


def test_labels_are_draws_from_the_probabilities(logs):
    p, clicked = logs["click_probability"].to_numpy(), logs["clicked"].to_numpy()
    deviations = (clicked.sum() - p.sum()) / math.sqrt((p * (1 - p)).sum())
    assert abs(deviations) < 4
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        within = (p >= low) & (p < high)
        assert within.sum() > 1000
        assert clicked[within].mean() == pytest.approx(p[within].mean(), abs=0.02)


def test_a_probability_follows_from_the_columns_alone(tmp_path):
    path = tmp_path / "logs.parquet"
    generate(path, 20_000, users=3, items=2, days=1 / 24 / 60, probability=True)  # few keys, so that rows repeat
    seen: dict[tuple, float] = {}
    repeated = 0
    for row in pa.parquet.read_table(path).to_pylist():
        key = (row["user_id"], row["item_id"], row["timestamp"], row["device"])
        repeated += key in seen
        assert seen.setdefault(key, row["click_probability"]) == row["click_probability"]
    assert repeated > 100


def test_the_click_rate_asked_for_comes_out(tmp_path):
    made = generate(tmp_path / "logs.csv", 100_000, click_rate=0.03)
    assert made.all.click_rate == pytest.approx(0.03, abs=0.01)


def test_items_follow_zipf(logs):
    counts = np.sort(np.unique(logs["item_id"].to_numpy(zero_copy_only=False), return_counts=True)[1])[::-1]
    ranks = np.arange(2, 200)
    slope = np.polyfit(np.log(ranks), np.log(counts[ranks - 1]), 1)[0]
    assert slope == pytest.approx(-1.05, abs=0.25)
    assert counts[0] > 50 * np.median(counts)


def test_users_come_in_sessions(logs):
    frame = logs.select(["user_id", "timestamp"]).to_pandas().sort_values(["user_id", "timestamp"], kind="stable")
    gap = frame.groupby("user_id")["timestamp"].diff().dropna()
    assert 0.7 < (gap < 600).mean() < 0.95
    assert (gap > 6 * 3600).mean() > 0.05


def test_users_and_items_appear_late(logs):
    before, after = logs.slice(0, ROWS * 8 // 10), logs.slice(ROWS * 8 // 10)
    for column in ("user_id", "item_id"):
        unseen = set(after[column].to_pylist()) - set(before[column].to_pylist())
        share = np.isin(after[column].to_numpy(zero_copy_only=False), list(unseen)).mean()
        assert 0.01 < share < 0.3


def test_the_mix_of_devices_drifts_and_hours_have_a_rhythm(logs):
    phone = logs["device"].to_pandas() == "phone"
    assert phone[-ROWS // 10 :].mean() - phone[: ROWS // 10].mean() > 0.15
    hour = logs["timestamp"].to_numpy() // 3600 % 24
    assert (hour == 20).mean() > 5 * (hour == 3).mean()


def test_timestamps_run_through_the_days_in_order(logs):
    seconds = logs["timestamp"].to_numpy() - int(START.timestamp())
    assert seconds.min() >= 0
    assert 27.9 * 86400 < seconds.max() < 28.1 * 86400
    assert (np.diff(seconds) < 0).sum() <= ROWS // (1 << 17)  # only where one chunk meets the next


def test_values_are_missing_have_leading_zeros_and_are_not_ascii(logs):
    for column, low, high in (
        ("country", 0.01, 0.15),
        ("age", 0.05, 0.2),
        ("device", 0.01, 0.03),
        ("price", 0.01, 0.4),
    ):
        assert low < logs[column].null_count / ROWS < high
    for column in ("user_id", "item_id", "timestamp", "clicked", "categories", "title"):
        assert logs[column].null_count == 0
    assert all(len(user) == 6 for user in set(logs["user_id"].to_pylist()))
    for column in ("item_id", "country", "device", "categories", "title"):
        assert any(value and not value.isascii() for value in set(logs[column].to_pylist()))
    assert any(value.count("|") == 2 for value in logs["categories"].slice(0, 1000).to_pylist())


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_holds_the_same_rows(tmp_path, extension):
    path = tmp_path / f"logs{extension}"
    generate(tmp_path / "expected.parquet", 5000, seed=7)
    expected = pa.parquet.read_table(tmp_path / "expected.parquet").to_pylist()
    generate(path, 5000, seed=7)
    if extension == ".parquet":
        assert pa.parquet.read_table(path).to_pylist() == expected
        return
    opened = gzip.open if extension.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        if "jsonl" in extension:
            assert [json.loads(line) for line in file] == expected
        else:
            rows = list(csv.DictReader(file, delimiter="\t" if "tsv" in extension else ","))
            text = [{k: "" if v is None else str(v) for k, v in row.items() if k != "price"} for row in expected]
            assert [{k: v for k, v in row.items() if k != "price"} for row in rows] == text
            assert [float(r["price"]) if r["price"] else None for r in rows] == [r["price"] for r in expected]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        generate(tmp_path / name / "logs.csv.gz", 3000, seed)
        written.append((tmp_path / name / "logs.csv.gz").read_bytes())
    assert written[0] == written[1] != written[2]


def test_several_files_hold_together_what_one_holds(tmp_path):
    generate(tmp_path / "one.csv", ROWS, seed=5)
    made = generate(tmp_path / "many.csv", ROWS, seed=5, files=4)
    assert [p.name for p in made.files] == [f"many-0000{n}-of-00004.csv" for n in range(4)]
    header, *rows = (tmp_path / "one.csv").read_text(encoding="utf-8").splitlines()
    parts = [p.read_text(encoding="utf-8").splitlines() for p in made.files]
    assert {p[0] for p in parts} == {header}
    assert [line for part in parts for line in part[1:]] == rows
    assert {len(p) - 1 for p in parts} == {ROWS // 4}


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "logs.parquet", ROWS, advance=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "logs.xlsx"}, "ends in one of .csv"),
        ({"path": "logs.parquet.gz"}, "ends in one of .csv"),
        ({"path": ".csv"}, "ends in one of .csv"),
        ({"rows": 0}, "rows: expected at least 1"),
        ({"files": 11}, "files: expected from 1 to the number of rows"),
        ({"users": 1}, "users and items"),
        ({"days": 0}, "days"),
        ({"click_rate": 1.0}, "click_rate"),
        ({"late": 0.95}, "late"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    path = tmp_path / "new" / arguments.pop("path", "logs.csv")
    with pytest.raises(ValueError, match=message):
        generate(path, **{"rows": 10} | arguments)
    assert not path.parent.exists()


def test_one_row_has_a_logloss_and_no_auc(tmp_path):
    made = generate(tmp_path / "logs.csv", 1)
    assert made.all.rows == made.newest.rows == 1
    assert made.all.logloss > 0
    assert math.isnan(made.all.auc)


@pytest.mark.parametrize("files", [1, 3])
def test_the_config_beside_it_loads_and_names_the_files(tmp_path, files):
    path = tmp_path / "Ünïcode logs.tsv"
    made = generate(path, 500, files=files)
    (tmp_path / "synthetic.yaml").write_text(config_text(path, files), encoding="utf-8")
    config = load_config(tmp_path / "synthetic.yaml")
    found = sorted(tmp_path.glob(config.source.removeprefix(f"{tmp_path}/")))
    assert found == sorted(made.files)
    header = made.files[0].read_text(encoding="utf-8").splitlines()[0].split("\t")
    assert set(config.raw_columns) | {config.data.label.column, config.data.display} <= set(header)


def test_the_command_writes_logs_and_config_and_says_the_ceilings(tmp_path):
    arguments = ["synthetic", "--rows", "2000", "--out", str(tmp_path / "logs.csv"), "--config"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    ceiling = generate(tmp_path / "again.csv", 2000).all
    assert f"LogLoss {ceiling.logloss:.5f}, AUC {ceiling.auc:.5f}" in result.output
    assert load_config(tmp_path / "synthetic.yaml").name == "synthetic"
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_the_command_keeps_a_config_that_was_edited(tmp_path):
    (tmp_path / "synthetic.yaml").write_text("mine")
    result = CliRunner().invoke(app, ["synthetic", "--rows", "10", "--out", str(tmp_path / "logs.csv"), "--config"])
    assert result.exit_code == 2
    assert "synthetic.yaml: is there already and differs" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["synthetic.yaml"]


def test_the_command_tells_a_call_that_is_wrong_from_a_disk_that_is(tmp_path):
    assert CliRunner().invoke(app, ["synthetic", "--out", str(tmp_path / "logs.doc")]).exit_code == 2
    (tmp_path / "taken").write_text("a file")
    result = CliRunner().invoke(app, ["synthetic", "--rows", "10", "--out", str(tmp_path / "taken" / "logs.csv")])
    assert result.exit_code == 1
    assert "taken" in result.output
