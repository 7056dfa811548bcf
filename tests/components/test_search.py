"""The search: what it tries first, that it goes on, that a killed trial is tried again; training is stood in for."""

import math

import pytest

from components import search
from components.contest import Data, entries
from configs import ConfigError, load_config
from configs.model import DeepFM
from tests.configs.conftest import SMALLEST

DATA = Data("examples", "transformed", "graph")
SPACE = (
    "tuning.space={model.dropout: {from: 0.1, to: 0.9}, model.l2: {from: 0.001, to: 1, log: true}, "
    "model.hidden: {choices: [[8], [16, 8]]}, training.batch: {from: 16, to: 64, whole: true}}"
)
OWN = ("model={type: deepfm, dropout: 0.5, l2: 0.01, hidden: [8]}", "training.batch=32")


@pytest.fixture
def load(tmp_path):
    """Read the smallest config with the overrides given."""
    path = tmp_path / "demo.yaml"
    path.write_text(SMALLEST, encoding="utf-8")
    return lambda *overrides: load_config(path, overrides)


@pytest.fixture
def trained(monkeypatch):
    """Every task that was trained; AUC is best where dropout is 0.3."""
    tasks = []

    def fit(task, data, folder, report):
        tasks.append(task)
        return {"eval_auc": 0.9 - abs(task.model.dropout - 0.3), "eval_logloss": 0.5}

    monkeypatch.setattr(search, "fit", fit)
    return tasks


def test_the_first_trial_is_the_config_and_the_best_comes_first(load, trained, tmp_path):
    ended = []
    found = search.search(load(*OWN, SPACE, "tuning.trials=6"), DATA, str(tmp_path), ended.append)
    assert len(trained) == len(found) == len(ended) == 6
    assert trained[0].model == DeepFM(type="deepfm", dropout=0.5, l2=0.01, hidden=[8])
    assert trained[0].training.batch == 32
    assert [trial.eval_auc for trial in found] == sorted((t.eval_auc for t in found), reverse=True)
    best = found[0]
    assert best.eval_auc == pytest.approx(0.9 - abs(best.values["model.dropout"] - 0.3))
    for task in trained:
        assert 0.1 <= task.model.dropout <= 0.9
        assert 0.001 <= task.model.l2 <= 1
        assert task.model.hidden in ([8], [16, 8])
        assert 16 <= task.training.batch <= 64


def test_it_goes_on_and_tries_the_killed_trial_again(load, trained, tmp_path, monkeypatch):
    config = load(*OWN, SPACE, "tuning.trials=5")
    whole = search.fit
    monkeypatch.setattr(search, "fit", lambda *a: whole(*a) if len(trained) < 2 else _killed(trained, a[0]))
    with pytest.raises(SystemExit):
        search.search(config, DATA, str(tmp_path))
    monkeypatch.setattr(search, "fit", whole)
    killed = trained.pop()
    found = search.search(config, DATA, str(tmp_path))
    assert len(found) == 5
    assert len(trained) == 5
    assert trained[2].model == killed.model
    assert trained[2].training == killed.training
    assert len({task.model.dropout for task in trained}) == 5, "a process that goes on draws anew"
    assert search.search(config, DATA, str(tmp_path)) == found
    assert len(trained) == 5, "all trials were there"
    assert len(search.search(load(*OWN, SPACE, "tuning.trials=6"), DATA, str(tmp_path))) == 6
    assert len(trained) == 6


def _killed(trained, task):
    trained.append(task)
    raise SystemExit


def test_other_data_or_another_model_begin_anew(load, trained, tmp_path):
    search.search(load(*OWN, SPACE, "tuning.trials=1"), DATA, str(tmp_path))
    search.search(load(*OWN, SPACE, "tuning.trials=1"), Data("examples", "other", "graph"), str(tmp_path))
    search.search(load("model={type: deepfm, l2: 0.5}", SPACE, "tuning.trials=1"), DATA, str(tmp_path))
    assert len(trained) == 3


def test_trials_without_an_auc_are_not_the_best_and_end_at_last(load, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "fit", lambda *_: {"eval_auc": math.nan, "eval_logloss": math.nan})
    with pytest.raises(RuntimeError, match="ended without an AUC"):
        search.search(load(*OWN, SPACE, "tuning.trials=2"), DATA, str(tmp_path))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{model.drop: {from: 0, to: 1}}", "tuning.space.model.drop: .*unknown key 'drop'"),
        ("{model.dropout: {from: 0.1, to: 1.5}}", "tuning.space.model.dropout: .*less than 1"),
        ("{training.batch: {choices: [8, no]}}", "tuning.space.training.batch: "),
    ],
)
def test_a_space_that_is_none_of_the_configs_is_refused(load, tmp_path, space, said):
    with pytest.raises(ConfigError, match=said):
        search.search(load("model={type: deepfm}", f"tuning.space={space}"), DATA, str(tmp_path))


def test_without_a_space_the_keys_that_the_model_has_are_tuned(load):
    deep, lr = load("model={type: deepfm}", "tuning.space={}"), load("model={type: lr}", "tuning.space={}")
    assert set(search.space_of(deep)) == {"model.l2", "model.embedding_dim", "model.dropout", "training.learning_rate"}
    assert set(search.space_of(lr)) == {"model.l2", "training.learning_rate"}
    search.check_space(deep)
    with pytest.raises(ConfigError, match="model auto has nothing to tune by default"):
        search.check_space(load("model={type: auto}", "tuning.space={}"))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{seed: {from: 0, to: 1}}", "tuning.space"),
        ("{model.l2: {from: 1}}", "expected either from and to, or choices"),
        ("{model.l2: {from: 1, to: 0}}", "from 1 is not below to 0"),
        ("{model.l2: {from: 0, to: 1, log: true}}", "log needs from above 0"),
        ("{training.batch: {from: 1.5, to: 4, whole: true}}", "whole needs whole bounds"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(load, space, said):
    with pytest.raises(ConfigError, match=said):
        load(f"tuning.space={space}")


def test_a_contest_is_entered_by_type_or_by_name(load):
    config = load(
        "model={type: deepfm, dropout: 0.5}",
        "baselines={lr: {type: lr, l2: 0.5}}",
        "models={wide: {model: {type: wide_deep}, training: {epochs: 3}}}",
        "training.batch=64",
    )
    by_default = {entry.name: entry for entry in entries(config)}
    assert list(by_default) == ["lr", "deepfm", "wide"]
    assert by_default["deepfm"].model.dropout == 0.5
    assert (by_default["wide"].training.epochs, by_default["wide"].training.batch) == (3, 64)
    named = entries(config, ["svd", "lr"])
    assert [(entry.name, entry.model.l2) for entry in named] == [("svd", None), ("lr", 0.5)]
    with pytest.raises(ConfigError, match="--models gbm: no model of that name; choose from lr, deepfm, wide, "):
        entries(config, ["gbm"])
    with pytest.raises(ConfigError, match="lr is named twice"):
        entries(config, ["lr", "lr"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("models={a: {model: {type: din}, training: {epoch: 3}}}", r"models\.a\.training\.epoch: Extra inputs"),
        ("models={a: {model: {type: din, without: [x]}}}", r"models\.a\.model\.without: no feature 'x'"),
        ("model={type: fm, without: [x]}", r"model\.without: no feature 'x'; choose from"),
        ("models={a: {model: {type: gbm}}}", r"models\.a\.model\.type: expected one of"),
    ],
)
def test_models_that_the_config_cannot_have_are_refused(load, override, said):
    with pytest.raises(ConfigError, match=said):
        load(override)
