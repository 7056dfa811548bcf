"""The graph as a file: what an orchestrator needs to know of a config, without TFX or the config's types."""

from __future__ import annotations

import json
import os
from typing import Any

from components.outcomes import ALWAYS_RUN, ExitCode
from configs import Config
from pipeline.running.nodes import Graph

SUFFIX = ".graph.json"
_WORK = "/home/recsys/work"


def plan(config: Config) -> dict[str, Any]:
    """Return nodes in an order that works, what each needs, and the settings under `orchestration`."""
    graph, how = Graph(config), config.orchestration.model_dump(mode="json")
    return {
        "name": config.name,
        "config": os.path.basename(config.path),
        "spans": config.data.has_spans,
        "nodes": [
            {
                "id": node,
                "kind": graph.kind(node),
                "needs": graph.needs(node),
                "gate": graph.is_gate(node),
                "always": node in ALWAYS_RUN,
            }
            for node in graph.nodes
        ],
        "exit_codes": {
            code.name.lower(): {"code": int(code), "means": code.means, "final": code.final} for code in ExitCode
        },
        "orchestration": {**how, "config": how["config"] or f"{_WORK}/configs/{os.path.basename(config.path)}"},
    }


def text(plan: dict[str, Any]) -> str:
    """Return a plan as the text of its file."""
    return json.dumps(plan, indent=1, ensure_ascii=False) + "\n"


def path_beside(config: Config) -> str:
    """Return where a config's plan is kept, beside the config, for git."""
    return f"{os.path.splitext(config.path)[0]}{SUFFIX}"
