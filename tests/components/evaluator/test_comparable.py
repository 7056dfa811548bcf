"""An earlier model is judged only on rows that it cannot have learnt from."""

import json

import pytest
from tfx.types import standard_artifacts

from components.evaluator.comparable import Split, comparable


def split(tmp_path, digest="a", by="time", **counts):
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    return Split.read(json.dumps({"digest": digest, "by": by}), str(tmp_path))


def blessed(of: Split | None):
    blessing = standard_artifacts.ModelBlessing()
    if of is not None:
        of.mark(blessing, None)
    return blessing


DAYS = {"train.max.time": 800, "test.min.time": 900}


@pytest.mark.parametrize(
    ("earlier", "by", "said"),
    [
        ({}, "time", ""),
        ({"digest": "b"}, "time", "learnt from rows that were split another way"),
        ({"train.max.time": 950}, "time", "learnt from rows up to 1970-01-01 00:15:50"),
        ({"train.max.time": 950}, "hash", ""),
        ({"train.max.time": None}, "time", ""),
        (None, "time", "does not say how its rows were split"),
    ],
)
def test_what_was_not_split_alike_is_not_comparable(tmp_path, earlier, by, said):
    before = None if earlier is None else split(tmp_path, **({"by": by} | DAYS | earlier))
    blessing, model, now = blessed(before), standard_artifacts.Model(), split(tmp_path, by=by, **DAYS)
    found, why = comparable(now, [model], [blessing])
    assert found == ([] if said else [model])
    assert said in why
    assert bool(said) == why.startswith("not comparable")


def test_without_an_earlier_model_there_is_nothing_to_say(tmp_path):
    assert comparable(split(tmp_path), [], []) == ([], "")
