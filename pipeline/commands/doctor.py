"""`recsys doctor`: is this machine fit, and what to mend where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    folder: Annotated[Path, typer.Option(help="Where runs and models will be written.")] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Check Python, C library, memory, disk, ports and libraries, and say what to mend.

    Exit code 0 when pipelines can run here, 1 when something must be mended.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from pipeline.doctor import examine

    findings = list(examine(folder))
    failed = [finding for finding in findings if finding.status == "fail"]
    if as_json:
        report = {"fit": not failed, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        colors = {"ok": "green", "warn": "yellow", "fail": "red"}
        table = Table("", "check", "found", "what to do", box=None, pad_edge=False)
        for finding in findings:
            state = f"[{colors[finding.status]}]{finding.status}"
            table.add_row(state, finding.name, finding.found.replace("[", r"\["), finding.advice)
        console = Console()
        console.print(table)
        warned = sum(finding.status == "warn" for finding in findings)
        if failed:
            console.print(f"\n[red]{len(failed)} to mend before a pipeline can run here[/red]")
        else:
            console.print(f"\n[green]pipelines can run here[/green]{f', {warned} warnings' if warned else ''}")
    if failed:
        raise typer.Exit(1)
