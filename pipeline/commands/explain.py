"""`recsys explain`: what made a score."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipeline.commands.context import ConfigPath, Overrides, command


def explain(
    config: ConfigPath,
    user: Annotated[str, typer.Option(help="The user's id, as in the logs.")],
    item: Annotated[str, typer.Option(help="The item's id, as in the logs.")],
    pairs: Annotated[int, typer.Option(min=0, help="How many pairs of features to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
    set_: Overrides = None,
) -> None:
    """Say which features, and which of the model's parts, made the newest served version's score of a user's item.

    All numbers add up to the logit. First order and FM are the model's own terms; the deep part is shared out by
    Shapley values.
    """
    from rich.console import Console

    with command(config, set_, "explain") as (settings, terminal):
        from components.catalogue import Catalogue, newest_version
        from pipeline.explanation import explain as explained

        newest = newest_version(settings)
        catalogue = Catalogue.of(newest, settings)
        known_user = catalogue.user(user)
        items = catalogue.items()
        known_item: dict[str, Any] = {}
        if item in items.ids:
            known_item = {name: cells[items.ids.index(item)] for name, cells in items.columns.items()}
        given = {settings.data.user: user, settings.data.item: item, **(known_user or {}), **known_item}
        found = explained(str(newest), settings.raw_columns, given)
        if as_json:
            said = {
                "model": settings.model_name, "version": int(newest.name), "user": user, "item": item,
                "known_user": known_user is not None, "known_item": bool(known_item), "method": found.method,
                "score": found.score, "logit": found.logit, "base": found.base,
                "features": found.features, "pairs": found.pairs, "rounding": found.rest,
            }  # fmt: skip
            print(json.dumps(said, ensure_ascii=False), file=terminal)
            return
        _show(Console(file=terminal, highlight=False), settings, newest.name, given, items, found, pairs)


def _show(console: Any, settings: Any, version: str, given: dict[str, Any], items: Any, found: Any, pairs: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    user, item = given[settings.data.user], given[settings.data.item]
    name = items.names[items.ids.index(item)] if item in items.ids else "not in the logs: scored as an unknown item"
    console.print(
        f"[bold]user {escape(user)}, item {escape(item)}[/bold]  {escape(name)}\n"
        f"score {found.score:.4f}, logit {found.logit:+.4f}, says {settings.model_name} version {version}\n"
    )
    table = Table("feature", "value", *found.parts, "together", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"
    totals = {feature: sum(by.values()) for feature, by in found.features.items()}
    for feature in sorted(totals, key=lambda f: -abs(totals[f])):
        value = given.get(_column(settings, feature), "")
        value = "" if value != value else value  # NaN: missing
        cells = [f"{found.features[feature][part]:+.4f}" for part in found.parts]
        table.add_row(escape(feature), escape(str(value))[:40], *cells, f"{totals[feature]:+.4f}")
    sums = [sum(by[part] for by in found.features.values()) for part in found.parts]
    table.add_row("[dim]no feature at all[/dim]", "", *[""] * len(found.parts), f"{found.base:+.4f}")
    table.add_row(
        "[bold]all[/bold]", "", *[f"[bold]{s:+.4f}[/bold]" for s in sums], f"[bold]{sum(sums) + found.base:+.4f}[/bold]"
    )
    console.print(table)
    if found.pairs and pairs:
        strongest = ", ".join(f"{a} x {b} {value:+.4f}" for a, b, value in found.pairs[:pairs])
        console.print(f"\nstrongest pairs: {escape(strongest)}", soft_wrap=True)
    console.print(f"[dim]{escape(found.method)}[/dim]", soft_wrap=True)


def _column(settings: Any, feature: str) -> str:
    declared = settings.features.get(feature)
    return getattr(declared, "column", None) or feature
