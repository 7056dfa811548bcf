"""One record for all that judge: written, read, told; and what gates wrote before they had it."""

import json

import pytest

from components.artifacts import SPAN, VERDICT, DataBlessing, publish
from components.verdict import Direction, Reason, Ruling, Verdict, read_verdict

REASON = Reason(text="auc on all: 0.6 misses 0.7", metric="auc", slice="all", value=0.6, limit=0.7,
                direction=Direction.AT_LEAST)  # fmt: skip


def verdict(**more):
    return Verdict(by="Evaluator", ruling=Ruling.REFUSED, summary="refused", reasons=(REASON,), next="Fix it.", **more)


def test_a_verdict_is_read_as_it_was_written_and_marks_its_artifact(tmp_path):
    artifact = DataBlessing()
    artifact.uri = str(tmp_path)
    publish(verdict(), artifact, 20260101, {"metrics": {"candidate": {}}})
    assert read_verdict(str(tmp_path)) == verdict()
    assert (artifact.get_int_custom_property(VERDICT), artifact.get_int_custom_property(SPAN)) == (0, 20260101)
    assert json.loads((tmp_path / "verdict.json").read_text())["metrics"] == {"candidate": {}}


def test_a_value_that_is_none_is_no_nan_in_json():
    assert Reason(text="", value=float("nan")).value is None


def test_the_text_has_the_first_reasons_where_all_are_and_what_to_do():
    many = Verdict(by="DataGate", ruling=Ruling.REFUSED, summary="", reasons=(REASON,) * 10, next="Fix it.",
                   details="findings.json")  # fmt: skip
    lines = many.text("/there").splitlines()
    assert lines[0] == "by DataGate:"
    assert lines[1] == f"  - {REASON.text}"
    assert lines[-3:] == ["  - and 2 more", "  All of it: /there/findings.json", "  Fix it."]


FINDING = {"severity": "error", "split": "train", "feature": "age", "measure": "L-infinity", "value": "0.412",
           "limit": "0.300", "what": "drift", "examples": []}  # fmt: skip
JUDGEMENT = {"gate": "auc at least 0.7", "slice": "all", "metric": "auc", "value": 0.6, "limit": 0.7, "against": None,
             "margin": -0.1, "examples": 9, "passed": False, "why": "0.6000 misses 0.7"}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "by", "said"),
    [
        ("findings.json", {"blessed": False, "findings": [FINDING]}, "DataGate", "age in train: drift; 0.412"),
        ("verdict.json", {"blessed": False, "judgements": [JUDGEMENT]}, "Evaluator", "auc at least 0.7: all"),
        ("serving_check.json", {"problems": ["too slow"]}, "ServingCheck", "too slow"),
    ],
)
def test_what_gates_wrote_before_they_had_a_record_is_read(tmp_path, file, content, by, said):
    (tmp_path / file).write_text(json.dumps(content))
    found = read_verdict(str(tmp_path))
    assert (found.by, found.ruling) == (by, Ruling.REFUSED)
    assert found.reasons[0].text.startswith(said)
