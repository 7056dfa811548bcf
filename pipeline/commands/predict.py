"""`recsys predict`: what the served model would show a user."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.commands.run import ConfigPath, Overrides


def predict(
    config: ConfigPath,
    user: Annotated[str, typer.Option(help="The user's id, as in the logs.")],
    top: Annotated[int, typer.Option(min=1, help="How many items.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="Server to ask: grpc://host:port, http://host:port or unix:/socket; default: in this process."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="With --target: a version label such as stable.")] = None,
    set_: Overrides = None,
) -> None:
    """Rank all known items for a user with the newest served version."""
    import json

    from rich.console import Console
    from rich.table import Table

    from configs import load_config
    from pipeline.quiet import quiet

    settings = load_config(config, set_ or [])
    with quiet(f"{settings.runs_folder}/logs/predict.log") as terminal:
        from components.catalogue import Catalogue, newest_version
        from serving.client import connect

        newest = newest_version(settings)
        catalogue = Catalogue.of(newest, settings)
        known = catalogue.user(user)
        items = catalogue.items()
        with connect(target or newest.absolute().as_uri(), settings.model_name, label=label) as client:
            one = {name: [value] for name, value in {settings.data.user: user, **known}.items()}
            prediction = client.predict({**items.columns, **one}, signature="rank")
        scores = prediction.outputs["scores"]
        best = scores.argsort(kind="stable")[::-1][:top]
        rows: list[dict[str, Any]] = [
            {"rank": place + 1, "item": items.ids[i], "name": items.names[i], "score": round(float(scores[i]), 6)}
            for place, i in enumerate(best)
        ]
        answer = {
            "model": settings.model_name,
            "version": prediction.version,
            "user": user,
            "known": bool(known),
            "items": rows,
        }
        if as_json:
            print(json.dumps(answer, ensure_ascii=False), file=terminal)
            return
        console = Console(file=terminal, highlight=False)
        shown = {k: f"of {len(v)}" if isinstance(v, list) else v for k, v in known.items()}
        who = ", ".join(f"{k} {v}" for k, v in shown.items()) if known else "not in the logs: ranked as an unknown user"
        console.print(f"[bold]user {user}[/bold]  {who}")
        table = Table("", "item", "name", "score", box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(str(row["rank"]), row["item"], row["name"], f"{row['score']:.4f}")
        console.print(table)
        version = prediction.version or label or "served"
        console.print(f"best of {len(scores):,} items, says {settings.model_name} version {version}")
