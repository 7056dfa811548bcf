"""`recsys predict`: a user's top N from a served model."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated, Any

import typer

EXIT_FAILED = 1
EXIT_USAGE = 2


def predict(
    target: Annotated[
        str, typer.Option("--target", help="grpc://host:port, http://host:port, unix:/socket or file:///folder")
    ],
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    user: Annotated[str, typer.Option("--user", help='The user\'s features as JSON: {"user_id": "1"}')],
    items: Annotated[
        pathlib.Path, typer.Option("--items", help="Candidate items, one JSON object of features a line.")
    ],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many to show.")] = 10,
    label: Annotated[str | None, typer.Option("--label", help="A version label such as stable.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the items for a user and show the best."""
    from serving.client import connect
    from serving.server.status import Code, ServingError

    features = _object(user, "--user")
    try:
        lines = items.read_text().splitlines()
    except OSError as error:
        raise _usage(f"{items}: {error.strerror}") from error
    candidates = [_object(line, f"{items}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    try:
        with connect(target, model, label=label, timeout=timeout) as client:
            scores = client.rank(features, candidates)
    except ServingError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(EXIT_USAGE if error.code is Code.INVALID_ARGUMENT else EXIT_FAILED) from error
    best = sorted(zip(scores.tolist(), candidates, strict=True), key=lambda pair: -pair[0])[:top]
    if as_json:
        typer.echo(json.dumps([{"score": score, **item} for score, item in best]))
        return
    for place, (score, item) in enumerate(best, start=1):
        typer.echo(f"{place:4}  {score:.6f}  {' '.join(f'{name}={value}' for name, value in item.items())}")


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _usage(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _usage(f"{where}: expected a JSON object of features")
    return value


def _usage(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(EXIT_USAGE)
