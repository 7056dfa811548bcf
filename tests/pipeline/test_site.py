"""Which metrics the site draws over the runs."""

from pipeline.running.history import Run, shown
from pipeline.site import trends


def runs(*metrics):
    return [Run(str(n), "blessed", None, n, n, None, of, None) for n, of in enumerate(metrics)]


def test_over_runs_with_labels_auc_is_drawn():
    known = runs({"auc": 0.7, "gauc": 0.6, "logloss": 0.4, "calibration": 1.0, "ndcg@10": 0.1}, {"auc": 0.6})
    assert list(shown(known).values()) == ["AUC", "GAUC", "LogLoss"]
    assert [t["title"] for t in trends(known)] == ["AUC"], "the others have one point"
    assert [t["title"] for t in trends(known[:1] * 2)] == ["AUC", "LogLoss", "calibration"]


def test_over_runs_of_positives_alone_lists_of_the_best_items_are():
    of = {"auc": None, "logloss": 0.6, "calibration": 0.5, "ndcg@10": 0.2, "recall@10": 0.3}
    known = runs({}, of, of | {"ndcg@10": 0.1})
    assert list(shown(known).values()) == ["NDCG@10", "Recall@10"]
    assert [(t["title"], t["low"], t["high"]) for t in trends(known)] == [
        ("NDCG@10", 0.1, 0.2),
        ("Recall@10", 0.3, 0.3),
    ]
