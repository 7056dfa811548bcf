"""What a short table shows of a model."""

from components.evaluator.shown import OF_LABELS, shown_metrics

NAN = float("nan")


def test_where_labels_differ_what_tells_them_apart_is_shown():
    assert shown_metrics({"auc": 0.7, "logloss": 0.4, "ndcg@10": 0.1}) == OF_LABELS
    assert shown_metrics({}) == OF_LABELS


def test_of_positives_alone_lists_of_the_best_items_are_shown():
    figures = {"auc": NAN, "logloss": 0.6, "coverage@10": 0.5, "ndcg@100": 0.3, "ndcg@10": 0.1, "mrr@10": 0.2}
    titles = {"ndcg@10": "NDCG@10", "mrr@10": "MRR@10", "coverage@10": "Coverage@10"}
    assert shown_metrics(figures) == titles
    assert shown_metrics(figures | {"auc": None}) == titles
