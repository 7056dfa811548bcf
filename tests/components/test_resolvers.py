"""What a run may look back at."""

import pytest
from tfx.types import standard_artifacts

from components.artifacts import SPAN, VERDICT, DataBlessing
from components.resolvers import LatestAcceptedData, LatestBlessedModel


def made(kind, folder, id_, **properties):
    artifact = kind()
    artifact.id = id_
    artifact.uri = str(folder / f"{kind.TYPE_NAME}-{id_}")
    (folder / f"{kind.TYPE_NAME}-{id_}").mkdir()
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
