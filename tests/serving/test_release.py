from __future__ import annotations

import itertools
import threading

import pytest
from google.protobuf import text_format

from serving.client import connect
from serving.release import CANARY, STABLE, Release, Route, reload_by_rpc
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


def test_the_first_change_makes_the_file(served, tmp_path):
    file = tmp_path / "release" / "models.config"
    for version in (1, 2):
        (tmp_path / "new" / str(version)).mkdir(parents=True)
    release = Release(file, "new", base_path=str(tmp_path / "new"))
    assert release.standing().on_disk == [1, 2]
    assert not file.exists()
    release.enter()
    before = file.read_text()
    release.enter()
    assert file.read_text() == before
    assert release.promote().labels == {STABLE: 2}
    Release(file, "m", base_path=str(tmp_path / "m")).promote(1)
    assert release.standing().labels == {STABLE: 2}
    broken = Release(tmp_path / "none" / "models.config", "m", base_path=str(tmp_path / "m"), apply=_refuse)
    with pytest.raises(ServingError, match="not today"):
        broken.promote(1)
    assert not broken.config_file.exists()


def _refuse(config):
    raise ServingError(Code.UNKNOWN, "not today")


def test_rollback_ends_a_canary_first(served):
    release = Release(served, "m", apply=LikeTensorFlowServing())
    release.promote(1)
    release.canary(50, version=2)
    standing = release.rollback()
    assert (standing.labels, standing.route.canary_percent) == ({STABLE: 1}, 0)
    with pytest.raises(ServingError, match="no earlier stable version"):
        release.rollback()


def test_what_was_rolled_back_must_be_named_to_come_again(served):
    release = Release(served, "m", who="ann")
    release.promote(1)
    release.canary(10, version=3)
    with pytest.raises(ServingError, match="no canary any more"):
        release.rollback(canary=2)
    release.rollback(canary=3, why="worse")
    with pytest.raises(ServingError, match=r"version 3 was rolled back at .* by ann \(worse\)"):
        release.promote()
    assert release.promote(3).labels == {STABLE: 3}
    release.promote(1)
    assert release.promote().labels == {STABLE: 3}


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
        (lambda: Release(tmp_path / "no.config", "m").promote(), "has no model 'm'; it has"),
    ]:
        with pytest.raises(ServingError, match=text):
            change()
    release.promote(3)
    with pytest.raises(ServingError, match="is the stable one"):
        release.canary(10, version=3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ('{"m": {"canary_percent": 101}}', "m.canary_percent"),
        ('{"m": {"canary_percent": "many"}}', "m.canary_percent"),
        ('{"m": {"shadow_percent": NaN}}', "m.shadow_percent"),
        ('{"m": []}', "m: "),
    ],
)
def test_a_split_that_cannot_be_read_is_named_with_the_way_on(served, text, says):
    release = Release(served, "m")
    release.routes_file.write_text(text)
    with pytest.raises(ServingError, match=r"routes\.json") as error:
        release.standing()
    assert says in error.value.message
    assert "delete it" in error.value.message
    release.routes_file.unlink()
    assert release.promote(1).labels == {STABLE: 1}


def test_the_salt_of_a_canary_cannot_be_guessed_and_old_ones_are_kept(served):
    release, other = Release(served, "m"), Release(served, "other")
    for each in (release, other):
        each.promote(1)
    salts = {each.canary(10, version=2).route.salt for each in (release, other)}
    assert len(salts) == 2
    assert all(len(salt) >= 32 for salt in salts)
    release.routes_file.write_text('{"m": {"canary_percent": 10.0, "shadow_percent": 0.0, "salt": "2.1"}}')
    assert release.canary(20, version=2).route == Route(
        20.0, 0.0, "2.1"
    )  # began under an earlier release of this program


def test_an_audit_line_that_a_crash_cut_short_spoils_no_other(served):
    release = Release(served, "m")
    release.promote(1)
    with release.audit_file.open("a") as log:
        log.write('{"time": "2026-01-01T00:00:00Z", "who"')
    release.promote(2)
    assert [change.after["labels"] for change in release.history()] == [{STABLE: 1}, {STABLE: 2}]


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


@pytest.mark.slow
def test_a_release_on_a_real_server_survives_kill_9(start_server, tmp_path):

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
    route = release.standing().route
    assert (route.canary_percent, route.shadow_percent) == (40, 100)

    server.process.kill()
    server.process.wait()
    again = start_server(*flags)
    assert answers(again) == expected
    assert release.standing().route == route
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
