from __future__ import annotations

import itertools
import json
import threading

import pytest
from google.protobuf import text_format

from serving.client import connect, connect_async
from serving.experiment import Rate
from serving.release import CANARY, STABLE, Release, Route, reload_by_rpc
from serving.router import ArmReport, RollbackConditions, Router, choose_arm, guard, share
from serving.server.status import Code, ServingError
from tests.serving import saved_models


@pytest.fixture
def served(tmp_path):
    base = tmp_path / "m"
    for version in (1, 2, 3):
        (base / str(version)).mkdir(parents=True)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base}" model_platform: "tensorflow" }} '
        f'config {{ name: "other" base_path: "{base}" model_platform: "tensorflow" }} }}'
    )
    return config


class LikeTensorFlowServing:
    """Loads first, then labels; refuses a label on what is not loaded, as the real one does."""

    def __init__(self, broken=()):
        self.loaded, self.broken, self.seen = set(), set(broken), []

    def __call__(self, config):
        entry = config.model_config_list.config[0]
        versions = set(entry.model_version_policy.specific.versions)
        if versions & self.broken:
            raise ServingError(Code.UNKNOWN, "1 model(s) did not become available")
        already = set(self.loaded)
        for label, version in entry.version_labels.items():
            if version not in already:
                raise ServingError(Code.FAILED_PRECONDITION, f"label {label} on version {version}: not loaded")
        self.loaded = versions
        self.seen.append((sorted(versions), dict(entry.version_labels)))


def test_a_release_goes_its_way(served):
    server = LikeTensorFlowServing()
    release = Release(served, "m", apply=server, who="ann")
    assert release.promote(1, why="first").labels == {STABLE: 1}
    standing = release.canary(5, why="try it")
    assert (standing.labels, standing.route.canary_percent) == ({STABLE: 1, CANARY: 3}, 5)
    assert release.canary(20).route.salt == standing.route.salt  # the users of the 5 % stay in the 20 %
    standing = release.promote(why="better")
    assert (standing.labels, standing.route) == ({STABLE: 3}, Route())
    assert server.loaded == {1, 3}  # the last stable version waits for a rollback
    assert release.rollback(why="worse").labels == {STABLE: 1}
    assert release.pin(2).versions == [2]
    history = release.history()
    assert [(each.who, each.action, each.why) for each in history][:2] == [
        ("ann", "promote", "first"),
        ("ann", "canary", "try it"),
    ]
    assert history[-2].before["labels"] == {STABLE: 3}
    assert history[-2].after["labels"] == {STABLE: 1}
    entry = text_format.Parse(served.read_text(), _config()).model_config_list.config
    assert [each.name for each in entry] == ["m", "other"]
    assert not entry[1].version_labels


def _config():
    from tensorflow_serving.config import model_server_config_pb2

    return model_server_config_pb2.ModelServerConfig()


def test_rollback_ends_a_canary_first(served):
    release = Release(served, "m", apply=LikeTensorFlowServing())
    release.promote(1)
    release.canary(50, version=2)
    standing = release.rollback()
    assert (standing.labels, standing.route.canary_percent) == ({STABLE: 1}, 0)
    with pytest.raises(ServingError, match="no earlier stable version"):
        release.rollback()


def test_a_version_that_does_not_load_changes_nothing(served):
    release = Release(served, "m", apply=LikeTensorFlowServing(broken=[2]))
    release.promote(1)
    before, history = served.read_text(), release.history()
    for change in (lambda: release.canary(10, version=2), lambda: release.promote(2), lambda: release.pin(2)):
        with pytest.raises(ServingError):
            change()
        assert served.read_text() == before
        assert release.standing().route == Route()
    assert release.history() == history


def test_mistakes_are_named(served, tmp_path):
    release = Release(served, "m")
    for change, text in [
        (lambda: release.canary(10), "no stable version yet"),
        (lambda: release.canary(101), "between 0 and 100"),
        (lambda: release.promote(9), "version 9 of model 'm' is not under"),
        (lambda: Release(served, "x").promote(), "has no model 'x'"),
        (lambda: Release(tmp_path / "no.config", "m").promote(), "recsys deploy files"),
    ]:
        with pytest.raises(ServingError, match=text):
            change()
    release.promote(3)
    with pytest.raises(ServingError, match="is the stable one"):
        release.canary(10, version=3)


def test_changes_made_at_once_come_one_after_the_other(served):
    release = Release(served, "m")
    release.promote(1)
    threads = [threading.Thread(target=Release(served, "m").promote, args=(1 + n % 3,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = release.history()
    assert len(history) == 13
    assert all(earlier.after == later.before for earlier, later in itertools.pairwise(history))


def test_users_stay_in_their_arm_and_shares_are_kept():
    users = [f"user {number}" for number in range(20_000)]
    in_canary = {user for user in users if choose_arm(user, Route(10, 0, "7")) == CANARY}
    assert len(in_canary) / len(users) == pytest.approx(0.10, abs=0.01)
    assert in_canary <= {user for user in users if choose_arm(user, Route(30, 0, "7")) == CANARY}
    assert choose_arm("anyone", Route(0)) == STABLE
    assert choose_arm("anyone", Route(100)) == CANARY
    assert share("user 1", "7") == pytest.approx(share("user 1", "7"))
    assert share("user 1", "7") != share("user 1", "8")


def arm(requests=1000, errors=0, p99=10.0, mean=0.1):
    return ArmReport(requests, errors, p99 / 2, p99, mean, (0.1,) * 9, 0)


@pytest.mark.parametrize(
    ("canary", "rates", "text"),
    [
        (arm(), None, None),
        (arm(requests=10, errors=10), None, None),  # too few to judge
        (arm(errors=50), None, "5.00% of the canary's requests failed"),
        (arm(p99=30.0), None, "p99 is 30.0 ms"),
        (arm(mean=0.9), None, "mean score"),
        (arm(), {STABLE: Rate(5000, 100_000), CANARY: Rate(4000, 100_000)}, "click-through rate is 0.0400"),
        (arm(), {STABLE: Rate(4000, 100_000), CANARY: Rate(5000, 100_000)}, None),
    ],
)
def test_a_bad_canary_is_taken_back(served, canary, rates, text):
    release = Release(served, "m")
    release.promote(1)
    release.canary(10, version=2)
    reason = guard(release, {STABLE: arm(), CANARY: canary}, RollbackConditions(max_score_shift=0.5), rates)
    if text is None:
        assert reason is None
        assert CANARY in release.standing().labels
    else:
        assert text in reason
        assert CANARY not in release.standing().labels
        assert release.history()[-1].why == f"automatic: {reason}"
        assert guard(release, {STABLE: arm(), CANARY: canary}, RollbackConditions(), rates) is None


@pytest.mark.slow
def test_a_release_on_a_real_server_survives_kill_9(start_server, tmp_path):
    import asyncio

    base = tmp_path / "ranking"
    for version in (1, 2, 3):
        saved_models.ranking(base, version, offset=float(version))
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "ranking" base_path: "{base}" model_platform: "tensorflow" }} }}'
    )
    flags = [f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1"]
    server = start_server(*flags)
    release = Release(config, "ranking", apply=reload_by_rpc(server.grpc_address))
    release.promote(1)
    release.canary(40, version=2, shadow_percent=100)

    def answers(server):
        with connect(f"http://{server.rest_address}", "ranking") as client:
            item = {"item": ["zzz"]}
            found = {label: client.predict(item, label=label).outputs["score"][0] for label in (STABLE, CANARY)}
            return {label: round(float(score), 3) for label, score in found.items()}

    expected = {STABLE: 4.3, CANARY: 5.3}
    assert answers(server) == expected

    async def route():
        client = connect_async(f"grpc://{server.grpc_address}", "ranking")
        log = tmp_path / "exposures.jsonl"
        router = Router(client, "ranking", release.routes_file, exposures_file=log)
        arms = {}
        for number in range(100):
            user = f"user {number}"
            (score,) = await router.rank(user, {"age": 30}, [{"item": "zzz"}])
            router.shown(user, ["zzz"])
            arms[user] = round(float(score), 3)
        await router.close()
        return arms, router.report(), [json.loads(line) for line in log.read_text().splitlines()]

    arms, report, exposures = asyncio.run(route())
    for user, score in arms.items():
        assert score == expected[choose_arm(user, Route(40, 0, "2"))]
    assert report[STABLE].requests == report[CANARY].shadows
    assert report[CANARY].requests == 100
    assert report[STABLE].errors == report[CANARY].errors == 0
    assert {each["arm"] for each in exposures} == {STABLE, CANARY}

    server.process.kill()
    server.process.wait()
    again = start_server(*flags)
    assert answers(again) == expected
    assert release.standing().route == Route(40, 100, "2")
    with connect(f"grpc://{again.grpc_address}", "ranking") as client:
        assert [(each.version, each.state) for each in client.status()] == [(2, "AVAILABLE"), (1, "AVAILABLE")]
    release = Release(config, "ranking", apply=reload_by_rpc(again.grpc_address))
    assert release.promote().labels == {STABLE: 2}
    assert release.rollback().labels == {STABLE: 1}
    with connect(f"grpc://{again.grpc_address}", "ranking", label=STABLE) as client:
        assert client.predict({"item": ["zzz"]}).version == 1
    (base / "4").mkdir()
    (base / "4" / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(ServingError):
        Release(config, "ranking", apply=reload_by_rpc(again.grpc_address, timeout=3)).promote(4)
    with connect(f"grpc://{again.grpc_address}", "ranking", label=STABLE) as client:
        assert client.predict({"item": ["zzz"]}).version == 1
