from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipeline.commands import deploy, release

run = CliRunner().invoke


@pytest.fixture
def config(tmp_path):
    base = tmp_path / "m"
    for version in (1, 2):
        (base / str(version)).mkdir(parents=True)
    result = run(deploy.app, ["files", "--model", "m", "--base-path", str(base), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    return tmp_path / "out" / "models.config"


def test_a_release_from_the_command_line(config):
    def release_command(*arguments):
        name, *rest = arguments
        return run(release.app, [name, "--config-file", str(config), "--model", "m", *rest])

    assert json.loads(release_command("promote", "--version", "1", "--json").output)["labels"] == {"stable": 1}
    assert "10 % canary" in release_command("canary", "--percent", "10", "--why", "try").output
    assert "canary     2" in release_command("status").output
    assert release_command("rollback").exit_code == 0
    assert release_command("pin", "2").exit_code == 0
    history = release_command("history").output
    assert "try" in history
    assert history.count("\n") == 4
    failed = release_command("promote", "--version", "9")
    assert failed.exit_code == 2
    assert "version 9" in failed.output
