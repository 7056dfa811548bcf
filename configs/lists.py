"""Whether and how lists of the best items are judged, by what several sections of the config say together."""

from __future__ import annotations

from configs.gates import LIST_METRICS, STAGE_METRICS, Evaluation, Ranking, at_k
from configs.retrieval import Retrieval


def ranking_of(evaluation: Evaluation, retrieval: Retrieval, positives_only: bool) -> Ranking | None:
    """Return how lists are judged; None where nothing asks for it."""
    asked = any(at_k(gate.metric) for gate in evaluation.gates)
    stages = retrieval.model is not None or retrieval.index.type != "exact"
    return evaluation.ranking or (Ranking() if asked or stages or positives_only else None)


def check_candidates(ranking: Ranking | None, retrieval: Retrieval) -> None:
    """Raise ValueError where a list that is judged is longer than what retrieval finds for a request."""
    if retrieval.model is not None and ranking is not None and max(ranking.k) > retrieval.candidates:
        raise ValueError(
            f"retrieval.candidates: {retrieval.candidates} is below {max(ranking.k)}, the longest list of "
            "evaluation.ranking.k: it would be judged by more candidates than shorter requests get"
        )


def check_gate(place: str, metric: str, ranking: Ranking | None, retrieval: Retrieval) -> None:
    """Raise ValueError, with `place`, where a gate asks for a metric of lists that is not computed."""
    if (found := at_k(metric)) is None:
        return
    (name, k), ks = found, (ranking or Ranking()).k
    if k not in ks:
        raise ValueError(f"{place}: {k} is none of evaluation.ranking.k: {ks}")
    if name in (*LIST_METRICS, *STAGE_METRICS) and k != min(ks):
        raise ValueError(f"{place}: {name} is computed for the shortest list, {name}@{min(ks)}")
    if name in ("overlap", "ndcg_loss") and retrieval.model is None:
        raise ValueError(f"{place}: compares two stages with one, and there is no retrieval.model")
    if name == "index_recall" and retrieval.index.type == "exact":
        raise ValueError(f"{place}: an exact index misses nothing; it goes with retrieval.index.type: inverted")
