"""What a node found, and why a gate said no, in words."""

from __future__ import annotations

import json
import os
from glob import glob
from typing import Any

from pipeline.running.nodes import Outcome

_MAX_FINDINGS = 8


def what_it_found(outcome: Outcome) -> str:
    """Return one line on what a node made; empty where there is nothing to say."""
    for artifacts in outcome.outputs.values():
        for artifact in artifacts:
            if "summary" in artifact.custom_properties and not outcome.node.startswith("Last"):
                return artifact.custom_properties["summary"].string_value
    if "model_run" in outcome.outputs:
        return _training(outcome.uri("model_run"))
    if "transform_graph" in outcome.outputs:
        return _vocabularies(outcome.uri("transform_graph"))
    if outcome.node.startswith("Last"):
        found = any(outcome.outputs.values())
        return "one of an earlier run" if found else "none yet"
    return ""


def as_values(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON values: state, seconds, what it found, and artifacts by output."""
    return {
        "node": outcome.node,
        "state": outcome.state.value,
        "seconds": round(outcome.seconds, 3),
        "found": outcome.why or what_it_found(outcome),
        "outputs": {
            name: [{"id": a.id, "type": a.type, "uri": a.uri} for a in artifacts]
            for name, artifacts in outcome.outputs.items()
        },
    }


def why_refused(outcome: Outcome) -> str:
    """Return a gate's reasons, one a line, and where all of them are."""
    uri = outcome.uri("blessing")
    if outcome.node == "DataGate":
        findings = _read(f"{uri}/findings.json")["findings"]
        errors = [f for f in findings if f["severity"] == "error"]
        lines = [_finding(f) for f in errors]
        where, then = (
            f"{uri}/findings.json",
            (
                "Mend the logs; or, if the data has really changed, `recsys schema diff` shows how and "
                "`recsys schema accept` takes it (drift and skew limits are in `validation`)."
            ),
        )
    elif outcome.node == "ServingCheck":
        lines = _read(f"{uri}/serving_check.json")["problems"]
        where, then = f"{uri}/serving_check.json", "The version now served stays. Limits are in `serving.check`."
    else:
        judgements = _read(f"{uri}/verdict.json")["judgements"]
        lines = [f"{j['gate']}: {j['slice']}: {j['why']}" for j in judgements if not j["passed"]]
        where, then = (
            f"{uri}/verdict.json",
            "The version now served stays. Mend the model or the gate in `evaluation.gates`.",
        )
    shown = [f"  - {line}" for line in lines[:_MAX_FINDINGS]]
    if len(lines) > _MAX_FINDINGS:
        shown.append(f"  - and {len(lines) - _MAX_FINDINGS} more")
    return "\n".join([f"by {outcome.node}:", *shown, f"  All of it: {where}", f"  {then}"])


def verdict(outcome: Outcome) -> dict[str, Any]:
    """Return the evaluator's verdict: judgements, and metrics by model."""
    return _read(f"{outcome.uri('blessing')}/verdict.json")


def counts(outcome: Outcome) -> dict[str, int]:
    """Return ingest's counts."""
    return _read(f"{outcome.uri('report')}/counts.json")


def _finding(finding: dict[str, Any]) -> str:
    text = f"{finding['feature']} in {finding['split']}: {finding['what']}"
    if finding["limit"] == "schema":
        text += f" - {finding['value']}"
    else:
        text += f", {finding['measure']} {finding['value']} over {finding['limit']}"
    return text + (f" (for example {'; '.join(finding['examples'][:2])})" if finding["examples"] else "")


def _training(folder: str) -> str:
    history = _read(os.path.join(folder, "training.json"))
    epochs = len(history["epochs"])
    trained = f"best of {epochs} epochs: {history['best_epoch']}" if epochs > 1 else "counted"
    return (
        f"eval AUC {history['eval_auc']:.4f}, LogLoss {history['eval_logloss']:.4f}, {trained}, "
        f"{history['parameters']:,} parameters"
    )


def _vocabularies(folder: str) -> str:
    sizes = []
    for path in sorted(glob(f"{folder}/transform_fn/assets/*")):
        with open(path, "rb") as stream:
            sizes.append(f"{os.path.basename(path)} {sum(1 for _ in stream):,}")
    return "vocabularies: " + ", ".join(sizes) if sizes else ""


def _read(path: str) -> Any:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)
