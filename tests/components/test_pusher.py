import concurrent.futures
import os
from pathlib import Path

import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components import pusher
from components.versions import MANIFEST_FILE, manifest_of, versions
from configs.features import RawColumn

COLUMNS = {
    c.name: c
    for c in (
        RawColumn("user", "string", "user", None, ""),
        RawColumn("genres", "string", "item", "|", ""),
        RawColumn("age", "float", "user", None, float("nan")),
    )
}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"model")
    (folder / "variables" / "data").write_bytes(b"weights")
    return str(folder)


def test_a_version_appears_whole_in_one_rename(model, tmp_path, monkeypatch):
    seen = []
    rename = pusher.Path.rename

    def watched(self, target):
        seen.append((self.name, sorted(p.name for p in self.rglob("*") if p.is_file()), [*versions(self.parent)]))
        return rename(self, target)

    monkeypatch.setattr(pusher.Path, "rename", watched)
    path = pusher.push(model, str(tmp_path / "served"), {"run": "r"}, [])
    ((name, files, before),) = seen
    assert name.startswith(".partial-")
    assert files == ["data", MANIFEST_FILE, "saved_model.pb", pusher.WARMUP_FILE]
    assert before == []
    assert manifest_of(Path(path)) == {"run": "r", "version": int(path.rsplit("/", 1)[-1])}


def test_versions_only_grow_even_if_the_clock_goes_back(model, tmp_path, monkeypatch):
    served = str(tmp_path / "served")
    times = iter([1000.0, 1000.0, 500.0, 2000.0])
    monkeypatch.setattr(pusher.time, "time", lambda: next(times))
    for _ in range(4):
        pusher.push(model, served, {}, [])
    assert [*versions(served)] == [1000, 1001, 1002, 2000]


def test_a_push_that_fails_leaves_nothing_and_one_that_was_killed_is_cleared(model, tmp_path, monkeypatch):
    served = tmp_path / "served"
    (served / ".partial-killed" / "variables").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(pusher, "_sync", lambda path: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            pusher.push(model, str(served), {}, [])
    assert list(served.iterdir()) == []


def test_the_version_of_a_model_is_the_newest_that_holds_it(model, tmp_path):
    served = tmp_path / "served"
    first = pusher.push(model, str(served), {"artifacts": {"model": "a"}}, [])
    second = pusher.push(model, str(served), {"artifacts": {"model": "a"}}, [])
    pusher.push(model, str(served), {"artifacts": {"model": "b"}}, [])
    assert first != second
    assert pusher.version_of(served, "a") == second
    assert pusher.version_of(served, "c") is None
    assert pusher.version_of(tmp_path / "nowhere", "a") is None


@pytest.mark.parametrize("manifest", ["{", "{}", "[]", '{"artifacts": null}'])
def test_versions_with_a_foreign_manifest_are_passed_over(model, tmp_path, manifest):
    served = tmp_path / "served"
    path = pusher.push(model, str(served), {"artifacts": {"model": "a"}}, [])
    (served / "9999999999" / "assets.extra").mkdir(parents=True)
    (served / "9999999999" / "assets.extra" / MANIFEST_FILE).write_text(manifest)
    assert pusher.version_of(served, "a") == path


def test_warmup_requests_parse_and_name_signatures_and_columns(model, tmp_path):
    batch = pa.record_batch(
        {
            "user": pa.array([[b"u"], [b"v"]]),
            "genres": pa.array([[b"a", b"b"], None], pa.list_(pa.binary())),
            "age": pa.array([[30.0], []], pa.list_(pa.float32())),
        }
    )
    logs = pusher.warmup_requests("m", COLUMNS, batch, 2)
    path = pusher.push(model, str(tmp_path / "served"), {}, logs)
    records = tf.data.TFRecordDataset(f"{path}/assets.extra/{pusher.WARMUP_FILE}").as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(r).predict_log.request for r in records]
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "rank"] * 2
    assert all(set(r.inputs) == set(COLUMNS) and r.model_spec.name == "m" for r in requests)
    named, ranked, bare, _ = requests
    assert tf.make_ndarray(named.inputs["genres"]).tolist() == [b"a|b"]
    assert len(tf.make_ndarray(ranked.inputs["genres"])) == 100
    assert len(tf.make_ndarray(ranked.inputs["user"])) == 1
    assert tf.make_ndarray(bare.inputs["genres"]).tolist() == [b""]


def test_a_model_that_recommends_is_warmed_up_for_it():
    batch = pa.record_batch({"user": pa.array([[b"u"]])})
    requests = [log.predict_log.request for log in pusher.warmup_requests("m", COLUMNS, batch, 1, recommends=True)]
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "rank", "recommend"]
    of_users = {name for name, column in COLUMNS.items() if column.of != "item"}
    assert set(requests[2].inputs) == of_users | {"k", "exclude"}
    assert tf.make_ndarray(requests[2].inputs["k"]).tolist() == [10]


def test_an_older_span_does_not_go_over_a_newer_one(model, tmp_path):
    served = tmp_path / "served"
    assert pusher.newer_span(served, 20260102) is None, "nothing is served yet"
    pusher.push(model, str(served), {"span": 20260101}, [])
    newest = pusher.push(model, str(served), {"span": 20260103}, [])
    assert pusher.newer_span(served, 20260102) == (newest, 20260103)
    assert pusher.newer_span(served, 20260103) is None, "the same day again, with late rows, replaces it"
    assert pusher.newer_span(served, 0) is None, "logs without spans always go on"
    pusher.push(model, str(served), {"span": None}, [])
    assert pusher.newer_span(served, 20260102) is None, "the newest version says nothing of spans"


def _push_many(model: str, served: str, count: int) -> list[str]:
    return [pusher.push(model, served, {}, []) for _ in range(count)]


def test_two_pushers_to_one_folder_wait_for_each_other(model, tmp_path):
    served = tmp_path / "served"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pushed = [pool.submit(_push_many, model, str(served), 6) for _ in range(4)]
        paths = [path for each in pushed for path in each.result()]
    assert len(set(paths)) == 24 == len(versions(served))
    for path in paths:
        files = sorted(file.name for file in Path(path).rglob("*") if file.is_file())
        assert files == ["data", MANIFEST_FILE, "saved_model.pb", pusher.WARMUP_FILE]
    assert not list(served.glob(".partial-*"))


def test_what_another_machine_is_pushing_is_left_alone(model, tmp_path):
    served = tmp_path / "served"
    (served / ".partial-elsewhere.17.abc").mkdir(parents=True)
    (served / f".partial-{pusher._HOST}.17.abc").mkdir()
    old = served / ".partial-elsewhere.18.abc"
    old.mkdir()
    os.utime(old, (0, 0))
    pusher.push(model, str(served), {}, [])
    assert [each.name for each in served.glob(".partial-*")] == [".partial-elsewhere.17.abc"]
