"""How the command line ends: codes, and the way on."""

import pytest

from pipeline import cli
from pipeline.running import run as run_module
from pipeline.running.locks import BusyError, whole_folder

CONFIG = """\
name: shop
data: {source: logs.csv, user: u, item: i, time: t, label: {column: y}, split: {by: time}}
features:
  u: {kind: vocabulary, of: user}
  i: {kind: vocabulary, of: item}
  device: {kind: vocabulary, of: context}
  price: {kind: numeric, of: context}
  hour: {kind: time, part: hour}
runs: {folder: runs}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    return path


def test_ctrl_c_has_a_code_of_its_own_and_says_the_way_on(config, monkeypatch, capfd):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupted)
    assert cli.recsys(["run", str(config)]) == 130
    assert "interrupted: the same command again goes on where it was" in capfd.readouterr().err


def test_a_folder_that_is_busy_is_said_and_nothing_else(config, monkeypatch, capfd):
    def busy(*_, **__):
        raise BusyError("runs: another run is under way (process 1). Wait for it, or stop it.")

    monkeypatch.setattr(run_module, "run", busy)
    assert cli.recsys(["run", str(config)]) == 1
    said = capfd.readouterr()
    assert "another run is under way" in said.err
    assert "nothing was ingested" not in said.out


def test_a_folder_is_held_once(tmp_path):
    with whole_folder(str(tmp_path)), pytest.raises(BusyError), whole_folder(str(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("color=red", "expected NAME=VALUE with a column of the context; there are device, price, t"),
        ("device", "expected NAME=VALUE"),
        ("price=dear", "expected a number"),
        ("t=soon", "expected s since 1970 or an ISO 8601 time"),
    ],
)
def test_predict_takes_the_context_that_the_config_has(config, capfd, given, said):
    assert cli.recsys(["predict", str(config), "--user", "1", "--context", given]) == 2
    assert said in capfd.readouterr().err


def test_predict_reads_a_context_before_it_looks_for_a_version(config, capfd):
    context = ["--context", "device=tv", "--context", "price=3.5", "--context", "t=2026-01-31T10:00"]
    assert cli.recsys(["predict", str(config), "--user", "1", *context]) == 2
    assert "no version is served" in capfd.readouterr().err
