"""Which metrics a short table shows of a model."""

from __future__ import annotations

from collections.abc import Mapping

from components.evaluator.ranking.metrics import metric_title
from configs.gates import at_k

OF_LABELS = {"auc": "AUC", "gauc": "GAUC", "logloss": "LogLoss", "prauc": "PR AUC", "calibration": "calibration"}
_OF_LISTS = ("ndcg", "recall", "hit_rate", "mrr", "coverage")


def shown_metrics(metrics: Mapping[str, float | None]) -> dict[str, str]:
    """Return the metrics to show and their titles: where there is no AUC, those of lists of the best items.

    Lists are those of the smallest k. `metrics` are a model's on all examples, NaN or None for what there is not.
    """
    known = {m for m, value in metrics.items() if value is not None and value == value}
    if "auc" in known:
        return OF_LABELS
    first = min((found[1] for m in known if (found := at_k(m))), default=0)
    lists = [m for name in _OF_LISTS if (m := f"{name}@{first}") in known]
    return {m: metric_title(m) for m in lists} or OF_LABELS
