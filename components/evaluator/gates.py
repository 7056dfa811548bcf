"""Gates on metrics: which hold, which do not, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.verdict import Direction, Reason
from configs.gates import BLESSED, LOWER_IS_BETTER, Gate

CANDIDATE = "candidate"
OVERALL = "all"

_RANKING = ("auc", "gauc", "ndcg10", "prauc")

Metrics = Mapping[str, float]
Slices = Mapping[str, Metrics]  # slice's name -> metric -> value


@dataclass(frozen=True)
class Judgement:
    """One gate on one slice. `margin` is how far the value is on the right side; negative is wrong, NaN unknown."""

    gate: str
    slice: str
    metric: str
    value: float
    limit: float
    against: str | None
    margin: float
    examples: int
    passed: bool
    why: str
    direction: Direction = Direction.AT_LEAST

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, NaN as None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    def as_reason(self) -> Reason:
        """Return what it speaks against the model."""
        where = "all examples" if self.slice == OVERALL else self.slice
        against = " (the model last blessed)" if self.against == BLESSED else ""
        return Reason(
            text=f"{self.metric} on {where} ({self.examples:,} examples): {self.why}{against}. Wanted: {self.gate}.",
            **{k: getattr(self, k) for k in ("metric", "slice", "value", "limit", "direction", "against")},
        )


def slice_name(columns: list[str], values: list[str]) -> str:
    """Return how a slice is called: `gender=F` or `gender=F, genres=Drama`."""
    return ", ".join(f"{c}={v}" for c, v in sorted(zip(columns, values, strict=True))) or OVERALL


def judge(gates: list[Gate], models: Mapping[str, Slices], slice_columns: Mapping[str, list[str]]) -> list[Judgement]:
    """Judge the candidate in `models` by every gate.

    `slice_columns` gives each slice's columns. A gate against a blessed model holds while there is none.
    """
    judgements = []
    for gate in gates:
        wanted = sorted(gate.each) if gate.each is not None else []
        # A gate on all examples is judged even where nothing was evaluated: no verdict is no yes.
        for name in sorted({*models[CANDIDATE], *([] if wanted else [OVERALL])}):
            if name in slice_columns and sorted(slice_columns[name]) != wanted:
                continue
            examples = int(models[CANDIDATE].get(name, {}).get("example_count", 0))
            if gate.each is None or examples >= gate.min_examples:
                judgements.append(_judge(gate, name, examples, models))
    return judgements


def describe(gate: Gate) -> str:
    """Return a gate as one reads it: `auc at least 0.75`."""
    margin = f" by {gate.by:g}" if gate.by else ""
    condition = (
        f"at least {gate.at_least:g}"
        if gate.at_least is not None
        else f"at most {gate.at_most:g}"
        if gate.at_most is not None
        else f"beats {gate.beats}{margin}"
        if gate.beats
        else f"not below {gate.not_below}" + (f" by over {gate.by:g}" if gate.by else "")
    )
    each = f", each {' x '.join(gate.each)}" if gate.each else ""
    floor = f" of {gate.min_examples:,} examples or more" if gate.min_examples else ""
    return f"{gate.metric} {condition}{each}{floor}"


def _judge(gate: Gate, name: str, examples: int, models: Mapping[str, Slices]) -> Judgement:
    metrics = models[CANDIDATE].get(name, {})
    value = metrics.get(gate.metric, math.nan)
    if gate.metric in _RANKING and metrics.get("mean_label") in (0.0, 1.0):
        value = math.nan  # with one class there is nothing to rank, whatever number a library gives
    nan = math.nan

    def judged(limit: float, margin: float, passed: bool, why: str) -> Judgement:
        return Judgement(
            describe(gate),
            name,
            gate.metric,
            value,
            limit,
            gate.against,
            margin,
            examples,
            passed,
            why,
            _direction(gate),
        )

    if gate.against is not None and gate.against not in models:
        return judged(nan, nan, True, f"no {gate.against} model yet" if gate.against == BLESSED else "not evaluated")
    if math.isnan(value):
        return judged(nan, nan, False, _undefined(gate.metric, name, metrics))
    if gate.at_least is not None or gate.at_most is not None:
        limit = gate.at_least if gate.at_least is not None else gate.at_most
        assert limit is not None
        margin = value - limit if gate.at_least is not None else limit - value
        passed = margin >= 0
        word = "reaches" if gate.at_least is not None else "stays under"
        return judged(limit, margin, passed, f"{value:.4f} {word if passed else 'misses'} {limit:g}")
    assert gate.against is not None
    other = models[gate.against].get(name, {}).get(gate.metric, nan)
    if math.isnan(other):
        return judged(nan, nan, False, f"{gate.metric} of {gate.against} cannot be computed on {name}")
    sign = -1 if gate.metric in LOWER_IS_BETTER else 1
    better_by = sign * (value - other)
    margin = better_by - gate.by if gate.beats is not None else better_by + gate.by
    passed = margin > 0 if gate.beats is not None and not gate.by else margin >= -1e-12
    limit = other + sign * (gate.by if gate.beats is not None else -gate.by)
    comparison = "better" if better_by >= 0 else "worse"
    return judged(
        limit, margin, passed, f"{value:.4f} is {abs(better_by):.4f} {comparison} than {gate.against}'s {other:.4f}"
    )


def _direction(gate: Gate) -> Direction:
    down = gate.at_most is not None or (gate.against is not None and gate.metric in LOWER_IS_BETTER)
    return Direction.AT_MOST if down else Direction.AT_LEAST


def _undefined(metric: str, name: str, metrics: Metrics) -> str:
    count, mean = metrics.get("example_count", 0), metrics.get("mean_label", math.nan)
    if mean in (0.0, 1.0):
        return (
            f"{metric} cannot be computed on {name}: all {count:,.0f} labels are {'positive' if mean else 'negative'}; "
            "raise the gate's min_examples or drop the slice"
        )
    return f"{metric} cannot be computed on {name} ({count:,.0f} examples)"
