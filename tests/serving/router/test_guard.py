from __future__ import annotations

import asyncio
import json
import threading

import pytest

from configs.serving import Rollback
from serving.experiment.loss import Loss, Rate
from serving.release_state import CANARY, STABLE, Route
from serving.router import guard as guard_module
from serving.router.account import ArmReport, Evidence
from serving.router.guard import Guard, Report, report_file, violated
from serving.router.main import repeat
from serving.router.split import Split, choose_arm

NEVER = Evidence(1e-9, 1e-9, 1e-9)


def arm(requests=1000, errors=0, p99=10.0, mean=0.1):
    return ArmReport(requests, errors, p99 / 2, p99, mean, (0.1,) * 9, 0)


def loss(difference=-0.01, p_value=1e-6, sample_ratio_p=1.0):
    return Loss(difference, (difference - 0.005, difference + 0.005), p_value, sample_ratio_p)


@pytest.mark.parametrize(
    ("canary", "evidence", "clicks", "text"),
    [
        (arm(), Evidence(), None, None),
        (arm(requests=10, errors=10), NEVER, None, None),  # too few to judge
        (ArmReport(), Evidence(), None, None),
        (arm(errors=50), Evidence(errors=1e-6), None, "5.00% of the canary's requests failed"),
        (arm(errors=50), Evidence(errors=0.01), None, None),  # the three share one per cent
        (arm(p99=30.0), Evidence(p99=1e-6), None, "p99 is 30.0 ms"),
        (arm(p99=30.0), Evidence(), None, None),
        (arm(mean=0.9), Evidence(score_shift=1e-6), None, "mean score"),
        (arm(), Evidence(), loss(), "click-through rate is 0.0100 below"),
        (arm(), Evidence(), loss(p_value=0.02), None),
        (arm(), Evidence(), loss(sample_ratio_p=1e-6), None),
    ],
)
def test_what_a_canary_is_taken_back_for(canary, evidence, clicks, text):
    report = Report(
        "m", 0.0, {STABLE: 1, CANARY: 2}, Route(10), {STABLE: arm(), CANARY: canary},
        {STABLE: Rate(3, 100, 50.0)}, None, loss=clicks, evidence=evidence,
    )  # fmt: skip
    reason = violated(Rollback(max_score_shift=0.5), report)
    assert reason is None if text is None else text in reason
    assert Report.from_json(report.as_json()) == report


def test_reports_of_earlier_releases_are_read():
    old = {
        "model": "m", "since": 5.0, "labels": {"stable": 1}, "route": {"canary_percent": 0.0, "shadow_percent": 0.0},
        "arms": {"stable": {"requests": 3, "errors": 0}}, "p_value": 0.5, "unread": 1,
        "rates": {"stable": {"clicks": 1, "impressions": 2, "value": 0.5, "interval": [0.1, 0.9]}},
    }  # fmt: skip
    assert Report.from_json(json.dumps(old)).rates == {STABLE: Rate(1, 2)}


def make_guard(release, *clicks, **conditions):
    return Guard(Split(release, Rollback(check_seconds=0.01, **conditions)), [str(each) for each in clicks])


def fail(guard, users):
    for number in range(users):
        guard.split.account.failed(CANARY, guard.split.account.asker(f"user {number}", 100, 10.0))


def test_a_bad_canary_is_rolled_back_once_and_the_report_says_so(release):
    release.canary(10, version=2)
    guard = make_guard(release)
    fail(guard, 300)
    reason = guard.look()
    assert "100.00% of the canary's requests failed" in reason
    assert release.standing().labels == {STABLE: 1}
    assert release.history()[-1].why == f"automatic: {reason}"
    assert guard.look() is None
    assert Report.from_json(report_file(release).read_text()).arms[CANARY].errors == 300
    assert guard.split.metrics.rollbacks.value() == 1


def test_what_another_canary_did_is_not_held_against_this_one(release):
    release.canary(10, version=3)
    guard = make_guard(release)
    fail(guard, 300)
    release.rollback()
    release.canary(10, version=3)  # another start of the same version, before the split is looked at
    assert guard.look() is None
    assert guard.report().arms[CANARY] == ArmReport()


@pytest.fixture
def shown(release, tmp_path):
    """A guard that has noted what 4000 users were shown."""
    release.canary(50, version=2)
    guard = make_guard(release, tmp_path / "clicks-*.jsonl")
    users = [f"user {number}" for number in range(4000)]
    for user in users:
        guard.shown(user, ["film"])
    return guard, users, json.loads((tmp_path / "m.exposures.jsonl").read_text().splitlines()[-1])["time"]


def write_clicks(folder, guard, users, now, every):
    clicked = [user for n, user in enumerate(users) if n % every[choose_arm(user, guard.split.route)] == 0]
    lines = [json.dumps({"time": now + 1, "user": user, "item": "film"}) for user in clicked]
    (folder / "clicks-1.jsonl").write_text("\n".join(lines) + "\n")
    return clicked


def test_clicks_are_joined_and_a_router_that_starts_again_goes_on(release, tmp_path, shown):
    guard, users, now = shown
    clicked = write_clicks(tmp_path, guard, users, now, {STABLE: 2, CANARY: 3})
    report = guard.report()
    stable, canary = report.rates[STABLE], report.rates[CANARY]
    assert stable.impressions + canary.impressions == 4000
    assert stable.clicks + canary.clicks == len(clicked)
    assert report.loss.difference == pytest.approx(canary.value - stable.value)
    assert report.loss.comparable
    fewer = make_guard(release, tmp_path / "clicks-*.jsonl", max_ctr_p_value=0.0)
    assert fewer.look() is None
    again = make_guard(release, tmp_path / "clicks-*.jsonl")
    assert again.report().rates == report.rates
    assert again.split.account.since == fewer.report().since
    assert "click-through rate is" in again.look()
    over = make_guard(release, tmp_path / "clicks-*.jsonl")
    assert over.report().rates == {}  # that canary is over
    release.canary(50, version=2)
    assert over.look() is None
    assert over.report().rates == {}  # and its showings are not the next one's


def test_the_guard_and_the_report_count_each_line_once(tmp_path, shown):
    guard, users, now = shown
    clicked = write_clicks(tmp_path, guard, users, now, {STABLE: 2, CANARY: 2})
    threads = [threading.Thread(target=guard.report) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rates = guard.report().rates
    assert sum(rate.impressions for rate in rates.values()) == 4000
    assert sum(rate.clicks for rate in rates.values()) == len(clicked)


def test_bad_lines_and_folders_do_not_blind_the_guard(release, tmp_path):
    release.canary(10, version=2)
    guard = make_guard(release, tmp_path / "clicks-*.jsonl")
    (tmp_path / "clicks-0.jsonl").mkdir()
    bad = ['{"time": ' + "9" * 400 + ', "user": "u", "item": "a"}', "[" * 100_000]
    (tmp_path / "clicks-1.jsonl").write_text("\n".join(bad) + "\n")
    fail(guard, 412)
    assert "failed" in guard.look()
    report = guard.report()
    assert (report.unread, report.unreadable) == (2, 1)


def test_clicks_that_cannot_be_joined_do_not_blind_the_guard(release, tmp_path, monkeypatch):
    release.canary(10, version=2)
    guard = make_guard(release, tmp_path / "clicks-*.jsonl")
    monkeypatch.setattr(guard_module.ClickLog, "read", lambda *_: 1 / 0)
    fail(guard, 412)
    assert "failed" in guard.look()
    assert guard.split.metrics.guard_failures.value("clicks") == 1


def test_exposures_are_rotated_and_the_oldest_go(release, tmp_path, monkeypatch):
    monkeypatch.setattr(guard_module, "EXPOSURE_FILE_BYTES", 1000)
    monkeypatch.setattr(guard_module, "EXPOSURE_FILES", 3)
    release.canary(50, version=2)
    guard = make_guard(release)
    for number in range(100):
        guard.shown(f"user {number}", ["film"])
        if number % 5 == 0:
            guard.report()
    assert sum(rate.impressions for rate in guard.report().rates.values()) == 100
    assert len(list(tmp_path.glob("m.exposures*.jsonl"))) <= 3


def test_a_look_that_fails_is_logged_and_counted_and_the_next_one_is_made(release, caplog, monkeypatch):
    release.canary(10, version=2)
    guard = make_guard(release)
    fail(guard, 300)
    calls = []
    look = guard.look

    def fails_at_first():
        calls.append(1)
        if len(calls) < 3:
            raise OverflowError("int too large to convert to float")
        return look()

    async def watch():
        task = asyncio.create_task(repeat("guard", fails_at_first, 0.01, guard.split.metrics))
        async with asyncio.timeout(20):
            while guard.split.metrics.rollbacks.value() == 0:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(watch())
    assert "int too large" in caplog.text
    assert guard.split.metrics.guard_failures.value("guard") == 2
    assert release.standing().labels == {STABLE: 1}
