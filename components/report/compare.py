"""Two runs beside each other, from what their reports say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluator.gates import CANDIDATE, OVERALL
from components.report.change import config_change
from components.report.order import MOST_ROWS, badness
from components.report.page import METRIC_TITLES, environment, titles_of


def render(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the page that compares the facts of two reports; differences are `now` less `before`."""
    metrics = METRIC_TITLES
    then, today = overall = [_slices(run).get(OVERALL) for run in (before, now)]
    if then and today:
        binary, lists = titles_of(today)
        metrics = {m: t for m, t in (binary | lists).items() if m in then["metrics"][CANDIDATE]} or METRIC_TITLES
    metric = now["metric"] if now["metric"] in metrics else next(iter(metrics))
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            runs=(before, now),
            overall=overall,
            metrics=metrics,
            metric=metric,
            rows=slice_changes(before, now, metric)[:MOST_ROWS],
            features=feature_changes(before, now),
            change=config_change(before["config"], now["config"], (before["run"], now["run"])),
            nodes=_nodes(before, now),
        )
    )


def slice_changes(before: Mapping[str, Any], now: Mapping[str, Any], metric: str) -> list[dict[str, Any]]:
    """Return the slices that both runs have, those that lost most first; with too few examples, last."""
    old, new = _slices(before), _slices(now)
    rows = []
    for name in new:
        if name == OVERALL or name not in old:
            continue
        values = [run[name]["metrics"][CANDIDATE].get(metric, [None])[0] for run in (old, new)]
        if None in values:
            continue
        lost = badness(metric, values[1]) - badness(metric, values[0])
        rows.append(
            {
                "name": name,
                "examples": [old[name]["examples"], new[name]["examples"]],
                "values": values,
                "difference": values[1] - values[0],
                "few": old[name]["few"] or new[name]["few"],
                "lost": lost,
            }
        )
    return sorted(rows, key=lambda row: (row["few"], -row["lost"], row["name"]))


def feature_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return of each column that either run has the missing share and the different values, or mean, in train."""
    old, new = ({f["name"]: f["sets"].get("train") for f in run["features"]} for run in (before, now))

    def figures(described: Mapping[str, Any] | None) -> dict[str, Any]:
        described = described or {}
        return {"missing": described.get("missing"), "size": described.get("unique", described.get("mean"))}

    return [
        {"name": name, "old": figures(old.get(name)), "new": figures(new.get(name))} for name in sorted({*old, *new})
    ]


def _slices(run: Mapping[str, Any]) -> dict[str, Any]:
    return {s["name"]: s for s in run["slices"]}


def _nodes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    old = {n["node"]: n for n in before["nodes"]}
    return [{"node": n["node"], "old": old.get(n["node"]), "new": n} for n in now["nodes"]]
