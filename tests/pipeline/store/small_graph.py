"""A graph of four nodes that do next to nothing: Start, then Left and Right at once, then End.

python -m tests.pipeline.store.small_graph CONFIG [KEY=VALUE ...]    runs `NODE RUN` lines from standard input
"""

import json
import os
import sys
import time

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from configs import Config, load_config
from pipeline.running.store import connection

NODES = ("Start", "Left", "Right", "End")


def _write(artifact, text: str) -> None:
    os.makedirs(artifact.uri, exist_ok=True)
    with open(f"{artifact.uri}/text", "w") as stream:
        stream.write(text)


def _read(artifact) -> str:
    with open(f"{artifact.uri}/text") as stream:
        return stream.read()


@component
def Start(text: Parameter[str], made: OutputArtifact[standard_artifacts.Schema]):  # noqa: N802
    _write(made, text)


@component
def Side(  # noqa: N802
    name: Parameter[str],
    given: InputArtifact[standard_artifacts.Schema],
    made: OutputArtifact[standard_artifacts.Schema],
):
    _write(made, f"{name}({_read(given)})")
    time.sleep(float(os.environ.get("SECONDS_A_SIDE", "0")))


@component
def End(  # noqa: N802
    left: InputArtifact[standard_artifacts.Schema],
    right: InputArtifact[standard_artifacts.Schema],
    made: OutputArtifact[standard_artifacts.Schema],
):
    _write(made, f"{_read(left)} {_read(right)}")


def small_graph(config: Config) -> Pipeline:
    """Return the pipeline; nothing in it is taken from cache."""
    start = Start(text="start").with_id("Start")
    left = Side(name="left", given=start.outputs["made"]).with_id("Left")
    right = Side(name="right", given=start.outputs["made"]).with_id("Right")
    end = End(left=left.outputs["made"], right=right.outputs["made"]).with_id("End")
    return Pipeline(
        pipeline_name="small",
        pipeline_root=f"{config.runs_folder}/artifacts",
        components=[start, left, right, end],
        enable_cache=False,
        metadata_connection_config=connection(config),
    )


def main() -> None:
    """Run nodes as `recsys run-node` does, and answer each with a line of JSON."""
    from pipeline.running.locks import one_node
    from pipeline.running.nodes import Graph

    config = load_config(sys.argv[1], sys.argv[2:])
    graph = Graph(config, small_graph(config))
    alone = config.metadata.type == "sqlite"
    print("ready", flush=True)
    for line in sys.stdin:
        node, run = line.split()
        try:
            with one_node(config.runs_folder, node, alone, lambda line: None):
                outcome = graph.run_node(node, run)
            answer = {"state": outcome.state.value, "text": _read(outcome.outputs["made"][0])}
        except Exception as error:
            answer = {"state": "broke", "text": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
