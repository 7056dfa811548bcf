"""A run's facts as one HTML file that needs nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup, escape

from components.evaluator.gates import BEST, CANDIDATE, OVERALL
from components.evaluator.ranking.metrics import metric_title
from components.report.order import FEW_EXAMPLES, FEW_LABELS, MOST_ROWS
from configs.gates import BLESSED, at_k, lower_is_better, undirected

METRIC_TITLES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "prauc": "PR AUC",
    "logloss": "LogLoss",
    "calibration": "Calibration",
}
_FOLDER = Path(__file__).parent


_LISTS_SHOWN = ("ndcg", "recall", "hit_rate", "mrr")  # of slices; the rest is of whole lists or of two stages


def titles_of(overall: Mapping[str, Any] | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the titles of the metrics of a run: of examples, those that could be computed, and of lists."""
    own = overall["metrics"][CANDIDATE] if overall else {}
    binary = {m: title for m, title in METRIC_TITLES.items() if own.get(m, [None])[0] is not None}
    lists = {m: metric_title(m) for m in own if at_k(m)}
    return binary or ({} if lists else METRIC_TITLES), lists


def render(facts: Mapping[str, Any], curves: Mapping[str, Any]) -> str:
    """Return the page of a run."""
    rows = facts["slices"][1:]
    overall = facts["slices"][0] if facts["slices"] else None
    shown = rows[:MOST_ROWS]
    binary, lists = titles_of(overall)
    titles = binary | {m: t for m, t in lists.items() if m.partition("@")[0] in _LISTS_SHOWN}
    metric = facts["metric"] if facts["metric"] in titles else next(iter(titles))
    tiles = [m for m in ("auc", "gauc", "logloss", "calibration") if m in binary and overall]
    of_epochs = epoch_metrics(facts["training"]["epochs"] if facts["training"] else [])
    island = {
        "metric": metric,
        "models": [{"name": m, "title": model_title(m)} for m in facts["models"]],
        "titles": titles,
        "slices": [_drawn_slice(s, facts["gates"]) for s in shown],
        "overall": overall["metrics"][CANDIDATE] if overall else None,
        "curves": curves,
        "features": [_drawn_feature(f) for f in facts["features"]],
        "epoch_metrics": of_epochs,
        "epochs": facts["training"]["epochs"] if facts["training"] else [],
    }
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            facts=facts,
            overall=overall,
            rows=shown,
            unseen=len(rows) - len(shown),
            others=[m for m in facts["models"] if m != CANDIDATE],
            failed={j["slice"] for j in facts["gates"] if not j["passed"]},
            judged={j["slice"] for j in facts["gates"]},
            with_curves=list(curves),
            metrics=titles,
            binary=binary,
            lists=lists,
            tiles=[*tiles, *[m for m in titles if m in lists][:2]],
            metric=metric,
            few=(FEW_EXAMPLES, FEW_LABELS),
            island=island,
            epoch_metrics=of_epochs,
            epoch_columns={f"{s}_{m}": f"{s.title()} {t}" for s, m, t in _by_split(of_epochs, facts["training"])},
            charts=any((curves, facts["features"], facts["training"])),
        )
    )


def epoch_metrics(epochs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the metrics of evaluations in training that say something, and their titles."""
    found = {} if any(e.get("eval_one_label") for e in epochs) else {"auc": "AUC", "logloss": "LogLoss"}
    return found | ({"ndcg_at_10": "NDCG@10"} if any("eval_ndcg_at_10" in e for e in epochs) else {})


def _by_split(titles: Mapping[str, str], training: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    epochs = training["epochs"] if training else []
    pairs = [(split, m, title) for split in ("eval", "train") for m, title in titles.items()]
    return [(split, m, title) for split, m, title in pairs if any(f"{split}_{m}" in e for e in epochs)]


@cache
def environment() -> jinja2.Environment:
    """Return the templates: what is put into them is escaped, for ids and values come from anyone who writes logs."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "model_title": model_title,
        "moment": moment,
        "worse": worse,
        "as_class": lambda metric: metric.replace("@", "-at-"),
        "slice_title": lambda name: "all examples" if name == OVERALL else name,
        "codes": codes,
    }
    made.globals |= {
        "css": _text("page.css"),
        "script": _text("page.js"),
        "vega": _vega,
    }
    return made


def model_title(name: str) -> str:
    """Return what people call a model of the evaluation."""
    return {CANDIDATE: "this run", BLESSED: "last blessed", BEST: "best of the last blessed"}.get(name, name)


def moment(seconds: float | None) -> str:
    """Return seconds since 1970 as a UTC time; a dash where there are none."""
    return "–" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def worse(metric: str, difference: list[float | None]) -> str:
    """Return how the candidate compares: `better`, `worse`, `unclear` where the interval holds 0, or nothing known."""
    value, low, high = difference
    if value is None or low is None or high is None or undirected(metric):
        return ""
    if low <= 0 <= high:
        return "unclear"
    return "better" if (value < 0) == (lower_is_better(metric)) else "worse"


def codes(text: str) -> Markup:
    """Return text, escaped, with what stands between backticks as code."""
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def _drawn_slice(slice_: Mapping[str, Any], gates: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": slice_["name"],
        "examples": slice_["examples"],
        "few": slice_["few"],
        "failed": any(not j["passed"] and j["slice"] == slice_["name"] for j in gates),
        "metrics": slice_["metrics"][CANDIDATE],
    }


def _drawn_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("present", "top", "buckets")
    return {
        "name": feature["name"],
        "kind": feature["kind"],
        "sets": {s: {k: f[k] for k in kept if k in f} for s, f in feature["sets"].items()},
    }


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, from the library that carries them."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"))


def _text(name: str) -> Markup:
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))
