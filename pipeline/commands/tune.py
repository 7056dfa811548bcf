"""`recsys tune`: a search for better values, chosen by the eval split."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import StringIO
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.context import ConfigPath, Overrides, console_on, logged

if TYPE_CHECKING:
    from configs import Config

_SHOWN = 5


def tune(
    config: ConfigPath,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many trials in all, earlier ones counted; default: the config's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All trials as JSON, the best first.")] = False,
    set_: Overrides = None,
) -> None:
    """Try values of `tuning.space`, train a model with each, and print the best by eval AUC as lines for the config.

    Trials are kept in the runs folder as they end. Called again, also after it was killed, the search goes on; a larger
    number of trials extends it. The test split is not read.
    """
    from rich.table import Table

    from configs import load_config

    overrides = [*(set_ or []), *([f"tuning.trials={trials}"] if trials else [])]
    settings = load_config(config, overrides)
    folder = f"{settings.runs_folder}/tuning"
    with logged(settings, "tune-") as (log, terminal):
        console = console_on(terminal, silent=as_json)
        console.print(f"[bold]{settings.name}[/bold]  {settings.path}  log: {log}")
        with console.status("loading TensorFlow") as status:
            from components.search import Trial, check_space, describe, search, with_values
            from pipeline.prepare import prepare
            from pipeline.running.locks import whole_folder

            check_space(settings)
            data = prepare(settings, status.update)

            def ended(trial: Trial) -> None:
                console.print(
                    f"  trial {trial.number:>3}  eval AUC {trial.eval_auc:.4f}, LogLoss {trial.eval_logloss:.4f}, "
                    f"{trial.seconds:.0f} s  {describe(trial.values)}"
                )

            with whole_folder(folder):
                found = search(settings, data, folder, ended, status.update)
        best = found[0]
        lines = _lines(with_values(settings, best.values))
        if as_json:
            document = {"best": lines, "trials": [asdict(trial) for trial in found], "kept": folder}
            print(json.dumps(document, ensure_ascii=False), file=terminal)
            return
        table = Table("trial", "eval AUC", "LogLoss", "values", box=None, pad_edge=False, header_style="bold")
        for trial in found[:_SHOWN]:
            table.add_row(
                str(trial.number), f"{trial.eval_auc:.4f}", f"{trial.eval_logloss:.4f}", describe(trial.values)
            )
        console.print()
        console.print(table)
        spent = sum(trial.seconds for trial in found)
        console.print(f"{len(found)} trials, {spent / 60:.1f} minutes of training; kept in {folder}\n")
        console.print("[bold]the best by eval AUC, for the config:[/bold]")
        console.print(lines, markup=False, end="")


def _lines(config: Config) -> str:
    """Return the model and the training of a config as its file would have them."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = True, 4096, False  # type: ignore[assignment]
    lines = []
    for key in ("model", "training"):
        section: dict[str, Any] = getattr(config, key).model_dump(mode="json", by_alias=True, exclude_unset=True)
        stream = StringIO()
        yaml.dump({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in section.items()}, stream)
        lines.append(f"{key}: {stream.getvalue().strip()}\n")
    return "".join(lines)
