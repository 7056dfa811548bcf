from __future__ import annotations

import json

import pytest
import yaml

from pipeline.cli import recsys

CONFIG = """\
name: films
data: {source: none.csv, user: user, item: item, time: when, label: {column: liked}, split: {by: hash}}
features: {user: {kind: vocabulary, of: user}, item: {kind: vocabulary, of: item}}
"""


@pytest.fixture
def config(tmp_path):
    for version in (1, 2):
        (tmp_path / "served" / "films" / str(version)).mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "films.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def release(config, capsys):
    def command(name: str, *arguments: str, code: int = 0) -> str:
        assert recsys(["release", name, str(config), *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return command


def test_a_release_from_the_command_line(release, config):
    assert "every request gets the newest version" in release("status")
    assert "no release yet" in release("history")
    assert json.loads(release("promote", "--version", "1", "--json"))["labels"] == {"stable": 1}
    assert "10 % canary" in release("canary", "--percent", "10", "--why", "try")
    assert "canary     2" in release("status")
    release("rollback", "--why", "worse")
    assert "worse" in release("promote", code=2)
    release("pin", "--version", "2")
    history = release("history")
    assert "stable 1 -> stable 1, canary 2  try" in history
    assert history.count("\n") == 4
    assert "version 9" in release("promote", "--version", "9", code=2)
    assert "recsys release route" in release("report", code=2)


def test_deploy_files_go_beside_the_release_state(config, capsys, tmp_path):
    folder = tmp_path / "served" / "release"
    assert recsys(["deploy", "files", str(config)]) == 0
    assert f"{folder}/compose.yaml" in capsys.readouterr().out
    assert f'base_path: "{tmp_path}/served/films"' in (folder / "models.config").read_text()
    assert recsys(["release", "promote", str(config), "--version", "1"]) == 0
    kept = (folder / "models.config").read_text()
    assert recsys(["deploy", "files", str(config)]) == 0
    assert (folder / "models.config").read_text() == kept
    documents = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    (mounted,) = [each["data"]["models.config"] for each in documents if each["kind"] == "ConfigMap"]
    assert mounted == kept
    assert recsys(["deploy", "files", str(config), "--base-path", "not/absolute"]) == 2
    assert recsys(["deploy", "files", str(config), "--set", "serving.model=release"]) == 2
