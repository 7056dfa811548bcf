"""What a node found, and why a gate said no, in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import glob
from typing import Any

from components.outcomes import RESOLVERS, NodeState
from components.refusal import RefusedError
from components.verdict import VERDICT_FILE, read_json
from models.training.history import HISTORY_FILE, eval_figures
from pipeline.running.nodes import Outcome


def what_it_found(outcome: Outcome) -> str:
    """Return one line on what a node made; empty where there is nothing to say."""
    if outcome.node in RESOLVERS:
        return "one of an earlier run" if any(outcome.outputs.values()) else "none yet"
    for artifacts in outcome.outputs.values():
        for artifact in artifacts:
            if "summary" in artifact.custom_properties:
                return artifact.custom_properties["summary"].string_value
    if "model_run" in outcome.outputs:
        return training(read_json(os.path.join(outcome.uri("model_run"), HISTORY_FILE)))
    if "transform_graph" in outcome.outputs:
        return _vocabularies(outcome.uri("transform_graph"))
    return ""


def as_values(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON values: state, seconds, what it found, and artifacts by output."""
    return {
        "node": outcome.node,
        "state": outcome.state.value,
        "seconds": round(outcome.seconds, 3),
        "found": outcome.why or what_it_found(outcome),
        "verdict": verdict.model_dump(mode="json") if (verdict := outcome.verdict) is not None else None,
        "outputs": {
            name: [{"id": a.id, "type": a.type, "uri": a.uri} for a in artifacts]
            for name, artifacts in outcome.outputs.items()
        },
    }


def failed_values(node: str, error: Exception) -> dict[str, Any]:
    """Return what `as_values` does for a node that raised; ingest and others refuse so, without an artifact."""
    state = NodeState.REFUSED if isinstance(error, RefusedError) else NodeState.FAILED
    said = str(error) or type(error).__name__
    return {"node": node, "state": state, "seconds": None, "found": said, "verdict": None, "outputs": {}}


def why_refused(outcome: Outcome) -> str:
    """Return a gate's reasons, one a line, and where all of them are."""
    verdict = outcome.verdict
    assert verdict is not None
    return verdict.text(outcome.uri("blessing"))


def evaluation(outcome: Outcome) -> dict[str, Any]:
    """Return what the evaluator kept beside its verdict: judgements, and metrics by model."""
    return read_json(f"{outcome.uri('blessing')}/{VERDICT_FILE}")


def counts(outcome: Outcome) -> dict[str, int]:
    """Return ingest's counts."""
    return read_json(f"{outcome.uri('report')}/counts.json")


def training(history: Mapping[str, Any]) -> str:
    """Return in words what a training came to: what was chosen or fitted, its figures on eval, and its size."""
    parts = []
    if tried := history.get("tried"):
        each = ", ".join(f"{t['model']} {t['eval_auc']:.4f}" for t in tried)
        parts.append(f"{history['model']['type']} chosen of {len(tried)} tried by eval AUC ({each})")
    if fitted := history.get("fitted_on"):
        parts.append(
            f"fitted on {fitted['events']:,} events of {fitted['users']:,} users and {fitted['items']:,} items"
        )
    if weight := history.get("weight"):
        column, of = weight["column"], history["model"]["type"]
        parts.append(f"weighted by {column}" if weight["used"] else f"{of} does not use data.weight ({column})")
    epochs = history["epochs"][-1]["epoch"]
    trained = f"best of {epochs} epochs: {history['best_epoch']}" if epochs > 1 else "" if fitted else "counted"
    parts.append(", ".join(filter(None, [eval_figures(history), trained, f"{history['parameters']:,} parameters"])))
    return "; ".join(parts)


def _vocabularies(folder: str) -> str:
    sizes = []
    for path in sorted(glob(f"{folder}/transform_fn/assets/*")):
        with open(path, "rb") as stream:
            sizes.append(f"{os.path.basename(path)} {sum(1 for _ in stream):,}")
    return "vocabularies: " + ", ".join(sizes) if sizes else ""
