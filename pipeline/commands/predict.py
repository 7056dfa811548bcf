"""`recsys predict`: what the served model would show a user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.context import ConfigPath, Overrides, command

if TYPE_CHECKING:
    from components.catalogue import Items
    from configs import Config
    from serving.client import Client, SavedModelClient


def predict(
    config: ConfigPath,
    user: Annotated[str, typer.Option(help="The user's id, as in the logs.")],
    top: Annotated[int, typer.Option(min=1, help="How many items.")] = 10,
    exclude: Annotated[list[str] | None, typer.Option(help="Item to leave out; again for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="Server to ask: grpc://host:port, http://host:port or unix:/socket; default: in this process."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="With --target: a version label such as stable.")] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A column of the context, such as a device or the event's time."),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Show the items that the newest served version recommends to a user."""
    import json

    with command(config, set_, "predict") as (settings, terminal):
        from components.catalogue import Catalogue, newest_version
        from serving.client import connect

        given = _context(settings, context or [])
        newest = newest_version(settings)
        catalogue = Catalogue.of(newest, settings)
        known = catalogue.user(user)
        items = catalogue.items()
        one = {name: [value] for name, value in {settings.data.user: user, **(known or {}), **given}.items()}
        recommends = _recommends(newest)
        with connect(target or newest.absolute().as_uri(), settings.model_name, label=label) as client:
            if recommends:
                asked = {name: value for name, value in one.items() if name in settings.raw_columns}
                best, served = _recommended(client, asked, top, exclude or [])
            else:
                best, served = _ranked(client, one, items, top, exclude or [])
        names = dict(zip(items.ids, items.names, strict=True))
        rows: list[dict[str, Any]] = [
            {"rank": place, "item": item, "name": names.get(item, ""), "score": round(score, 6)}
            for place, (item, score) in enumerate(best, start=1)
        ]
        answer = {
            "model": settings.model_name,
            "version": served,
            "user": user,
            "known": known is not None,
            "items": rows,
        }
        if as_json:
            print(json.dumps(answer, ensure_ascii=False), file=terminal)
            return
        among = "recommended by" if recommends else f"best of {len(items.ids):,} items, says"
        version = served or label or "served"
        _show(terminal, f"[bold]user {user}[/bold]  {_who(known)}", rows)
        print(f"{among} {settings.model_name} version {version}", file=terminal)


def _recommends(version: Path) -> bool:
    from components.versions import signatures_of
    from models.recommend import RECOMMEND

    return RECOMMEND in signatures_of(version)


def _recommended(
    client: Client | SavedModelClient, asked: Mapping[str, Any], top: int, exclude: list[str]
) -> tuple[list[tuple[str, float]], int | None]:
    """Return the best items with their scores, as the served model finds and orders them, and its version."""
    from models.recommend import RECOMMEND

    left_out = {"exclude": [exclude]} if exclude else {}
    prediction = client.predict({**asked, "k": [top], **left_out}, signature=RECOMMEND)
    found = zip(*(prediction.outputs[name][0] for name in ("items", "scores")), strict=True)
    return [(i.decode() if isinstance(i, bytes) else str(i), float(score)) for i, score in found], prediction.version


def _ranked(
    client: Client | SavedModelClient, one: Mapping[str, Any], items: Items, top: int, exclude: list[str]
) -> tuple[list[tuple[str, float]], int | None]:
    """Return the best of all items with their scores, and the version that scored them."""
    prediction = client.predict({**items.columns, **one}, signature="rank")
    scores = prediction.outputs["scores"]
    order = (i for i in scores.argsort(kind="stable")[::-1] if items.ids[i] not in exclude)
    return [(items.ids[i], float(scores[i])) for i in islice(order, top)], prediction.version


def _show(terminal: IO[str], who: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=terminal, highlight=False)
    console.print(who)
    table = Table("", "item", "name", "score", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(str(row["rank"]), row["item"], row["name"], f"{row['score']:.4f}")
    console.print(table)


def _who(known: Mapping[str, Any] | None) -> str:
    """Return what is known of a user, None where the logs do not know it."""
    if known is None:
        return "not in the logs: ranked as an unknown user"
    shown = {name: f"of {len(cell)}" if isinstance(cell, list) else cell for name, cell in known.items()}
    return ", ".join(f"{name} {cell}" for name, cell in shown.items())


def _context(settings: Config, given: list[str]) -> dict[str, Any]:
    """Return the columns of the context that `--context` gives. Raises ConfigError where one is none, or its value."""
    from configs import ConfigError

    columns = {c.name: c for c in settings.raw_columns.values() if c.of == "context" and c.length is None}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in columns:
            known = ", ".join(columns) or "none: no feature is of the context"
            raise ConfigError(f"--context {text}: expected NAME=VALUE with a column of the context; there are {known}")
        try:
            found[name] = _cell(columns[name].type, value, settings.data.per_second)
        except ValueError:
            unit = settings.data.time_unit if settings.data.per_second > 1 else "s"
            what = "a number" if columns[name].type == "float" else f"{unit} since 1970 or an ISO 8601 time"
            raise ConfigError(f"--context {text}: expected {what}") from None
    return found


def _cell(kind: str, text: str, per_second: int) -> str | float | int:
    """Read a cell; a time is a number in the logs' unit or ISO 8601, in UTC without a zone. Raises ValueError."""
    if kind != "int64":
        return text if kind == "string" else float(text)
    if text.lstrip("-").isdecimal():
        return int(text)
    time = datetime.fromisoformat(text)
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()) * per_second
