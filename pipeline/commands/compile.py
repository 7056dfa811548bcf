"""`recsys compile`: the graph as a file that an orchestrator on a cluster takes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.context import ConfigPath, Overrides

app = typer.Typer(help="Write the pipeline for an orchestrator.", no_args_is_help=True)


@app.callback()
def _compile() -> None:
    """Write the pipeline for an orchestrator."""


@app.command()
def kubeflow(
    config: ConfigPath,
    output: Annotated[Path, typer.Option(help="File to write; ends in .yaml.")],
    vertex: Annotated[
        bool, typer.Option("--vertex", help="TFX's own compilation for Vertex AI instead, untried on it.")
    ] = False,
    set_: Overrides = None,
) -> None:
    """Write a Kubeflow Pipelines 2 pipeline: a container a node, and OUTPUT.recurring.json where there is a schedule.

    Images, volumes, secrets, resources and the schedule are in the config under `orchestration`.
    """
    import json

    from configs import ConfigError, load_config
    from pipeline.quiet import quiet

    settings = load_config(config, set_ or [])
    if output.suffix != ".yaml":
        raise ConfigError(f"--output {output}: expected a name that ends in .yaml")
    with quiet(f"{settings.runs_folder}/logs/compile.log") as terminal:
        from pipeline.graph.plan import plan

        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".compile-") as folder:
            partial = Path(folder) / output.name
            recurring = {}
            if vertex:
                from pipeline.graph.vertex import LABEL, compile_for_vertex

                compile_for_vertex(settings, partial)
                partial.write_text(LABEL + partial.read_text())
            else:
                from pipeline.graph.kubeflow import compile_pipeline, recurring_run

                drawn = plan(settings)
                if unknown := sorted(set(settings.orchestration.nodes) - {node["id"] for node in drawn["nodes"]}):
                    names = ", ".join(node["id"] for node in drawn["nodes"])
                    raise ConfigError(f"orchestration.nodes: no node {unknown[0]!r}; choose from {names}")
                compile_pipeline(drawn, str(partial))
                recurring = recurring_run(drawn, str(output))
            partial.replace(output)
        print(f"written: {output}", file=terminal)
        if recurring:
            schedule = output.with_suffix(".recurring.json")
            schedule.write_text(json.dumps(recurring, indent=1) + "\n", encoding="utf-8")
            print(f"written: {schedule}, the arguments of kfp.Client().create_recurring_run", file=terminal)
