"""May it serve, and why: the gates' verdicts, with intervals, and where on the page to look."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from components.data_gate import FINDINGS_FILE
from components.evaluator.gates import OVERALL
from components.outcomes import NodeId, NodeState, RunState
from components.serving_check import RESULT_FILE
from components.verdict import VERDICT_FILE, Reason, Ruling, Verdict, read_json

_PLACES = {
    NodeId.DATA_GATE: ("#anomalies", "Data, findings"),
    NodeId.EVALUATOR: ("#gates", "Gates"),
    NodeId.SERVING_CHECK: ("#serving-check", "Serving check"),
}
_NODES = ("#nodes", "Nodes")


def data_gate(folder: str) -> dict[str, Any]:
    """Return the data gate's verdict, findings and distances."""
    return read_json(os.path.join(folder, FINDINGS_FILE))


def model_gate(folder: str) -> dict[str, Any]:
    """Return the evaluator's verdict."""
    return read_json(os.path.join(folder, VERDICT_FILE))


def serving_check(folder: str) -> dict[str, Any]:
    """Return what the serving check saw; `ok` where it has no problem."""
    seen = read_json(os.path.join(folder, RESULT_FILE))
    return {**seen, "ok": not seen["problems"]}


def as_shown(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judgement as the page takes it; those of earlier versions know neither intervals nor `judged`."""
    unknown = [None, None]
    return {
        **judgement,
        "judged": judgement.get("judged", True),
        "value_interval": judgement.get("value_interval") or unknown,
        "margin_interval": judgement.get("margin_interval") or unknown,
    }


def outcome(
    nodes: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], conditions: int, pushed: str | None
) -> dict[str, Any]:
    """Return the run's state, the node that stopped it, one sentence, and the reasons with links into the page.

    `verdicts` are those of the gates that judged, in the graph's order; `conditions` is how many the model met or not,
    and `pushed` the version, "" where a newer span is served and None where the run has not come so far.
    """
    if stopped := next((v for v in verdicts if v.ruling is Ruling.REFUSED), None):
        return {
            "state": RunState.REFUSED,
            "by": stopped.by,
            "sentence": stopped.sentence,
            "reasons": [_linked(reason, stopped.by) for reason in stopped.reasons],
            "notes": list(stopped.notes),
            "next": stopped.next,
        }
    failed_nodes = [n for n in nodes if n["state"] == NodeState.FAILED]
    if failed_nodes:
        node = failed_nodes[0]
        refused = bool(node.get("refused"))
        said = node.get("error") or "it left no message; the run's log holds what the libraries said"
        return {
            "state": RunState.REFUSED if refused else RunState.BROKE,
            "by": node["node"],
            "sentence": f"{node['node']} refused to go on. The version now served stays."
            if refused
            else f"The run broke in {node['node']}: that is an error, not a judgement on data or model.",
            "reasons": [_linked(Reason(text=said), node["node"])],
            "next": "Fix the cause and run again: finished steps are taken from cache.",
        }
    if pushed is None:
        waiting = [n["node"] for n in nodes if n["state"] not in (NodeState.DONE, NodeState.CACHED)]
        return {
            "state": RunState.UNFINISHED,
            "by": None,
            "sentence": "The run has not ended: no verdict yet.",
            "reasons": [_linked(Reason(text=f"Not run: {', '.join(waiting)}."), None)],
            "next": "Run it to its end; finished steps are taken from cache.",
        }
    where = f"it is version {pushed}" if pushed else "a newer span is served already, so it was not pushed"
    held = "its one condition holds" if conditions == 1 else f"all {conditions} conditions hold"
    return {
        "state": RunState.BLESSED,
        "by": None,
        "sentence": f"May serve: {held if conditions else 'no gate is set'}, the serving check passed, and {where}.",
        "reasons": [],
        "notes": [note for verdict in verdicts for note in verdict.notes],
        "next": "",
    }


def _linked(reason: Reason, by: str | None) -> dict[str, Any]:
    """Return a reason with where on the page its matter stands."""
    link, where = _PLACES.get(by, _NODES) if by else _NODES  # type: ignore[call-overload]
    found: dict[str, Any] = {"text": reason.text, "link": link, "where": where}
    if by == NodeId.EVALUATOR and reason.slice is not None:
        found["slice"] = reason.slice
        if reason.slice != OVERALL:
            found |= {"link": "#slices", "where": "Slices, first row"}
    if reason.feature is not None:
        found["feature"] = reason.feature
    return found
