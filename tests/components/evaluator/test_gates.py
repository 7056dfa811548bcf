import json
import math

import pytest

from components.evaluator.gates import OVERALL, judge, slice_name
from configs.gates import Gate

NAN = math.nan


def judged(gate: dict, candidate: dict, others=None, name="gender=F"):
    """Judge one gate on one slice (all examples, unless the gate names a slice)."""
    name = name if "each" in gate else OVERALL
    models = {"candidate": {name: {"example_count": 1000.0, "mean_label": 0.5} | candidate}}
    models |= {model: {name: metrics} for model, metrics in (others or {}).items()}
    return judge([Gate.model_validate(gate)], models, {name: ["gender"] if "each" in gate else []})


@pytest.mark.parametrize(
    ("gate", "candidate", "others", "passed", "margin"),
    [
        ({"metric": "auc", "at_least": 0.75}, {"auc": 0.75}, {}, True, 0.0),
        ({"metric": "auc", "at_least": 0.75}, {"auc": 0.74}, {}, False, -0.01),
        ({"metric": "logloss", "at_most": 0.6}, {"logloss": 0.5}, {}, True, 0.1),
        ({"metric": "logloss", "at_most": 0.6}, {"logloss": 0.7}, {}, False, -0.1),
        ({"metric": "auc", "at_most": 0.99}, {"auc": 1.0}, {}, False, -0.01),
        ({"metric": "calibration", "at_least": 0.9}, {"calibration": 1.0}, {}, True, 0.1),
        ({"metric": "auc", "beats": "lr"}, {"auc": 0.8}, {"lr": {"auc": 0.79}}, True, 0.01),
        ({"metric": "auc", "beats": "lr"}, {"auc": 0.8}, {"lr": {"auc": 0.8}}, False, 0.0),
        ({"metric": "auc", "beats": "lr", "by": 0.02}, {"auc": 0.81}, {"lr": {"auc": 0.79}}, True, 0.0),
        ({"metric": "auc", "beats": "lr", "by": 0.02}, {"auc": 0.8}, {"lr": {"auc": 0.79}}, False, -0.01),
        ({"metric": "logloss", "beats": "lr", "by": 0.1}, {"logloss": 0.4}, {"lr": {"logloss": 0.6}}, True, 0.1),
        ({"metric": "logloss", "beats": "lr"}, {"logloss": 0.7}, {"lr": {"logloss": 0.6}}, False, -0.1),
        ({"metric": "auc", "not_below": "blessed"}, {"auc": 0.8}, {"blessed": {"auc": 0.8}}, True, 0.0),
        ({"metric": "auc", "not_below": "blessed", "by": 0.01}, {"auc": 0.79}, {"blessed": {"auc": 0.8}}, True, 0.0),
        ({"metric": "auc", "not_below": "blessed", "by": 0.01}, {"auc": 0.78}, {"blessed": {"auc": 0.8}}, False, -0.01),
        (
            {"metric": "logloss", "not_below": "blessed", "by": 0.1},
            {"logloss": 0.75},
            {"blessed": {"logloss": 0.6}},
            False,
            -0.05,
        ),
        ({"metric": "example_count", "at_least": 500}, {}, {}, True, 500.0),
    ],
)
def test_every_condition(gate, candidate, others, passed, margin):
    (found,) = judged(gate, candidate, others)
    assert found.passed is passed
    assert found.margin == pytest.approx(margin, abs=1e-9)
    assert found.slice == OVERALL


def test_a_limit_is_what_the_value_had_to_reach():
    (up,) = judged({"metric": "auc", "beats": "lr", "by": 0.02}, {"auc": 0.8}, {"lr": {"auc": 0.79}})
    (down,) = judged({"metric": "logloss", "beats": "lr", "by": 0.1}, {"logloss": 0.8}, {"lr": {"logloss": 0.6}})
    assert up.limit == pytest.approx(0.81)
    assert down.limit == pytest.approx(0.5)


def test_without_a_blessed_model_its_gates_hold_and_say_so():
    (found,) = judged({"metric": "auc", "not_below": "blessed"}, {"auc": 0.1})
    assert found.passed
    assert found.why == "no blessed model yet"


def test_a_metric_that_cannot_be_computed_does_not_pass_and_says_why():
    gate = {"metric": "gauc", "at_least": 0.5, "each": ["gender"]}
    (found,) = judged(gate, {"gauc": NAN, "mean_label": 1.0, "example_count": 12.0})
    assert not found.passed
    assert found.why == (
        "gauc cannot be computed on gender=F: all 12 labels are positive; "
        "raise the gate's min_examples or drop the slice"
    )
    (negative,) = judged(gate, {"gauc": NAN, "mean_label": 0.0, "example_count": 12.0})
    assert "all 12 labels are negative" in negative.why
    (other,) = judged({"metric": "auc", "beats": "lr"}, {"auc": 0.8}, {"lr": {"auc": NAN}})
    assert not other.passed
    assert other.why == "auc of lr cannot be computed on all"
    (absent,) = judged({"metric": "prauc", "at_least": 0.1}, {})
    assert not absent.passed


def test_small_slices_are_not_judged():
    gate = {"metric": "auc", "at_least": 0.9, "each": ["gender"], "min_examples": 100}
    assert judged(gate, {"auc": 0.1, "example_count": 99.0}) == []
    assert [j.passed for j in judged(gate, {"auc": 0.1, "example_count": 100.0})] == [False]


def test_each_judges_the_slices_of_just_these_columns():
    columns = {
        OVERALL: [],
        "gender=F": ["gender"],
        "gender=M": ["gender"],
        "age=7": ["age"],
        "age=7, gender=F": ["age", "gender"],
    }
    models = {"candidate": {name: {"auc": 0.8, "example_count": 10.0} for name in columns}}

    def judged_slices(**gate):
        return [j.slice for j in judge([Gate(metric="auc", at_least=0.5, **gate)], models, columns)]

    assert judged_slices() == [OVERALL]
    assert judged_slices(each=["gender"]) == ["gender=F", "gender=M"]
    assert judged_slices(each=["gender", "age"]) == ["age=7, gender=F"]


def test_a_slice_the_other_model_has_not_is_no_pass():
    models = {"candidate": {"g=F": {"auc": 0.9, "example_count": 5.0}}, "lr": {}}
    (found,) = judge([Gate(metric="auc", beats="lr", each=["g"])], models, {"g=F": ["g"]})
    assert not found.passed


def test_a_gate_says_no_where_nothing_was_evaluated():
    (found,) = judge([Gate(metric="auc", at_least=0.5)], {"candidate": {}}, {})
    assert not found.passed
    assert "cannot be computed on all" in found.why


def test_a_judgement_is_plain_json():
    (found,) = judged({"metric": "auc", "at_least": 0.5}, {"auc": NAN})
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["value"] is None


def test_slices_are_called_by_their_columns_in_order():
    assert slice_name([], []) == OVERALL
    assert slice_name(["b", "a"], ["2", "1"]) == "a=1, b=2"
