"""Metrics of lists in TFMA's results: on all events and on slices, each model's own and its difference."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from components.evaluator import component, gates
from components.evaluator.ranking.judge import rank
from components.evaluator.ranking.metrics import ranking_metrics
from components.evaluator.ranking.ranked import RANKED_FILE, RankingMetrics
from components.report.slices import read_slices
from configs.gates import Gate, Ranking
from configs.retrieval import Retrieval
from tests.components.evaluator.ranking import logs

RUNNER = PipelineOptions(["--runner=FnApiRunner"])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfma")
    by_split = logs.rows()
    files = logs.write(folder, by_split)
    models = {gates.CANDIDATE: logs.save_model(folder / "a", "a"), "other": logs.save_model(folder / "b", "b")}
    ranked = rank(
        models, files["test"], [*files["train"], *files["eval"]], logs.COLUMNS, logs.catalogue(by_split),
        Ranking(k=[5]), Retrieval(),
    )  # fmt: skip
    output = folder / "output"
    output.mkdir()
    ranked.save(str(output / RANKED_FILE))
    metric = RankingMetrics(str(output / RANKED_FILE), "user", "item")
    with beam.Pipeline(options=RUNNER) as root:
        component.evaluate(root, files["test"], models, "user", [["gender"], ["item"]], str(output), metric)
    return by_split, ranked, str(output), list(models)


def counted(by_split, ranked, model, keep):
    """Count anew from the lists, of the positives that `keep` says."""
    items = logs.catalogue(by_split)
    at = {name: place for place, name in enumerate(items.ids)}
    names = {h: u for u, *_ in by_split["test"] for h in component_hash(u)}
    users = [names[h] for h in ranked.users]
    pairs = sorted({(users.index(u), at.get(i, -1), i) for u, i, _, label in by_split["test"] if label and keep(u, i)})
    chosen, numbers = np.unique([u for u, *_ in pairs], return_inverse=True)
    lists = ranked.lists[ranked.models.index(model)][chosen]
    return ranking_metrics(numbers, np.array([i for _, i, _ in pairs]), lists, [5], ranked.popularity)


def component_hash(user):
    from components.evaluator.ranking.held_out import hashed

    return hashed(np.array([user]))


def test_they_are_beside_the_metrics_of_examples_on_every_slice(evaluated):
    by_split, ranked, output, models = evaluated
    by_model, columns = component.read_metrics(output, models)
    for model in models:
        for name, keep in (
            ("all", lambda u, i: True),
            ("gender=F", lambda u, i: len(u) % 2 == 1),
            ("item=i0", lambda u, i: i == "i0"),
            ("item=never met", lambda u, i: i == "never met"),
        ):
            expected = counted(by_split, ranked, model, keep)
            found = by_model[model][name]
            assert {m: found[m] for m in expected} == pytest.approx(expected), (model, name)
            assert found["example_count"] > 0
    assert by_model["other"]["item=never met"]["recall@5"] == 0
    assert columns["gender=F"] == ["gender"]


def test_gates_and_the_report_read_them_with_intervals_over_users(evaluated):
    _, ranked, output, models = evaluated
    by_model, columns = component.read_metrics(output, models)
    evidence = gates.Evidence(by_model, columns, component.read_intervals(output, models), ["other"])
    own, other = (by_model[m]["all"]["ndcg@5"] for m in models)
    held, missed, against = gates.judge(
        [
            Gate(metric="ndcg@5", at_least=own - 0.01),
            Gate(metric="recall@5", at_least=0.99),
            Gate(metric="ndcg@5", beats="other"),
        ],
        evidence,
    )
    assert (held.passed, missed.passed, against.passed) == (True, False, own > other)
    low, high = held.value_interval
    values = ranked.values(0, np.arange(len(ranked.pair_users)))["ndcg@5"]
    assert (high - low) / 2 == pytest.approx(2.07 * values.std(ddof=1) / len(values) ** 0.5, rel=0.02)
    slices = read_slices(output, models)
    assert slices["all"]["metrics"]["candidate"]["ndcg@5"][0] == pytest.approx(own)
    assert slices["all"]["differences"]["other"]["ndcg@5"][0] == pytest.approx(own - other)
    assert slices["all"]["ranked_users"] == len(ranked.users)
