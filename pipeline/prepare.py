"""What models are trained on outside of a run: the steps up to Transform, from cache where nothing changed."""

from __future__ import annotations

from collections.abc import Callable

from components.contest import Data
from components.outcomes import NodeId
from configs import Config
from pipeline.running.run import Watcher, run


def prepare(config: Config, report: Callable[[str], None] = lambda line: None) -> Data:
    """Run the nodes up to Transform and return where their outputs lie. Raises RefusedError where a gate says no."""
    outcomes = run(config, Watcher(started=report), last=NodeId.TRANSFORM).outcomes
    return Data(
        examples=outcomes[NodeId.INGEST].uri("examples"),
        transformed=outcomes[NodeId.TRANSFORM].uri("transformed_examples"),
        graph=outcomes[NodeId.TRANSFORM].uri("transform_graph"),
        catalogue=outcomes[NodeId.INGEST].uri("catalogue"),
    )
