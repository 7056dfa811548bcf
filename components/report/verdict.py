"""May it serve, and why: the gates' own words, with intervals, and where on the page to look."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from components.data_gate import FINDINGS_FILE
from components.evaluator.component import VERDICT_FILE
from components.evaluator.gates import CANDIDATE
from components.serving_check import RESULT_FILE
from configs.gates import BLESSED, LOWER_IS_BETTER

BLESSED_RUN, REFUSED_RUN, BROKEN_RUN, UNFINISHED_RUN = "blessed", "refused", "broke", "unfinished"


def data_gate(folder: str) -> dict[str, Any]:
    """Return the data gate's verdict, findings and distances."""
    return _read(os.path.join(folder, FINDINGS_FILE))


def model_gate(folder: str) -> dict[str, Any]:
    """Return the evaluator's verdict."""
    return _read(os.path.join(folder, VERDICT_FILE))


def serving_check(folder: str) -> dict[str, Any]:
    """Return what the serving check saw; `ok` where it has no problem."""
    seen = _read(os.path.join(folder, RESULT_FILE))
    return {**seen, "ok": not seen["problems"]}


def with_intervals(
    judgements: Sequence[Mapping[str, Any]], slices: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the judgements, each with its value's and its margin's interval from TFMA's results."""
    found = []
    for judgement in judgements:
        metrics = slices.get(judgement["slice"], {})
        own = metrics.get("metrics", {}).get(CANDIDATE, {}).get(judgement["metric"], [None, None, None])
        compared = own
        if judgement["against"] is not None:
            against = metrics.get("differences", {}).get(judgement["against"], {})
            compared = against.get(judgement["metric"], [None, None, None])
        found.append({**judgement, "value_interval": own[1:], "margin_interval": _margins(judgement, compared)})
    return found


def _margins(judgement: Mapping[str, Any], compared: Sequence[float | None]) -> list[float | None]:
    """Shift what was compared so that its value becomes the margin: bounds turn round where less is better."""
    value, low, high = compared
    if value is None or low is None or high is None or judgement["margin"] is None:
        return [None, None]
    if judgement["against"] is not None:
        down = judgement["metric"] in LOWER_IS_BETTER
    else:
        down = " at most " in judgement["gate"]
    bounds = (value - high, value - low) if down else (low - value, high - value)
    return [judgement["margin"] + bound for bound in bounds]


def outcome(
    nodes: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any] | None,
    model: Mapping[str, Any] | None,
    serving: Mapping[str, Any] | None,
    pushed: str | None,
) -> dict[str, Any]:
    """Return the run's state, the node that stopped it, one sentence, and the reasons with links into the page."""
    if data is not None and not data["blessed"]:
        errors = [f for f in data["findings"] if f["severity"] == "error"]
        return {
            "state": REFUSED_RUN,
            "by": "DataGate",
            "sentence": f"The data gate refused the data: {_count(len(errors), 'finding')}. Nothing was trained; the "
            "version now served stays.",
            "reasons": [_of_finding(f) for f in errors],
            "next": "Mend the logs. If the data has really changed, `recsys schema diff` shows how and `recsys schema "
            "accept` takes it; limits of drift and skew are in `validation`.",
        }
    if model is not None and not model["blessed"]:
        failed = [j for j in model["judgements"] if not j["passed"]]
        failed.sort(key=lambda j: -math.inf if j["margin"] is None else j["margin"])
        return {
            "state": REFUSED_RUN,
            "by": "Evaluator",
            "sentence": f"The model gate refused the model: {len(failed)} of "
            f"{_count(len(model['judgements']), 'condition')} fail. It was not pushed; the version now served stays.",
            "reasons": [_of_judgement(j) for j in failed],
            "next": "Mend the model or the data behind the slice; if the limit is wrong, mend `evaluation.gates`.",
        }
    if serving is not None and not serving["ok"]:
        return {
            "state": REFUSED_RUN,
            "by": "ServingCheck",
            "sentence": "The model passed its gates and failed in a real server. It was not pushed; the version now "
            "served stays.",
            "reasons": [
                {"text": problem, "link": "#serving-check", "where": "Serving check"} for problem in serving["problems"]
            ],
            "next": "Limits of latency, memory and tolerance are in `serving.check`.",
        }
    failed_nodes = [n for n in nodes if n["state"] == "failed"]
    if failed_nodes:
        node = failed_nodes[0]
        refused = bool(node.get("refused"))
        return {
            "state": REFUSED_RUN if refused else BROKEN_RUN,
            "by": node["node"],
            "sentence": f"{node['node']} refused to go on. The version now served stays."
            if refused
            else f"The run broke in {node['node']}: that is an error, not a judgement on data or model.",
            "reasons": [
                {
                    "text": node.get("error") or "it left no message; the run's log holds what the libraries said",
                    "link": "#nodes",
                    "where": "Nodes",
                }
            ],
            "next": "Mend the cause and run again: finished steps are taken from cache.",
        }
    if pushed is None:
        waiting = [n["node"] for n in nodes if n["state"] not in ("done", "cached")]
        return {
            "state": UNFINISHED_RUN,
            "by": None,
            "sentence": "The run has not ended: no verdict yet.",
            "reasons": [{"text": f"Not run: {', '.join(waiting)}.", "link": "#nodes", "where": "Nodes"}],
            "next": "Run it to its end; finished steps are taken from cache.",
        }
    judged = len(model["judgements"]) if model else 0
    where = f"it is version {pushed}" if pushed else "a newer span is served already, so it was not pushed"
    held = f"all {judged} conditions hold" if judged > 1 else "its one condition holds" if judged else "no gate is set"
    return {
        "state": BLESSED_RUN,
        "by": None,
        "sentence": f"May serve: {held}, the serving check passed, and {where}.",
        "reasons": [],
        "next": "",
    }


def closest(judgements: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the judgement that held most narrowly, in units of its own limit."""
    held = [j for j in judgements if j["passed"] and j["margin"] is not None]
    return min(held, key=lambda j: j["margin"], default=None)


def _of_judgement(judgement: Mapping[str, Any]) -> dict[str, str]:
    where = "all examples" if judgement["slice"] == "all" else judgement["slice"]
    against = " (the model last blessed)" if judgement["against"] == BLESSED else ""
    return {
        "text": f"{judgement['metric']} on {where} ({judgement['examples']:,} examples): {judgement['why']}{against}. "
        f"Wanted: {judgement['gate']}.",
        "link": "#slices" if judgement["slice"] != "all" else "#gates",
        "where": "Slices, first row" if judgement["slice"] != "all" else "Gates",
        "slice": judgement["slice"],
    }


def _of_finding(finding: Mapping[str, Any]) -> dict[str, str]:
    over = (
        finding["value"]
        if finding["limit"] == "schema"
        else f"{finding['measure']} {finding['value']}, allowed {finding['limit']}"
    )
    shown = f" For example {finding['examples'][0]}." if finding["examples"] else ""
    return {
        "text": f"{finding['feature']} in {finding['split']}: {finding['what']}; {over}.{shown}",
        "link": "#anomalies",
        "where": "Data, findings",
        "feature": finding["feature"],
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)
