"""The whole of ingest over one small log: what goes in comes out, once, in the right split."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.types import standard_artifacts

from components.artifacts import Catalogue, IngestReport
from components.ingest import component, pipeline, reading
from components.ingest.files import find_files
from components.refusal import RefusedError
from configs import ConfigError, canonical_json
from configs.features import History, RawColumn
from tests.components.ingest.conftest import data

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RAW = {
    c.name: c
    for c in (
        RawColumn("user", "string", "user", None, ""),
        RawColumn("item", "string", "item", None, ""),
        RawColumn("age", "float", "user", None, float("nan")),
        RawColumn("genres", "string", "item", "|", ""),
        RawColumn("recent", "string", "user", None, "", 3),
    )
}
HISTORY = History("recent", "item", 3, "positive", 0)
START = 1_700_000_000
BAD = {7: "only,three,columns", 40: f"u1,i1,never,5,{START},x", 41: f",i1,{START},5,33,x"}


def log() -> list[str]:
    """60 users of 1 to 12 events; items rotate; user 0 has one row at the very end, so a time split makes it cold."""
    rows = []
    for user in range(60):
        for event in range(1 + user % 12):
            time = START + event * 1000 + user
            genres = "a|b" if user % 2 else ""
            rows.append(f"u{user},i{(user + event) % 20},{time},{1 + (user + event) % 5},{20 + event},{genres}")
    rows.append(f"late,i-new,{START + 10**6},5,,ü|b")
    return rows


def ingest(folder: Path, meaning, files) -> Path:
    outputs = pipeline.Outputs(
        split=_Folders({s: str(folder / f"Split-{s}") for s in ("train", "eval", "test")}),
        catalogue=str(folder / "catalogue"),
        dead_letters=str(folder / "dead.jsonl"),
        counts=str(folder / "counts.json"),
    )
    folder.mkdir()
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as root:
        pipeline.build(root, meaning, RAW, files, outputs, NOW, [HISTORY])
    return folder


class _Folders(dict):
    def __call__(self, split):
        return self[split]


def examples(folder: Path, split: str) -> list[dict]:
    found = []
    for path in sorted((folder / f"Split-{split}").glob("*.gz")):
        for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
            found.append({n: list(getattr(features[n], kind).value) if kind else [] for n, kind in kinds.items()})
    return found


@pytest.fixture(scope="module", params=["time", "user_time"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    lines = ["user,item,time,rating,age,genres", *log()]
    for at, line in sorted(BAD.items()):
        lines.insert(at - 1, line)
    (folder / "a.csv").write_text("\n".join(lines))
    (folder / "b.csv").write_text("user,item,time,rating,age,genres\nu1,i1,broken,5,33,x\n")
    meaning = data(split={"by": request.param, "eval": 0.2, "test": 0.2}, max_malformed=0.5)
    files = find_files(meaning, str(folder))
    original = reading.pieces
    patch = pytest.MonkeyPatch()
    # Pieces of some lines each, so that line numbers have to be put together.
    patch.setattr(reading, "pieces", lambda file: original(file, 500))
    try:
        outs = [ingest(folder / f"out{i}", meaning, files if i == 0 else files[::-1]) for i in range(2)]
    finally:
        patch.undo()
    return meaning, outs


def test_every_row_comes_out_once_or_is_a_dead_letter(run):
    _, (out, _) = run
    written = [e for split in ("train", "eval", "test") for e in examples(out, split)]
    expected = Counter((r[0], r[1], int(r[2])) for r in (line.split(",") for line in log()))
    assert Counter((e["user"][0].decode(), e["item"][0].decode(), e["time"][0]) for e in written) == expected
    counts = json.loads((out / "counts.json").read_text())
    assert sum(counts[f"{s}.rows"] for s in ("train", "eval", "test")) == len(log())
    assert counts["malformed"] == len(BAD) + 1
    for split in ("train", "eval", "test"):
        found = examples(out, split)
        assert counts[f"{split}.positive"] == sum(e["label"][0] for e in found)
        assert counts[f"{split}.min.time"] == min(e["time"][0] for e in found)
        assert counts[f"{split}.cold_user"] == sum(e["cold_user"] == [b"yes"] for e in found)


def test_cells_arrive_as_they_were(run):
    _, (out, _) = run
    (late,) = (e for s in ("train", "eval", "test") for e in examples(out, s) if e["user"] == [b"late"])
    assert late["genres"] == ["ü".encode(), b"b"]
    assert late.get("age", []) == [], "a missing number is no value"
    assert late["label"] == [1.0]


def test_a_second_run_writes_the_same_examples_in_the_same_shards_and_order_whatever_the_order_of_files(run):
    # Not the same bytes: the encoder puts the features of an Example in any order.
    _, (one, other) = run
    shards = sorted(p.relative_to(one) for p in one.rglob("*.gz"))
    assert shards
    assert shards == sorted(p.relative_to(other) for p in other.rglob("*.gz"))
    for split in ("train", "eval", "test"):
        assert examples(one, split) == examples(other, split)
    assert not list(one.rglob(".*")), "nothing unfinished is left"


def test_dead_letters_name_the_line_of_the_whole_file(run):
    _, (out, _) = run
    letters = [json.loads(line) for line in (out / "dead.jsonl").read_text().splitlines()]
    assert [(Path(x["file"]).name, x["line"]) for x in letters] == [
        *(("a.csv", line) for line in sorted(BAD)),
        ("b.csv", 2),
    ]
    assert letters[0]["reason"] == "3 columns, expected 6"
    assert "'item'" not in letters[1]["reason"]
    assert letters[2]["reason"] == "column 'user': is empty"


def test_derived_columns_count_the_training_split_alone(run):
    _, (out, _) = run
    train = Counter(e["user"][0] for e in examples(out, "train"))
    for split in ("train", "eval", "test"):
        for e in examples(out, split):
            seen = train[e["user"][0]]
            band = "0" if seen == 0 else "1-9" if seen < 10 else "10-49"
            assert e["user_activity"] == [band.encode()]
            assert e["cold_user"] == [b"no" if seen else b"yes"]
            assert {"cold_item", "item_popularity"} <= e.keys()


def test_the_catalogue_holds_each_id_once_with_its_newest_values(run):
    _, (out, _) = run
    users = {r["user"]: r for r in pq.read_table(out / "catalogue" / "users").to_pylist()}
    newest: dict[str, list[str]] = {}
    for row in (line.split(",") for line in log()):
        if row[0] not in newest or int(row[2]) > int(newest[row[0]][2]):
            newest[row[0]] = row
    assert users.keys() == newest.keys()
    assert pq.read_table(out / "catalogue" / "users").num_rows == len(users)
    for name, row in newest.items():
        assert users[name]["age"] == (float(row[4]) if row[4] else None)
    items = {r["item"]: r for r in pq.read_table(out / "catalogue" / "items").to_pylist()}
    assert items["i-new"]["genres"] == ["ü", "b"]


def test_histories_hold_earlier_likes_of_any_split_and_the_catalogue_those_up_to_now(run):
    _, (out, _) = run
    liked: dict[str, list[tuple[int, str]]] = {}
    for user, item, time, rating, *_ in (line.split(",") for line in log()):
        if int(rating) >= 4:
            liked.setdefault(user, []).append((int(time), item))
    for split in ("train", "eval", "test"):
        for e in examples(out, split):
            earlier = [item for time, item in sorted(liked.get(e["user"][0].decode(), [])) if time < e["time"][0]]
            assert [item.decode() for item in e.get("recent", [])] == earlier[-3:]
            assert not [name for name in e if name.startswith("__")]
    for row in pq.read_table(out / "catalogue" / "users").to_pylist():
        assert row["recent"] == [item for _, item in sorted(liked.get(row["user"], []))][-3:]


def test_of_two_rows_at_the_same_time_the_catalogue_takes_the_same_one_in_any_order():
    import pyarrow as pa

    rows = [{"user": "u", "age": float(a), "time": 1} for a in range(20)]
    kept = {
        pipeline._latest(pa.RecordBatch.from_pylist(order), "user", "time").column("age")[0].as_py()
        for order in (rows, rows[::-1], rows[7:] + rows[:7])
    }
    assert len(kept) == 1


def execute(folder: Path, content: str | bytes, name: str = "logs.csv", **changes):
    """Run the executor as TFX would and return the folder of its outputs."""
    folder.mkdir(exist_ok=True)
    source = folder / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    meaning = data(source=str(source), **changes)
    artifacts = {"examples": standard_artifacts.Examples(), "catalogue": Catalogue(), "report": IngestReport()}
    for key, artifact in artifacts.items():
        artifact.uri = str(folder / key)
        (folder / key).mkdir()
    executor = component.IngestExecutor(
        component.IngestExecutor.Context(beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(folder / "tmp"))
    )
    executor.Do(
        {},
        {key: [artifact] for key, artifact in artifacts.items()},
        {
            "data": canonical_json(meaning),
            "histories": json.dumps([vars(HISTORY)]),
            "columns": json.dumps([vars(c) for c in RAW.values()]),
            "files": json.dumps([vars(f) for f in find_files(meaning, str(source))]),
            "evidence": str(folder / "refused"),
            "schema": str(folder / "schema.pbtxt"),
        },
    )
    return folder


HEADER = "user,item,time,rating,age,genres\n"


def rows(n, rating=lambda i: 1 + i % 5, time=lambda i: START + i):
    return "".join(f"u{i % 7},i{i % 5},{time(i)},{rating(i)},30,a\n" for i in range(n))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"logs\.csv: the file is empty"),
        ("\n", "has no header"),
        (HEADER, r"logs\.csv: no rows"),
        (HEADER.replace(",", ";"), r"Only one column was found: is data\.delimiter right"),
        (HEADER.replace("rating", "score") + rows(50), r"no column 'rating'; the file has 'user'"),
        (HEADER + rows(100, rating=lambda i: 5), r"all \d+ training rows are positive: column 'rating' always meets"),
        (HEADER + rows(100, rating=lambda i: 1), r"all \d+ training rows are negative"),
        (HEADER + rows(2), r"split 'eval' got none of 2 rows"),
        (HEADER + rows(100, time=lambda i: 5), r"100 of 100 rows are malformed .* First: line 2 .*'5' is outside 1990"),
        (HEADER + rows(100, rating=lambda i: "good"), r"100 of 100 rows.*'good' is not a number"),
    ],
)
def test_logs_that_no_model_should_learn_from_are_refused(tmp_path, content, said):
    with pytest.raises(RefusedError, match=said):
        execute(tmp_path / "run", content)


def test_a_column_that_the_config_names_wrongly_is_its_fault(tmp_path):
    with pytest.raises(
        ConfigError, match=r"column 'rating' \(did you mean 'ratings'\?\), which no file of .*logs\.csv has"
    ):
        execute(tmp_path / "run", HEADER.replace("rating", "ratings") + rows(50))


@pytest.mark.parametrize(("known", "error"), [("rating", RefusedError), ("other", ConfigError)])
def test_the_curated_schema_says_whether_the_logs_ever_had_a_column(tmp_path, known, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "schema.pbtxt").write_text(f'feature {{ name: "{known}" type: BYTES }}')
    with pytest.raises(error, match="column 'rating'"):
        execute(tmp_path / "run", HEADER.replace("rating", "xyz") + rows(50))


def test_a_refusal_keeps_the_malformed_rows_where_it_says(tmp_path):
    with pytest.raises(RefusedError, match=r"Malformed rows with their reasons: .*refused/dead_letters\.jsonl"):
        execute(tmp_path / "run", HEADER + rows(50) + "broken\n" * 10)
    assert len((tmp_path / "run" / "refused" / "dead_letters.jsonl").read_text().splitlines()) == 10


def test_malformed_rows_within_the_limit_do_not_stop_a_run(tmp_path):
    out = execute(tmp_path / "run", HEADER + rows(200) + "broken\n", max_malformed=0.01)
    assert json.loads((out / "report" / "counts.json").read_text())["malformed"] == 1


def test_a_span_is_judged_by_a_model_that_never_saw_it(tmp_path):
    """Late rows belong to the span they came with, whatever their time."""
    lines, days = log(), ("20260101", "20260102", "20260103")
    rows_of = {day: lines[n::3] for n, day in enumerate(days)}
    for day, rows in rows_of.items():
        (tmp_path / f"{day}.csv").write_text("\n".join(["user,item,time,rating,age,genres", *rows, ""]))
    source = f"{tmp_path}/{{SPAN}}.csv"
    for span, train_days in (("20260103", days[:2]), ("20260102", days[:1])):
        meaning = data(source=source, span=span, window=3, split={"by": "span"})
        files = find_files(meaning, source)
        folder = ingest(tmp_path / f"read-{span}", meaning, files)
        assert len(examples(folder, "train")) == sum(len(rows_of[day]) for day in train_days)
        judged = [{e["user"][0] for e in examples(folder, split)} for split in ("eval", "test")]
        assert len(examples(folder, "eval")) + len(examples(folder, "test")) == len(rows_of[span])
        assert all(judged)
        assert not judged[0] & judged[1], "by hash of the user"
    assert component.spans_read(meaning, files) == "; spans 20260101 to 20260102, no logs of 20251231"
    (tmp_path / "20260102.csv").unlink()
    meaning = data(source=source, span="20260103", window=3, split={"by": "span"})
    assert component.spans_read(meaning, find_files(meaning, source)) == (
        "; spans 20260101 to 20260103, no logs of 20260102"
    )


def read_whole(folder: Path, content: str, **changes) -> tuple[dict[str, list[dict]], dict[str, int]]:
    out = execute(folder, content, **changes)
    splits = {split: examples(out / "examples", split) for split in ("train", "eval", "test")}
    return splits, json.loads((out / "report" / "counts.json").read_text())


def test_logs_without_label_and_time_are_positives_in_no_order(tmp_path):
    plays = [(f"u{n % 30}", f"i{(n * 7 + n // 30) % 40}", 1 + n % 9) for n in range(600)]
    content = "user,item,plays,age,genres\n" + "".join(f"{u},{i},{p},30,a|b\n" for u, i, p in plays)
    raw = {name: column for name, column in RAW.items() if name != "recent"}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "logs.csv").write_text(content + "u1,i1,0,30,a\nu1,i1,,30,a\n")
    meaning = data(time=None, label=None, weight="plays", split={"by": "user_share", "eval": 0.2, "test": 0.2})
    files = find_files(meaning, str(folder / "logs.csv"))
    folder = tmp_path / "out"
    folder.mkdir()
    outputs = pipeline.Outputs(
        split=_Folders({s: str(folder / f"Split-{s}") for s in ("train", "eval", "test")}),
        catalogue=str(folder / "catalogue"),
        dead_letters=str(folder / "dead.jsonl"),
        counts=str(folder / "counts.json"),
    )
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as root:
        pipeline.build(root, meaning, raw, files, outputs, NOW)
    found = [e for split in ("train", "eval", "test") for e in examples(folder, split)]
    expected = Counter((u.encode(), i.encode(), float(p)) for u, i, p in plays)
    assert Counter((e["user"][0], e["item"][0], e["plays"][0]) for e in found) == expected
    assert {tuple(e["label"]) for e in found} == {(1.0,)}
    assert not {name for e in found for name in e if "time" in name}
    counts = json.loads((folder / "counts.json").read_text())
    assert counts["malformed"] == 2
    assert not [name for name in counts if "time" in name]
    component.judge(meaning, files, counts | {"malformed": 0}, "")
    reasons = [json.loads(line)["reason"] for line in (folder / "dead.jsonl").read_text().splitlines()]
    assert reasons == ["column 'plays': '0' is not above 0, as a weight must be", "column 'plays': is empty"]
    assert {r["user"] for r in pq.read_table(folder / "catalogue" / "users").to_pylist()} == {u for u, *_ in plays}


def test_positives_alone_can_be_kept_and_left_out_by_each_users_last_tenth(tmp_path):
    """Ties in the order of the file, as a stable sort has them."""
    log = [(f"u{n * 13 % 17}", f"i{n}", START + n // 50, 1 + n * 7 % 5) for n in range(1200)]
    content = HEADER + "".join(f"{u},{i},{t},{r},30,a\n" for u, i, t, r in log)
    original = reading.pieces
    patch = pytest.MonkeyPatch()
    patch.setattr(reading, "pieces", lambda file: original(file, 3000))
    try:
        splits, counts = read_whole(
            tmp_path / "run",
            content,
            label={"column": "rating", "positive": ">= 4", "keep": "positives"},
            ties="file",
            split={"by": "user_time", "eval": 0.1, "test": 0.1, "at_least": 1},
        )
    finally:
        patch.undo()
    expected: dict[str, set[str]] = {"train": set(), "eval": set(), "test": set()}
    for user in {u for u, *_ in log}:
        own = [i for u, i, t, r in sorted(log, key=lambda row: row[2]) if u == user and r >= 4]
        held = max(1, len(own) // 10)
        expected["test"] |= set(own[-held:])
        expected["eval"] |= set(own[-2 * held : -held])
        expected["train"] |= set(own[: -2 * held])
    assert {split: {e["item"][0].decode() for e in found} for split, found in splits.items()} == expected
    assert counts["left_out"] == sum(r < 4 for *_, r in log)
    assert f"not positive, left out {counts['left_out']:,}" in component.summary(counts)


def test_a_condition_that_no_row_meets_leaves_nothing_and_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="none of 50 rows is positive and kept: column 'rating' never meets"):
        execute(
            tmp_path / "run",
            HEADER + rows(50, rating=lambda i: 1),
            label={"column": "rating", "positive": ">= 4", "keep": "positives"},
        )


@pytest.mark.parametrize("split", [{"by": "user_time", "eval": 0.2, "test": 0.2}, {"by": "span"}])
def test_equal_rows_on_both_sides_of_a_split_are_counted(tmp_path, split):
    """Of one second, so that only a hash, or the day's file, parts them."""
    lines = [f"u{user},i1,{START + user},5,30,a\n" for user in range(40)]
    source = f"{tmp_path}/{{SPAN}}.csv"
    for day in ("20260101", "20260102"):
        (tmp_path / f"{day}.csv").write_text(HEADER + "".join(lines) * 5)
    meaning = data(source=source, window=2, split=split)
    out = ingest(tmp_path / "out", meaning, find_files(meaning, source))
    counts = json.loads((out / "counts.json").read_text())
    judged = counts["eval.rows"] + counts["test.rows"]
    assert judged > 100
    assert counts["eval.in_train"] + counts["test.in_train"] == judged
    assert f"also in train, cell for cell: {judged} rows" in component.summary(counts)
