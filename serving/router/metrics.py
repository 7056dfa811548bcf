"""What the router counts, in Prometheus' text form. Label values are the router's own words: clients cannot add any."""

from __future__ import annotations

from serving.server.metrics import Counter, Gauge


class RouterMetrics:
    """Every metric of the router."""

    def __init__(self) -> None:
        router = ":recsys:router:"
        self.requests = Counter(router + "request_count", "arm", "outcome")
        self.shadows = Counter(router + "shadow_count", "outcome")
        self.refused_states = Counter(router + "unreadable_state_count")
        self.looks = Counter(router + "guard_look_count")
        self.guard_failures = Counter(router + "guard_failure_count", "part")
        self.rollbacks = Counter(router + "rollback_count")
        self.exposures = Counter(router + "exposure_count", "status")
        self.unread_lines = Gauge(router + "unread_lines")
        self.unreadable_files = Gauge(router + "unreadable_files")
        self.last_look = Gauge(router + "guard_last_look_seconds")

    def text(self) -> str:
        """The whole page in Prometheus' text form."""
        lines = []
        for metric in vars(self).values():
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.extend(metric.lines())
        return "\n".join(lines) + "\n"
