"""Counters and samplers under TensorFlow Serving's names, in Prometheus' text form.

prometheus_client cannot be used: it appends `_total` to every counter, and TensorFlow Serving's dashboards query names
without it.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator


def exponential(scale: float, growth: float, count: int) -> list[float]:
    """`count` bucket limits: scale, scale * growth, ..."""
    return [scale * growth**power for power in range(count)]


LATENCY_MICROS = exponential(10, 1.8, 33)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _labels(names: tuple[str, ...], values: tuple[str, ...], *more: str) -> str:
    pairs = [f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join([*pairs, *more]) + "}" if pairs or more else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


class Counter:
    """A count that only grows, by label values."""

    kind = "counter"

    def __init__(self, name: str, *labels: str):
        self.name = name
        self.labels = labels
        self._cells: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, *values: str, by: float = 1) -> None:
        """Add to the cell of these label values."""
        with self._lock:
            self._cells[values] = self._cells.get(values, 0) + by

    def value(self, *values: str) -> float:
        """What the cell of these label values holds."""
        return self._cells.get(values, 0)

    def lines(self) -> Iterator[str]:
        """The lines of Prometheus' text form."""
        for values, count in sorted(self._cells.copy().items()):
            yield f"{self.name}{_labels(self.labels, values)} {_number(count)}"


class Gauge(Counter):
    """A value that goes up and down, by label values."""

    kind = "gauge"

    def set(self, *values: str, to: float) -> None:
        """Set the cell of these label values."""
        with self._lock:
            self._cells[values] = to


class Sampler:
    """A distribution over fixed buckets, by label values."""

    kind = "histogram"

    def __init__(self, name: str, limits: list[float], *labels: str):
        self.name = name
        self.labels = labels
        self._limits = limits
        self._cells: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def add(self, *values: str, sample: float) -> None:
        """Count a sample into its bucket."""
        with self._lock:
            cell = self._cells.get(values)
            if cell is None:
                cell = self._cells[values] = ([0] * (len(self._limits) + 1), [0.0])
            cell[0][bisect.bisect_right(self._limits, sample)] += 1
            cell[1][0] += sample

    def lines(self) -> Iterator[str]:
        """The lines of Prometheus' text form."""
        for values, (counts, total) in sorted(self._cells.copy().items()):
            cumulative = list(itertools.accumulate(counts))
            for limit, count in zip([*self._limits, None], cumulative, strict=True):
                le = "+Inf" if limit is None else f"{limit:g}"
                yield f"{self.name}_bucket{_labels(self.labels, values, f'le={chr(34)}{le}{chr(34)}')} {count}"
            yield f"{self.name}_sum{_labels(self.labels, values)} {_number(total[0])}"
            yield f"{self.name}_count{_labels(self.labels, values)} {cumulative[-1]}"


class ServerMetrics:
    """Every metric the server exports. Names starting `:tensorflow` are TensorFlow Serving's own."""

    def __init__(self) -> None:
        serving = ":tensorflow:serving:"
        self.request_count = Counter(serving + "request_count", "model_name", "status")
        self.request_latency = Sampler(serving + "request_latency", LATENCY_MICROS, "model_name", "API", "entrypoint")
        self.runtime_latency = Sampler(serving + "runtime_latency", LATENCY_MICROS, "model_name", "API", "runtime")
        self.example_counts = Sampler(serving + "request_example_counts", exponential(1, 2, 15), "model")
        self.example_count_total = Counter(serving + "request_example_count_total", "model")
        self.request_log_count = Counter(serving + "request_log_count", "model_name", "status")
        self.warmup_latency = Sampler(serving + "model_warmup_latency", LATENCY_MICROS, "model_path", "status")
        self.queuing_latency = Sampler(serving + "batching_session:queuing_latency", LATENCY_MICROS, "model_name")
        self.wrapped_run_count = Counter(serving + "batching_session:wrapped_run_count", "model_name")
        self.load_attempt_count = Counter(":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status")
        self.load_latency = Counter(":tensorflow:cc:saved_model:load_latency", "model_path")
        self.available_version = Gauge(":recsys:serving:available_version", "model_name", "version")

    def text(self) -> str:
        """The whole page in Prometheus' text form."""
        lines = []
        for metric in vars(self).values():
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.extend(metric.lines())
        return "\n".join(lines) + "\n"
