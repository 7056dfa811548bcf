"""What a run may look back at."""

import json
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.artifacts import COMPARED_WITH, SPAN, SPLIT, VERDICT, DataBlessing
from components.resolvers import LatestAcceptedData, LatestBlessedModel


def made(kind, folder, id_, **properties):
    artifact = kind()
    artifact.id = id_
    artifact.uri = str(folder / f"{kind.TYPE_NAME}-{id_}")
    (folder / f"{kind.TYPE_NAME}-{id_}").mkdir(parents=True)
    for name, value in properties.items():
        artifact.set_int_custom_property(name, value)
    return artifact


@pytest.mark.parametrize(("before", "expected"), [(None, 3), (20260103, 2), (20260102, 1), (20260101, None)])
def test_a_run_for_a_span_is_compared_with_an_earlier_span(tmp_path, before, expected):
    days = [made(DataBlessing, tmp_path, n, **{VERDICT: 1, SPAN: 20260100 + n}) for n in (1, 2, 3)]
    found = LatestAcceptedData(**({"before": before} if before else {})).resolve_artifacts(None, {"blessing": days})
    assert [a.id for a in found["blessing"]] == ([expected] if expected else [])


def test_a_model_is_compared_with_the_last_blessed_one_that_never_saw_its_day(tmp_path):
    models = [made(standard_artifacts.Model, tmp_path, n) for n in (1, 2, 3, 4)]
    blessings = [
        made(standard_artifacts.ModelBlessing, tmp_path, 10 + n, **{
            VERDICT: verdict, SPAN: 20260100 + n, "current_model_id": n
        })
        for n, verdict in ((1, 1), (2, 1), (3, 0), (4, 1))
    ]  # fmt: skip

    def latest(**config):
        found = LatestBlessedModel(**config).resolve_artifacts(None, {"model": models, "model_blessing": blessings})
        assert [b.get_int_custom_property("current_model_id") for b in found["model_blessing"]] == [
            m.id for m in found["model"]
        ]
        return [m.id for m in found["model"]]

    assert latest() == [4]
    assert latest(before=20260104) == [2], "3 was refused"
    assert latest(before=20260101) == []
    (tmp_path / "Model-2").rmdir()
    assert latest(before=20260104) == [1], "what is gone is not compared with"


def judged_in_a_row(tmp_path, aucs, splits=None):
    """Return models and blessings of runs in a row, each evaluated beside the one before on rows of its own."""
    models = [made(standard_artifacts.Model, tmp_path, n) for n in range(1, len(aucs) + 1)]
    blessings = []
    for n, (auc, before) in enumerate(aucs, 1):
        blessing = made(standard_artifacts.ModelBlessing, tmp_path, 10 + n, **{
            VERDICT: 1, "current_model_id": n, COMPARED_WITH: 9 + n
        })  # fmt: skip
        blessing.set_string_custom_property(SPLIT, (splits or ["a"] * len(aucs))[n - 1])
        metrics = {"candidate": {"auc": auc}} | ({"blessed": {"auc": before}} if before else {})
        Path(blessing.uri, "verdict.json").write_text(json.dumps({"metrics": metrics}))
        blessings.append(blessing)
    return {"model": models, "model_blessing": blessings}


def test_beside_the_last_blessed_model_comes_the_best_of_the_last_few(tmp_path):
    """The test rows get easier from day to day: by AUC alone the newest would look best."""
    runs = judged_in_a_row(tmp_path, [(0.70, None), (0.72, 0.73), (0.75, 0.76), (0.78, 0.79)])
    found = LatestBlessedModel(split="a").resolve_artifacts(None, runs)
    assert [m.id for m in found["model"]] == [4, 1]
    assert [b.get_int_custom_property("current_model_id") for b in found["model_blessing"]] == [4, 1]
    better = judged_in_a_row(tmp_path / "better", [(0.70, None), (0.75, 0.73)])
    assert [m.id for m in LatestBlessedModel(split="a").resolve_artifacts(None, better)["model"]] == [2]


def test_a_model_of_the_same_split_is_preferred(tmp_path):
    runs = judged_in_a_row(tmp_path, [(0.70, None), (0.71, 0.7)], ["a", "b"])
    assert [m.id for m in LatestBlessedModel(split="a").resolve_artifacts(None, runs)["model"]] == [1]
    assert [m.id for m in LatestBlessedModel(split="c").resolve_artifacts(None, runs)["model"]] == [2]
