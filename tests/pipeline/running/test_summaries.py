"""What a run says in a line of a training."""

from pipeline.running.summaries import training

HISTORY = {
    "model": {"type": "fm"},
    "epochs": [{"epoch": 1}],
    "best_epoch": 1,
    "eval_auc": 0.71,
    "eval_logloss": 0.45,
    "parameters": 12_000,
}


def test_a_model_fitted_on_positives_alone_has_no_auc():
    fitted = {"events": 17_241, "users": 800, "items": 600}
    assert training(HISTORY | {"fitted_on": fitted, "eval_one_label": 1.0, "eval_ndcg_at_10": 0.187}) == (
        "fitted on 17,241 events of 800 users and 600 items; eval NDCG@10 0.1870, 12,000 parameters"
    )


def test_what_was_chosen_among_several_is_named():
    tried = [{"model": "lr", "eval_auc": 0.68}, {"model": "fm", "eval_auc": 0.71}]
    epochs = [{"epoch": 11}]
    assert training(HISTORY | {"tried": tried, "epochs": epochs, "best_epoch": 5}) == (
        "fm chosen of 2 tried by eval AUC (lr 0.6800, fm 0.7100); "
        "eval AUC 0.7100, LogLoss 0.4500, best of 11 epochs: 5, 12,000 parameters"
    )


def test_histories_of_earlier_runs_are_read():
    assert training(HISTORY) == "eval AUC 0.7100, LogLoss 0.4500, counted, 12,000 parameters"
