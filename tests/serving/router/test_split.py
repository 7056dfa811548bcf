from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.serving import Rollback
from serving.experiment import Rate
from serving.release import CANARY, STABLE, Release, Route
from serving.router.split import ArmReport, Report, Split, choose_arm, report_file, share, violated


@pytest.fixture
def release(tmp_path):
    for version in (1, 2, 3):
        (tmp_path / "m" / str(version)).mkdir(parents=True)
    release = Release(tmp_path / "models.config", "m", base_path=str(tmp_path / "m"))
    release.promote(1)
    return release


@given(user=st.text(), percent=st.floats(0, 100), more=st.floats(0, 100), salt=st.text(max_size=5))
def test_a_larger_share_only_adds_users(user, percent, more, salt):
    few, many = sorted([percent, more])
    if choose_arm(user, Route(few, 0, salt)) == CANARY:
        assert choose_arm(user, Route(many, 0, salt)) == CANARY
    assert 0 <= share(user, salt) < 100


def test_shares_are_kept_and_the_unknown_stay_stable():
    users = [f"user {number}" for number in range(20_000)]
    in_canary = {user for user in users if choose_arm(user, Route(10, 0, "7")) == CANARY}
    assert len(in_canary) / len(users) == pytest.approx(0.10, abs=0.01)
    assert choose_arm("anyone", Route(0)) == STABLE
    assert choose_arm("anyone", Route(100)) == CANARY
    assert choose_arm(None, Route(100)) == STABLE
    assert share("user 1", "7") != share("user 1", "8")


def arm(requests=1000, errors=0, p99=10.0, mean=0.1):
    return ArmReport(requests, errors, p99 / 2, p99, mean, (0.1,) * 9, 0)


@pytest.mark.parametrize(
    ("canary", "rates", "p_value", "text"),
    [
        (arm(), {}, None, None),
        (arm(requests=10, errors=10), {}, None, None),  # too few to judge
        (ArmReport(), {}, None, None),
        (arm(errors=50), {}, None, "5.00% of the canary's requests failed"),
        (arm(p99=30.0), {}, None, "p99 is 30.0 ms"),
        (arm(mean=0.9), {}, None, "mean score"),
        (arm(), {STABLE: Rate(5000, 100_000), CANARY: Rate(4000, 100_000)}, 1e-9, "click-through rate is 0.0400"),
        (arm(), {STABLE: Rate(5000, 100_000), CANARY: Rate(4990, 100_000)}, 0.9, None),
        (arm(), {STABLE: Rate(4000, 100_000), CANARY: Rate(5000, 100_000)}, 1e-9, None),
    ],
)
def test_what_a_canary_is_taken_back_for(canary, rates, p_value, text):
    report = Report("m", 0.0, {STABLE: 1, CANARY: 2}, Route(10), {STABLE: arm(), CANARY: canary}, rates, p_value)
    reason = violated(Rollback(max_score_shift=0.5), report)
    assert reason is None if text is None else text in reason
    assert Report.from_json(report.as_json()) == report


def test_a_bad_canary_is_rolled_back_once_and_the_report_says_so(release):
    release.canary(10, version=2)
    split = Split(release)
    for _ in range(300):
        split.count(STABLE, 0.001, [0.5])
        split.failed(CANARY)
    reason = split.guard(Rollback())
    assert "100.00% of the canary's requests failed" in reason
    assert release.standing().labels == {STABLE: 1}
    assert release.history()[-1].why == f"automatic: {reason}"
    assert split.guard(Rollback()) is None
    assert Report.from_json(report_file(release).read_text()).arms[CANARY].errors == 300


def test_accounts_start_anew_with_another_canary(release):
    release.canary(10, version=2)
    split = Split(release)
    split.count(CANARY, 0.002, [0.1, 0.3])
    release.canary(20, version=2)  # more users of the same canary
    split.route(fresh=True)
    report = split.report().arms[CANARY]
    assert (report.requests, report.score_mean, report.p50_ms) == (1, pytest.approx(0.2), pytest.approx(2.0))
    release.canary(10, version=3)
    split.route(fresh=True)
    assert split.report().arms[CANARY] == ArmReport()
    for _ in range(300):
        split.failed(CANARY)
    release.rollback()
    release.canary(10, version=3)  # another start of the same version, within the second that a route is kept
    assert split.guard(Rollback()) is None
    assert split.report().arms[CANARY] == ArmReport()


def test_clicks_are_joined_and_a_router_that_starts_again_goes_on(release, tmp_path):
    release.canary(50, version=2)
    clicks = tmp_path / "clicks-1.jsonl"
    split = Split(release, [str(tmp_path / "clicks-*.jsonl")])
    users = [f"user {number}" for number in range(4000)]
    for user in users:
        split.shown(user, ["film"])
    now = json.loads(split.exposures_file.read_text().splitlines()[-1])["time"]
    clicked = [user for n, user in enumerate(users) if n % (2 if choose_arm(user, split.route()) == STABLE else 8) == 0]
    lines = [json.dumps({"time": now + 1, "user": user, "item": "film"}) for user in clicked]
    clicks.write_text("\n".join([*lines, "no json", '{"time": 1}', '{"time": 2, "us']))
    report = split.report()
    stable, canary = report.rates[STABLE], report.rates[CANARY]
    assert stable.impressions + canary.impressions == 4000
    assert stable.clicks + canary.clicks == len(clicked)
    assert canary.interval()[1] < stable.interval()[0]
    assert report.unread == 2  # the last line is still being written
    with clicks.open("a") as log:
        log.write(f'er": "{users[0]}", "item": "film"}}\n')
    assert split.report().unread == 2
    reason = split.guard(Rollback())
    assert "click-through rate is" in reason
    again = Split(release, [str(tmp_path / "clicks-*.jsonl")])
    assert again.report().rates == {}  # that canary is over


def test_counts_survive_a_restart_of_the_router(release):
    release.canary(50, version=2)
    split = Split(release)
    split.shown("ann", ["film"])
    split.guard(Rollback())
    report = Split(release).report()
    assert sum(rate.impressions for rate in report.rates.values()) == 1
    assert report.since == Report.from_json(report_file(release).read_text()).since
