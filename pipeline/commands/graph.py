"""`recsys graph`: which node feeds which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.context import ConfigPath, Overrides, command


def graph(
    config: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help="Nodes, edges and `orchestration` as JSON.")] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it into an SVG file.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the JSON beside the config as NAME.graph.json, which Airflow reads.")
    ] = False,
    set_: Overrides = None,
) -> None:
    """Show the nodes of a config's pipeline, what each is, and which nodes it waits for."""
    with command(config, set_, "graph") as (settings, terminal):
        from pipeline.graph.plan import path_beside, plan, text

        drawn = plan(settings)
        for path, content in ((svg, _svg), (Path(path_beside(settings)) if write else None, text)):
            if path is not None:
                temporary = path.with_name(f".{path.name}.partial")
                temporary.write_text(content(drawn), encoding="utf-8")
                temporary.replace(path)
                print(f"written: {path}", file=terminal)
        if as_json:
            print(text(drawn), end="", file=terminal)
        elif svg is None and not write:
            _print(drawn, terminal)


def _svg(plan: dict) -> str:
    from pipeline.graph.drawing import svg

    return svg(plan)


def _print(plan: dict, terminal) -> None:
    from rich.console import Console
    from rich.table import Table

    nodes = plan["nodes"]
    table = Table("", "node", "is a", "after", box=None, pad_edge=False, header_style="bold")
    for number, node in enumerate(nodes, 1):
        kind = node["kind"] + (", a gate" if node["gate"] else "") + (", runs always" if node["always"] else "")
        name = f"[yellow]{node['id']}[/yellow]" if node["gate"] else node["id"]
        table.add_row(str(number), name, kind, ", ".join(node["needs"]) or "-")
    console = Console(file=terminal, highlight=False)
    console.print(f"[bold]{plan['name']}[/bold]  {len(nodes)} nodes, {sum(len(n['needs']) for n in nodes)} edges")
    console.print(table)
