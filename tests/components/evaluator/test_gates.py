import json
import math

import pytest

from components.evaluator.gates import BEST, OVERALL, Evidence, judge, slice_name
from configs.gates import Evaluation, Gate

NAN = math.nan


def judged(gate: dict, candidate: dict, others=None, name="gender=F", **more):
    """Judge one gate on one slice (all examples, unless the gate names a slice)."""
    name = name if "each" in gate else OVERALL
    models = {"candidate": {name: {"example_count": 1000.0, "mean_label": 0.5} | candidate}}
    models |= {model: {name: metrics} for model, metrics in (others or {}).items()}
    columns = {name: ["gender"] if "each" in gate else []}
    return judge([Gate.model_validate(gate)], Evidence(models, columns, **more))


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
    assert found.why == "not judged: no blessed model yet"
    assert not found.judged


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


def test_a_gate_whose_slices_are_all_too_small_says_that_it_judged_nothing():
    gate = {"metric": "auc", "at_least": 0.9, "each": ["gender"], "min_examples": 100}
    (found,) = judged(gate, {"auc": 0.1, "example_count": 99.0})
    assert (found.passed, found.judged, found.slice) == (True, False, "gender")
    assert found.why == "not judged: no slice of gender has 100 examples, the largest has 99"
    assert [j.passed for j in judged(gate, {"auc": 0.1, "example_count": 100.0})] == [False]
    (none,) = judge([Gate.model_validate(gate)], Evidence({"candidate": {OVERALL: {}}}, {OVERALL: []}))
    assert none.why == "not judged: there is no slice of gender: no test row has a value"


def test_a_gate_against_baselines_is_one_against_each():
    others = {"lr": {"auc": 0.79}, "fm": {"auc": 0.81}}
    gate = {"metric": "auc", "beats": "baselines"}
    found = judged(gate, {"auc": 0.8}, others, baselines=["lr", "fm"])
    assert [(j.against, j.passed) for j in found] == [("lr", True), ("fm", False)]
    (none,) = judged(gate, {"auc": 0.8})
    assert (none.passed, none.why) == (True, "not judged: the config has no baselines")


def test_a_gate_against_the_blessed_model_holds_to_the_best_of_the_last_too():
    """Each run a little worse than the last: none is refused for it, all together are."""
    others = {"blessed": {"auc": 0.79}, BEST: {"auc": 0.80}}
    found = judged({"metric": "auc", "not_below": "blessed", "by": 0.01}, {"auc": 0.785}, others)
    assert [(j.against, j.passed) for j in found] == [("blessed", True), (BEST, False)]


def test_what_is_not_comparable_is_not_judged_and_says_why():
    (found,) = judged({"metric": "auc", "not_below": "blessed"}, {"auc": 0.1}, not_comparable="not comparable: split")
    assert (found.passed, found.judged, found.why) == (True, False, "not judged: not comparable: split")


@pytest.mark.parametrize(
    ("gate", "interval", "passed", "margin"),
    [
        ({"metric": "auc", "not_below": "lr", "by": 0.01}, (-0.05, -0.005), True, (-0.04, 0.005)),
        ({"metric": "auc", "not_below": "lr", "by": 0.01}, (-0.05, -0.015), False, (-0.04, -0.005)),
        ({"metric": "logloss", "not_below": "lr"}, (0.01, 0.03), False, (-0.03, -0.01)),
        ({"metric": "logloss", "not_below": "lr"}, (-0.01, 0.03), True, (-0.03, 0.01)),
        ({"metric": "auc", "at_least": 0.8}, (0.75, 0.81), True, (-0.05, 0.01)),
        ({"metric": "calibration", "at_most": 1.1}, (1.12, 1.3), False, (-0.2, -0.02)),
        ({"metric": "auc", "not_below": "lr"}, None, False, None),
    ],
)
def test_a_significant_gate_fails_only_beyond_the_noise(gate, interval, passed, margin):
    candidate = {"auc": 0.77, "logloss": 0.52, "calibration": 1.2}
    lr = {"auc": 0.8, "logloss": 0.5}
    bounds = {("lr" if "not_below" in gate else "candidate"): {OVERALL: {gate["metric"]: interval}}} if interval else {}
    (found,) = judged(gate | {"significant": True}, candidate, {"lr": lr}, intervals=bounds)
    assert found.passed is passed
    assert found.margin_interval == (pytest.approx(margin) if margin else None)
    (always,) = judged(gate, candidate, {"lr": lr}, intervals=bounds)
    assert not always.passed


def test_by_default_calibration_and_logloss_are_gates_beside_auc():
    gates = Evaluation().gates
    assert {g.metric for g in gates} == {"auc", "logloss", "calibration"}
    model = {"auc": 0.7, "logloss": 0.6, "calibration": 1.0}
    item_mean = {"auc": 0.65, "logloss": 0.61}

    def refused(**changed):
        models = {"candidate": {OVERALL: model | changed}, "item_mean": {OVERALL: item_mean}}
        return {
            j.metric for j in judge(gates, Evidence(models, {OVERALL: []}, baselines=["item_mean"])) if not j.passed
        }

    assert refused() == set()
    assert refused(logloss=0.62) == {"logloss"}, "no better than the item's mean, though its AUC is"
    assert refused(calibration=1.15) == {"calibration"}
    assert refused(auc=0.6) == {"auc"}


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
        return [j.slice for j in judge([Gate(metric="auc", at_least=0.5, **gate)], Evidence(models, columns))]

    assert judged_slices() == [OVERALL]
    assert judged_slices(each=["gender"]) == ["gender=F", "gender=M"]
    assert judged_slices(each=["gender", "age"]) == ["age=7, gender=F"]


def test_a_slice_the_other_model_has_not_is_no_pass():
    models = {"candidate": {"g=F": {"auc": 0.9, "example_count": 5.0}}, "lr": {}}
    (found,) = judge([Gate(metric="auc", beats="lr", each=["g"])], Evidence(models, {"g=F": ["g"]}))
    assert not found.passed


def test_a_gate_says_no_where_nothing_was_evaluated():
    (found,) = judge([Gate(metric="auc", at_least=0.5)], Evidence({"candidate": {}}, {}))
    assert not found.passed
    assert "cannot be computed on all" in found.why


def test_a_judgement_is_plain_json():
    (found,) = judged({"metric": "auc", "at_least": 0.5}, {"auc": NAN})
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["value"] is None


def test_slices_are_called_by_their_columns_in_order():
    assert slice_name([], []) == OVERALL
    assert slice_name(["b", "a"], ["2", "1"]) == "a=1, b=2"
