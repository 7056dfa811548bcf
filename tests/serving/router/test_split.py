from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.serving import Rollback
from serving.release_state import CANARY, STABLE, Route
from serving.router.split import Split, canary_id, choose_arm, share
from serving.server.status import ServingError

ANYTHING = st.text(st.characters())  # lone surrogates too


@given(user=ANYTHING, percent=st.floats(0, 100), more=st.floats(0, 100), salt=st.text(max_size=5))
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
    assert canary_id("7") != canary_id("8")
    assert "7" * 32 not in canary_id("7" * 32)


def test_a_split_that_cannot_be_read_leaves_the_last_one_in_force(release, caplog):
    release.canary(40, version=2)
    split = Split(release, Rollback())
    account, route = split.account, split.route
    good = release.routes_file.read_text()
    for bad in ("{", "[" * 100_000, '{"m": {"canary_percent": 1e999}}', '{"m": 3}'):
        release.routes_file.write_text(bad)
        split.refresh()
        assert (split.route, split.labels) == (route, {STABLE: 1, CANARY: 2})
    release.routes_file.unlink()
    release.routes_file.mkdir()
    split.refresh()
    assert split.route == route
    assert "the last split stays in force" in caplog.text
    assert split.metrics.refused_states.value() == 5
    release.routes_file.rmdir()
    release.routes_file.write_text(good)
    split.refresh()
    assert split.account is account
    release.config_file.write_text("no config {")
    split.refresh()
    assert split.labels == {STABLE: 1, CANARY: 2}


def test_a_router_that_starts_without_a_readable_split_sends_all_to_the_stable_version(release):
    release.canary(40, version=2)
    release.routes_file.write_text("{")
    assert Split(release, Rollback()).route == Route()
    release.config_file.write_text("no config {")
    with pytest.raises(ServingError, match=r"models\.config"):
        Split(release, Rollback())  # nothing says whether there is a stable version


def test_accounts_start_anew_with_another_canary(release):
    release.canary(10, version=2)
    split = Split(release, Rollback())
    first = split.account
    release.canary(20, version=2)  # more users of the same canary
    split.refresh()
    assert split.account is first
    release.rollback()
    split.refresh()
    assert split.account is first
    release.canary(10, version=2)  # another start of the same version
    split.refresh()
    assert split.account is not first
