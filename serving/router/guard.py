"""The guard: looks at the arms again and again, keeps the report, and rolls back a canary that breaks a condition."""

from __future__ import annotations

import glob
import json
import logging
import math
import os
import pathlib
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import orjson
from pydantic import TypeAdapter

from configs.serving import Rollback
from serving.experiment.clicks import ClickJoin, ClickLog, Exposure, append_rows
from serving.experiment.loss import Loss, LossTest, Rate
from serving.release import Release
from serving.release_state import CANARY, STABLE, Route, replace_file
from serving.router.account import Account, ArmReport, Evidence
from serving.router.split import Split, choose_arm

log = logging.getLogger("recsys-router")

EXPOSURE_FILE_BYTES = 64 << 20
EXPOSURE_FILES = 16
CLICKS_SHARE = 20  # reading clicks waits this many times as long as it took, so that it never takes a core


@dataclass(frozen=True)
class Report:
    """Both arms since the canary began, the evidence, and click-through rates where clicks were joined."""

    model: str
    since: float
    labels: dict[str, int]
    route: Route
    arms: dict[str, ArmReport]
    rates: dict[str, Rate] = field(default_factory=dict)
    p_value: float | None = None
    unread: int = 0  # lines of exposures and clicks that are not what they should be
    loss: Loss | None = None
    evidence: Evidence = field(default_factory=Evidence)
    unreadable: int = 0  # files that match and cannot be read

    def as_json(self) -> str:
        """The report as JSON, rates with their value and 95 % interval."""
        tree = asdict(self)
        for arm, rate in self.rates.items():
            tree["rates"][arm] |= {"value": None if math.isnan(rate.value) else rate.value, "interval": rate.interval()}
        return json.dumps(tree, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What `as_json` wrote, now or in an earlier release; ValueError where it is something else."""
        return TypeAdapter(cls).validate_json(text)


class Guard:
    """Watches the canary of one split. Every method may be called from any thread."""

    def __init__(self, split: Split, clicks: Sequence[str] = ()):
        """`clicks` are globs of click logs: JSON lines with `time` (seconds since 1970), `user` and `item`."""
        self.split = split
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._report_file = report_file(split.release)
        self._exposures_file = split.release.config_file.with_name(f"{split.model}.exposures.jsonl")
        exposures = [glob.escape(str(self._exposures_file.with_suffix(""))) + end for end in (".jsonl", "-*.jsonl")]
        self._globs = exposures, clicks
        self._log = ClickLog(*self._globs)
        self._account: Account | None = None
        self._test, self._join = LossTest(), ClickJoin(LossTest())
        self._loss: Loss | None = None
        self._rates: dict[str, Rate] = {}
        self._read_again = -math.inf
        self._resume()

    def shown(self, user: str, items: Iterable[str]) -> None:
        """Note that these items were put before the user, for the click-through rate. Raises OSError."""
        route, canary = self.split.route, self.split.canary
        arm, now = choose_arm(user, route), time.time()
        rows = [Exposure(now, user, item, arm, route.canary_percent, canary).as_row() for item in items]
        with self._writing:
            size = append_rows(self._exposures_file, b"".join(orjson.dumps(row) + b"\n" for row in rows))
            if size >= EXPOSURE_FILE_BYTES:
                self._rotate()

    def report(self) -> Report:
        """Both arms so far."""
        with self._lock:
            return self._report()

    def look(self) -> str | None:
        """Keep the report beside the release state, and roll a canary back that breaks a condition: why, or None."""
        with self._lock:
            self.split.refresh()  # what another canary did must not be held against this one
            report = self._report()
            replace_file(self._report_file, report.as_json() + "\n")
            self.split.metrics.looks.add()
            self.split.metrics.last_look.set(to=time.time())
            if CANARY not in report.labels:
                return None
            reason = violated(self.split.conditions, report)
            if reason:
                self.split.release.rollback(canary=report.labels[CANARY], why=f"automatic: {reason}")
                self.split.metrics.rollbacks.add()
                self.split.refresh()
            return reason

    def _report(self) -> Report:
        split = self.split
        account, route, labels = split.account, split.route, split.labels
        if account is not self._account:
            self._begin(account)
        try:
            self._read_clicks()
        except Exception:  # the other conditions are looked at all the same
            split.metrics.guard_failures.add("clicks")
            log.exception("clicks could not be joined; they are read again from the start")
            self._log = ClickLog(*self._globs)
            self._begin(account, self._loss.p_value if self._loss else 1.0)
        return Report(
            model=split.model,
            since=account.since,
            labels=labels,
            route=route,
            arms=account.arms(),
            rates=self._rates,
            p_value=self._loss.p_value if self._loss else None,
            unread=self._log.unread,
            loss=self._loss,
            evidence=account.evidence(),
            unreadable=self._log.unreadable,
        )

    def _read_clicks(self) -> None:
        start = time.monotonic()
        if start < self._read_again:
            return
        self._log.read(self._join, self.split.canary)
        self._loss, self._rates = self._test.look(), self._test.rates()
        took = time.monotonic() - start
        self._read_again = start + took * CLICKS_SHARE if took > 0.05 else start
        self.split.metrics.unread_lines.set(to=self._log.unread)
        self.split.metrics.unreadable_files.set(to=self._log.unreadable)

    def _begin(self, account: Account, p_value: float = 1.0) -> None:
        self._account = account
        self._test = LossTest(p_value)
        self._join = ClickJoin(self._test)
        self._loss, self._rates, self._read_again = None, {}, -math.inf

    def _resume(self) -> None:
        """A router that starts again goes on with the canary under way: its showings and clicks are read again."""
        try:
            last = Report.from_json(self._report_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        split = self.split
        if last.route.salt == split.route.salt and last.labels.get(CANARY) == split.labels.get(CANARY):
            split.account.since = last.since
            # What an earlier release found was two-sided and without users: it is not gone on with.
            self._begin(split.account, last.loss.p_value if last.loss else 1.0)

    def _rotate(self) -> None:
        """Begin another file of exposures, and delete the oldest where there are too many."""
        stem = str(self._exposures_file.with_suffix(""))
        os.rename(self._exposures_file, f"{stem}-{time.time_ns():020d}.jsonl")
        for path in sorted(glob.glob(glob.escape(stem) + "-*.jsonl"))[: 1 - EXPOSURE_FILES]:
            pathlib.Path(path).unlink(missing_ok=True)


def report_file(release: Release) -> pathlib.Path:
    """Where a router keeps its report."""
    return release.config_file.with_name(f"{release.model}.arms.json")


def violated(conditions: Rollback, report: Report) -> str | None:
    """Why the canary must go, or None.

    Errors, latency and scores share `max_false_alarm`; click-through rates have `max_ctr_p_value` for themselves.
    """
    canary, evidence = report.arms[CANARY], report.evidence
    alpha = conditions.max_false_alarm / 3
    if canary.requests >= conditions.min_requests:
        if evidence.errors < alpha:
            return f"{canary.error_rate:.2%} of the canary's requests failed; {conditions.max_error_rate:.2%} may"
        if report.arms[STABLE].requests >= conditions.min_requests:
            reason = _slower(conditions, report, alpha) or _shifted(conditions, report, alpha)
            if reason:
                return reason
    loss = report.loss
    if loss is None or not loss.comparable or loss.p_value >= conditions.max_ctr_p_value:
        return None
    return (
        f"the canary's click-through rate is {-loss.difference:.4f} below the stable version's "
        f"(sequential p = {loss.p_value:.2g})"
    )


def _slower(conditions: Rollback, report: Report, alpha: float) -> str | None:
    stable, canary = report.arms[STABLE], report.arms[CANARY]
    if report.evidence.p99 >= alpha or canary.p99_ms is None or stable.p99_ms is None:
        return None
    return (
        f"the canary's p99 is {canary.p99_ms:.1f} ms, more than {conditions.max_p99_ratio:g} times the stable "
        f"version's {stable.p99_ms:.1f} ms"
    )


def _shifted(conditions: Rollback, report: Report, alpha: float) -> str | None:
    stable, canary, shift = report.arms[STABLE], report.arms[CANARY], report.evidence.score_shift
    if shift is None or shift >= alpha or canary.score_mean is None or stable.score_mean is None:
        return None
    return (
        f"the canary's mean score is {canary.score_mean:.4g}, the stable version's {stable.score_mean:.4g}: "
        f"more than {conditions.max_score_shift:g} apart"
    )
