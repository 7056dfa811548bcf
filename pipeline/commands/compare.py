"""`recsys compare`: several models on the same split, one table."""

from __future__ import annotations

import json
import math
import statistics
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.context import ConfigPath, Overrides, console_on, logged

if TYPE_CHECKING:
    from rich.table import Table

    from components.contest import Entry, Figures

SHOWN = {"auc": "AUC", "gauc": "GAUC", "logloss": "LogLoss", "ndcg10": "NDCG@10"}
_OF_LISTS = ("ndcg", "recall", "hit_rate")  # at the shortest length, and recall at the longest


def compare(
    config: ConfigPath,
    models: Annotated[
        str,
        typer.Option(
            help="Names, separated by commas: types of model, or names in `models` and `baselines` of the config. "
            "Default: the config's model, its baselines and its models."
        ),
    ] = "",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas; each model is trained once with each.")] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON, of every seed.")] = False,
    set_: Overrides = None,
) -> None:
    """Train models on the same examples and print their metrics on eval and test side by side.

    The steps up to Transform are run first, or taken from cache; no model is kept or pushed. Choose by eval: what was
    chosen by test says nothing of how it will do.
    """

    from configs import ConfigError, load_config

    settings = load_config(config, set_ or [])
    try:
        drawn = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {seeds}: expected whole numbers separated by commas, as in 1,2,3") from None
    if min(drawn) < 0 or len(set(drawn)) < len(drawn):
        raise ConfigError(f"--seeds {seeds}: expected different numbers from 0")
    names = [name.strip() for name in models.split(",") if name.strip()]
    with logged(settings, "compare-") as (log, terminal):
        console = console_on(terminal, silent=as_json)
        console.print(f"[bold]{settings.name}[/bold]  {settings.path}  log: {log}")
        with console.status("loading TensorFlow") as status:
            from components.contest import counted, entries, measure
            from pipeline.prepare import prepare

            contest = entries(settings, names)
            data = prepare(settings, status.update)
            results: dict[str, list[Figures]] = {entry.name: [] for entry in contest}
            for entry in contest:
                for seed in drawn[:1] if counted(entry) else drawn:
                    doing = f"{entry.name}, seed {seed}"
                    status.update(doing)
                    report = partial(_say, status, doing)
                    figures = measure(settings, entry, seed, data, report)
                    results[entry.name].append(figures)
                    by, title = chosen_by(figures)
                    console.print(
                        f"  {entry.name:<14} seed {seed}  eval {title} {figures.metrics['eval'][by]:.4f}, "
                        f"epoch {figures.best_epoch}, {figures.seconds:.0f} s"
                    )
        if as_json:
            print(json.dumps(_document(settings, contest, results), ensure_ascii=False), file=terminal)
            return
        console.print()
        console.print(_table(results))
        rows = next(iter(results.values()))[0].metrics
        console.print(
            f"mean and deviation over seeds {', '.join(map(str, drawn))}; split by {settings.data.split.by}: "
            + ", ".join(f"{part} {figures['example_count']:,.0f} rows" for part, figures in rows.items())
            + f"; models in the order of eval {chosen_by(next(iter(results.values()))[0])[1]}, by which to choose"
        )


def _say(status: Any, doing: str, line: str) -> None:
    status.update(f"{doing}: {line}")


def shown(figures: Figures) -> dict[str, str]:
    """Return the metrics of the table and their titles: of lists of the best items where those were judged."""
    from components.evaluator.ranking.metrics import metric_title
    from configs.gates import at_k

    ks = sorted({found[1] for m in figures.metrics["eval"] if (found := at_k(m))})
    if not ks:
        return SHOWN
    metrics = [*(f"{name}@{ks[0]}" for name in _OF_LISTS), f"recall@{ks[-1]}"]
    auc = {} if math.isnan(figures.metrics["eval"]["auc"]) else {"auc": SHOWN["auc"]}
    return {m: metric_title(m) for m in dict.fromkeys(metrics)} | auc


def chosen_by(figures: Figures) -> tuple[str, str]:
    """Return the metric to choose by and its title."""
    return next(iter(shown(figures).items()))


def _ordered(results: dict[str, list[Figures]]) -> list[str]:
    by, _ = chosen_by(next(iter(results.values()))[0])
    return sorted(results, key=lambda name: -_mean(results[name], "eval", by))


def _mean(runs: list[Figures], part: str, metric: str) -> float:
    return statistics.fmean(figures.metrics[part].get(metric, math.nan) for figures in runs)


def _deviation(runs: list[Figures], part: str, metric: str) -> float | None:
    values = [figures.metrics[part].get(metric, math.nan) for figures in runs]
    return statistics.stdev(values) if len(values) > 1 else None


def _table(results: dict[str, list[Figures]]) -> Table:
    """Return a table that fits 80 columns: size and speed stand below a model's name."""
    from rich.table import Table

    metrics = shown(next(iter(results.values()))[0])
    table = Table("model", "on", *metrics.values(), box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for name in _ordered(results):
        runs = results[name]
        speed = statistics.median(r.examples_per_second for r in runs)
        said = [name, f"  {runs[0].parameters:,} parameters", f"  {speed:,.0f} examples/s"]
        parts = list(runs[0].metrics)
        for line, part in zip_longest(said, parts, fillvalue=""):
            cells = [_cell(runs, part, metric) for metric in metrics] if part else []
            table.add_row(line, part, *cells)
    return table


def _cell(runs: list[Figures], part: str, metric: str) -> str:
    if math.isnan(mean := _mean(runs, part, metric)):
        return "–"
    deviation = _deviation(runs, part, metric)
    spread = f"±{deviation:.4f}" if deviation is not None else ""
    return f"{mean:.4f}{spread}".replace("0.", ".")


def _document(settings: Any, contest: list[Entry], results: dict[str, list[Figures]]) -> dict[str, Any]:
    by_name = {entry.name: entry for entry in contest}
    return {
        "config": str(settings.path),
        "split": settings.data.split.by,
        "models": [
            {
                "name": name,
                "model": by_name[name].model.model_dump(mode="json"),
                "training": by_name[name].training.model_dump(mode="json"),
                "parameters": runs[0].parameters,
                "examples_per_second": round(statistics.median(r.examples_per_second for r in runs)),
                "seconds": round(sum(r.seconds for r in runs), 1),
                "seeds": [r.seed for r in runs],
                **{
                    part: {
                        metric: {
                            "mean": _number(_mean(runs, part, metric)),
                            "deviation": _number(_deviation(runs, part, metric)),
                            "each": [_number(r.metrics[part].get(metric)) for r in runs],
                        }
                        for metric in runs[0].metrics[part]
                    }
                    for part in runs[0].metrics
                },
            }
            for name, runs in ((name, results[name]) for name in _ordered(results))
        ],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 6)
