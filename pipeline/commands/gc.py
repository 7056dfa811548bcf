"""`recsys gc`: free the disk of artifacts that nobody needs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.context import ConfigPath, Overrides, command


def gc(
    config: ConfigPath,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest runs stay whole.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, and free nothing.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, help="Days that a run which is not over is waited for before it counts as given up.")
    ] = 7.0,
    as_json: Annotated[bool, typer.Option("--json", help="What was freed as JSON.")] = False,
    set_: Overrides = None,
) -> None:
    """Free the artifacts of old runs.

    Kept are the newest runs, runs that are not over, what the versions that serve were made of, the data last accepted
    and the model last blessed, and the pages of all runs. Served versions are never touched.
    """
    import json

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    with command(config, set_, "gc") as (settings, terminal):
        from pipeline.running.leftovers import find, free
        from pipeline.running.locks import whole_folder
        from pipeline.running.store import store_exists

        with whole_folder(settings.runs_folder):
            found = find(settings, keep, patience * 86400) if store_exists(settings) else []
            if not dry_run and found:
                free(settings, found)
        total = sum(leftover.bytes for leftover in found)
        if as_json:
            freed = [{"node": l.node, "uri": l.uri, "bytes": l.bytes} for l in found]  # noqa: E741
            print(json.dumps({"dry_run": dry_run, "bytes": total, "artifacts": freed}), file=terminal)
            return
        console = Console(file=terminal, highlight=False)
        if not found:
            console.print(f"nothing to free: the {keep} newest runs and what is needed of older ones stay")
            return
        table = Table("node", "artifacts", "size", box=None, pad_edge=False, header_style="bold")
        for column in table.columns[1:]:
            column.justify = "right"
        for node in dict.fromkeys(leftover.node for leftover in found):
            own = [leftover for leftover in found if leftover.node == node]
            table.add_row(node, str(len(own)), decimal(sum(leftover.bytes for leftover in own)))
        console.print(table)
        did = "would free" if dry_run else "freed"
        console.print(f"{did} {decimal(total)} ({total:,} bytes) in {len(found):,} artifacts")
