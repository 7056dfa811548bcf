"""Gates on metrics: which hold, which do not, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from components.verdict import Direction, Reason
from configs.gates import BLESSED, EACH_BASELINE, Gate, lower_is_better
from configs.metrics import METRICS as OTHERS

CANDIDATE = "candidate"
OVERALL = "all"
BEST = "blessed_best"  # the best of the models last blessed, where it is not the last one

_RANKING = ("auc", "gauc", "prauc", *(name for name, metric in OTHERS.items() if metric.of_order))

_TITLES = {BLESSED: "the model last blessed", BEST: "the best of the models last blessed"}

Metrics = Mapping[str, float]
Slices = Mapping[str, Metrics]  # slice's name -> metric -> value
Interval = tuple[float, float]
Intervals = Mapping[str, Mapping[str, Interval]]  # slice's name -> metric -> 95 %


@dataclass(frozen=True)
class Judgement:
    """One gate on one slice. `margin` is how far the value is on the right side; negative is wrong, NaN unknown.

    `judged` is False where there was nothing to judge, which passes and is told. Intervals are None where TFMA
    has none.
    """

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
    judged: bool = True
    value_interval: Interval | None = None
    margin_interval: Interval | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, NaN as None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    def as_reason(self) -> Reason:
        """Return what it speaks against the model."""
        where = "all examples" if self.slice == OVERALL else self.slice
        against = f" ({_TITLES[self.against]})" if self.against in _TITLES else ""
        return Reason(
            text=f"{self.metric} on {where} ({self.examples:,} examples): {self.why}{against}. Wanted: {self.gate}.",
            **{k: getattr(self, k) for k in ("metric", "slice", "value", "limit", "direction", "against")},
        )


def slice_name(columns: list[str], values: list[str]) -> str:
    """Return how a slice is called: `gender=F` or `gender=F, genres=Drama`."""
    return ", ".join(f"{c}={v}" for c, v in sorted(zip(columns, values, strict=True))) or OVERALL


@dataclass(frozen=True)
class Evidence:
    """What gates judge by. `models` are metrics by model and slice, the CANDIDATE's among them.

    `columns` are those of each slice. `intervals` are the candidate's own by CANDIDATE, by another model those of what
    the candidate has more than it. `baselines` are names of models. `not_comparable` says why the blessed model was
    left out, "" where it was not or there is none.
    """

    models: Mapping[str, Slices]
    columns: Mapping[str, list[str]]
    intervals: Mapping[str, Intervals] = field(default_factory=dict)
    baselines: Sequence[str] = ()
    not_comparable: str = ""

    def interval(self, model: str, slice_: str, metric: str) -> Interval | None:
        """Return an interval; None where there is none."""
        return self.intervals.get(model, {}).get(slice_, {}).get(metric)


def judge(gates: Sequence[Gate], evidence: Evidence) -> list[Judgement]:
    """Judge the candidate by every gate. A gate against a blessed model holds while there is none."""
    judgements = []
    for gate in (each for declared in gates for each in _spread(declared, evidence)):
        if gate.against == EACH_BASELINE:
            judgements.append(_not_judged(gate, "the config has no baselines"))
            continue
        if gate.against == BLESSED and BLESSED not in evidence.models:
            judgements.append(_not_judged(gate, evidence.not_comparable or f"no {BLESSED} model yet"))
            continue
        judgements += _by_slices(gate, evidence)
    return judgements


def _spread(gate: Gate, evidence: Evidence) -> list[Gate]:
    """Return a gate for each model that it names."""
    if gate.against == EACH_BASELINE and evidence.baselines:
        names = list(evidence.baselines)
    elif gate.against == BLESSED and BEST in evidence.models:
        names = [BLESSED, BEST]
    else:
        return [gate]
    key = "beats" if gate.beats is not None else "not_below"
    return [gate.model_copy(update={key: name}) for name in names]


def _by_slices(gate: Gate, evidence: Evidence) -> list[Judgement]:
    candidate = evidence.models[CANDIDATE]
    if gate.each is None:
        # All examples are judged even where nothing was evaluated: no verdict is no yes.
        names = [OVERALL]
    else:
        wanted = sorted(gate.each)
        names = sorted(name for name in candidate if sorted(evidence.columns.get(name, [])) == wanted)
    counts = {name: int(candidate.get(name, {}).get("example_count", 0)) for name in names}
    judged = [name for name in names if gate.each is None or counts[name] >= gate.min_examples]
    if not judged:
        of = " x ".join(gate.each or [])
        largest = max(counts.values(), default=0)
        why = f"no slice of {of} has {gate.min_examples:,} examples, the largest has {largest:,}" if names else (
            f"there is no slice of {of}: no test row has a value"
        )  # fmt: skip
        return [_not_judged(gate, why, of)]
    return [_judge(gate, name, counts[name], evidence) for name in judged]


def _not_judged(gate: Gate, why: str, slice_: str = OVERALL) -> Judgement:
    return Judgement(
        describe(gate), slice_, gate.metric, math.nan, math.nan, gate.against, math.nan, 0, True, f"not judged: {why}",
        _direction(gate), judged=False,
    )  # fmt: skip


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
    noise = ", beyond noise" if gate.significant else ""
    floor = f" of {gate.min_examples:,} examples or more" if gate.min_examples else ""
    return f"{gate.metric} {condition}{noise}{each}{floor}"


def _judge(gate: Gate, name: str, examples: int, evidence: Evidence) -> Judgement:
    metrics = evidence.models[CANDIDATE].get(name, {})
    value = metrics.get(gate.metric, math.nan)
    if gate.metric in _RANKING and metrics.get("mean_label") in (0.0, 1.0):
        value = math.nan  # with one class there is nothing to rank, whatever number a library gives
    nan = math.nan

    def judged(limit: float, margin: float, passed: bool, why: str, of_margin: Interval | None = None) -> Judgement:
        if not passed and gate.significant and of_margin is not None and of_margin[1] >= 0:
            passed, why = True, f"{why}, which is within the noise"
        return Judgement(
            describe(gate), name, gate.metric, value, limit, gate.against, margin, examples, passed, why,
            _direction(gate), True, evidence.interval(CANDIDATE, name, gate.metric), of_margin,
        )  # fmt: skip

    if gate.against is not None and gate.against not in evidence.models:
        return _not_judged(gate, f"{gate.against} was not evaluated")
    if math.isnan(value):
        return judged(nan, nan, False, _undefined(gate.metric, name, metrics))
    if gate.against is None:
        limit = gate.at_least if gate.at_least is not None else gate.at_most
        assert limit is not None
        sign = 1 if gate.at_least is not None else -1
        margin = sign * (value - limit)
        word = "reaches" if gate.at_least is not None else "stays under"
        why = f"{value:.4f} {word if margin >= 0 else 'misses'} {limit:g}"
        return judged(
            limit, margin, margin >= 0, why, _moved(evidence.interval(CANDIDATE, name, gate.metric), sign, -limit)
        )
    other = evidence.models[gate.against].get(name, {}).get(gate.metric, nan)
    if math.isnan(other):
        return judged(nan, nan, False, f"{gate.metric} of {gate.against} cannot be computed on {name}")
    sign = -1 if lower_is_better(gate.metric) else 1
    better_by, slack = sign * (value - other), -gate.by if gate.beats is not None else gate.by
    margin = better_by + slack
    passed = margin > 0 if gate.beats is not None and not gate.by else margin >= -1e-12
    comparison = "better" if better_by >= 0 else "worse"
    return judged(
        other - sign * slack,
        margin,
        passed,
        f"{value:.4f} is {abs(better_by):.4f} {comparison} than {gate.against}'s {other:.4f}",
        _moved(evidence.interval(gate.against, name, gate.metric), sign, sign * slack),
    )


def _moved(interval: Interval | None, sign: int, by: float) -> Interval | None:
    """Return the interval of sign * (x + by), where `interval` is x's."""
    if interval is None:
        return None
    low, high = sorted(sign * (bound + by) for bound in interval)
    return low, high


def _direction(gate: Gate) -> Direction:
    down = gate.at_most is not None or (gate.against is not None and lower_is_better(gate.metric))
    return Direction.AT_MOST if down else Direction.AT_LEAST


def _undefined(metric: str, name: str, metrics: Metrics) -> str:
    count, mean = metrics.get("example_count", 0), metrics.get("mean_label", math.nan)
    if mean in (0.0, 1.0):
        return (
            f"{metric} cannot be computed on {name}: all {count:,.0f} labels are {'positive' if mean else 'negative'}; "
            "raise the gate's min_examples or drop the slice"
        )
    return f"{metric} cannot be computed on {name} ({count:,.0f} examples)"
