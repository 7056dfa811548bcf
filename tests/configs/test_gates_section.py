import pytest

from configs import ConfigError


@pytest.mark.parametrize(
    ("gate", "against"),
    [
        ("{metric: auc, at_least: 0.7}", None),
        ("{metric: calibration, at_most: 1.1}", None),
        ("{metric: logloss, beats: item_mean, by: 0.01}", "item_mean"),
        ("{metric: gauc, not_below: blessed, by: 0.01, each: [u], min_examples: 50}", "blessed"),
        ("{metric: auc, at_least: 0.5, each: [i, cold_user]}", None),
        ("{metric: logloss, not_below: baselines, significant: true}", "baselines"),
    ],
)
def test_these_go(load, gate, against):
    config = load("evaluation.slices=[[u], [cold_user, i]]", f"evaluation.gates=[{gate}]")
    assert config.evaluation.gates[0].against == against


@pytest.mark.parametrize(
    ("gate", "place", "expectation"),
    [
        ("{metric: AUC, at_least: 0.5}", "evaluation.gates.0.metric", "expected 'auc', .*, got 'AUC'"),
        ("{at_least: 0.5}", "evaluation.gates.0.metric", "required key 'metric' is missing"),
        ("{metric: auc}", "evaluation.gates.0", "expected exactly one of .*; got none"),
        (
            "{metric: auc, at_least: 0.5, beats: lr}",
            "evaluation.gates.0",
            r"expected exactly one of .*\['at_least', 'beats'\]",
        ),
        ("{metric: auc, at_least: .nan}", "evaluation.gates.0.at_least", "expected a finite number"),
        (
            "{metric: auc, at_least: 0.5, by: 0.1}",
            "evaluation.gates.0",
            "by goes with beats and not_below, not with at_least",
        ),
        ("{metric: auc, beats: lr, by: -1}", "evaluation.gates.0.by", "expected greater than or equal to 0"),
        (
            "{metric: auc, beats: nope}",
            "evaluation.gates.0",
            "no baseline 'nope'; choose from item_mean, lr, fm, baselines, blessed",
        ),
        ("{metric: auc, at_least: 0.5, min_examples: 3}", "evaluation.gates.0", "min_examples goes with each"),
        (
            "{metric: auc, at_least: 0.5, each: [i]}",
            "evaluation.gates.0",
            r"each \['i'\] is not one of evaluation.slices",
        ),
        ("{metric: calibration, beats: lr}", "evaluation.gates.0", "more calibration is neither better nor worse"),
        ("{metric: example_count, not_below: blessed}", "evaluation.gates.0", "more example_count is neither"),
    ],
)
def test_these_gates_are_refused(load, smallest, gate, place, expectation):
    with pytest.raises(ConfigError, match=f"{smallest.name}: {place}: {expectation}"):
        load("evaluation.slices=[[u]]", f"evaluation.gates=[{gate}]")


def test_a_gate_on_a_baseline_that_was_taken_away_is_refused(load):
    with pytest.raises(ConfigError, match="no baseline 'lr'; choose from fm, baselines, blessed"):
        load("baselines={fm: {type: fm}}", "evaluation.gates=[{metric: auc, beats: lr}]")


@pytest.mark.parametrize(
    ("slices", "place", "expectation"),
    [
        ("[[nope]]", "evaluation.slices.0", "'nope' .*choose from u, i, cold_user"),
        ("[[u], [t]]", "evaluation.slices.1", "'t' "),
        ("[[]]", "evaluation.slices.0", "expected a length of at least 1"),
        ("[u]", "evaluation.slices.0", "expected a valid list, got 'u'"),
        ("[[u, i], [i, u]]", "evaluation.slices", "names a column twice, or is there twice"),
        ("[[u, u]]", "evaluation.slices", "names a column twice"),
    ],
)
def test_these_slices_are_refused(load, smallest, slices, place, expectation):
    with pytest.raises(ConfigError, match=f"{smallest.name}: {place}: .*{expectation}"):
        load(f"evaluation.slices={slices}")


@pytest.mark.parametrize("column", ["u", "i", "label"])
def test_limits_are_for_columns_there_are(load, column):
    assert load(f"validation.limits={{{column}: {{drift: 0.1}}}}").validation.limits[column].drift == 0.1


@pytest.mark.parametrize(
    ("override", "place", "expectation"),
    [
        (
            "validation.limits={nope: {drift: 0.1}}",
            "validation.limits",
            "'nope' is not compared; choose from u, i, label",
        ),
        ("validation.limits={t: {drift: 0.1}}", "validation.limits", "'t' is not compared"),
        ("validation.limits={y: {drift: 0.1}}", "validation.limits", "'y' is not compared"),
        ("validation.limits={u: {drift: 2}}", "validation.limits.u.drift", "expected less than or equal to 1"),
        ("validation.skew=-0.1", "validation.skew", "expected greater than or equal to 0"),
        ("validation.min_examples=0", "validation.min_examples", "expected greater than or equal to 1"),
    ],
)
def test_these_limits_are_refused(load, smallest, override, place, expectation):
    with pytest.raises(ConfigError, match=f"{smallest.name}: {place}: {expectation}"):
        load(override)


@pytest.mark.parametrize(
    ("gate", "expectation"),
    [
        ("{metric: 'ndcg@', at_least: 0.1}", "expected 'auc', .*got 'ndcg@'"),
        ("{metric: 'auc@10', at_least: 0.1}", "expected 'auc', .*got 'auc@10'"),
        ("{metric: 'ndcg@7', at_least: 0.1}", r"ndcg@7: 7 is none of evaluation.ranking.k: \[10, 100\]"),
        ("{metric: 'coverage@100', at_least: 0.1}", "computed for the shortest list, coverage@10"),
        ("{metric: 'novelty@10', beats: lr}", "more novelty@10 is neither better nor worse"),
        ("{metric: 'overlap@10', at_least: 0.9}", "there is no retrieval.model"),
        ("{metric: 'index_recall@10', at_least: 0.9}", "an exact index misses nothing"),
    ],
)
def test_gates_on_lists_that_cannot_be_judged_are_refused(load, gate, expectation):
    with pytest.raises(ConfigError, match=expectation):
        load(f"evaluation.gates=[{gate}]")


def test_lists_are_judged_where_something_asks_for_them(load):
    assert load().ranking is None
    assert load("evaluation.gates=[{metric: 'ndcg@10', beats: lr}]").ranking.k == [10, 100]
    assert load("evaluation.ranking={k: [20, 5]}").ranking.k == [5, 20]
    assert load("retrieval.model={type: two_tower}").ranking is not None
    alone = load("data.label=null", "evaluation={ranking: {k: [3, 20]}}")
    assert {gate.metric for gate in alone.judged_by.gates} == {"ndcg@3"}
    with pytest.raises(ConfigError, match=r"retrieval\.index: lists and probes go with type: inverted"):
        load("retrieval.index={lists: 3}")
    with pytest.raises(ConfigError, match=r"retrieval\.training\.epochs"):
        load("retrieval.training={epochs: 0}")
    with pytest.raises(ConfigError, match=r"retrieval\.candidates: 20 is below 100, the longest list"):
        load("retrieval={model: {type: two_tower}, candidates: 20}")
    assert load("retrieval={model: {type: two_tower}, candidates: 20}", "evaluation.ranking={k: [20]}").ranking.k == [
        20
    ]
