"""The search for better values of the config: trials by Optuna, kept in SQLite, chosen by eval AUC alone."""

from __future__ import annotations

import copy
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from components.contest import Data, fit, training_task
from configs import Config, ConfigError, config_from_tree, digest
from configs.model.base import Regularized
from configs.tuning import Range

# Each holds the default itself, so that the first trial is the config as it is.
DEFAULT_SPACE: Mapping[str, Range] = {
    "model.l2": Range(choices=[None, 0.003, 0.01, 0.03]),
    "model.embedding_dim": Range(choices=[8, 16, 32]),
    "model.dropout": Range.model_validate({"from": 0.0, "to": 0.7}),
    "training.learning_rate": Range(choices=[None, 0.001, 0.003, 0.01]),
}
STUDIES_FILE = "studies.sqlite"


@dataclass(frozen=True)
class Trial:
    """One training of the search: what was set, and how it did on eval."""

    number: int
    values: Mapping[str, Any]
    eval_auc: float
    eval_logloss: float
    seconds: float


def search(
    config: Config,
    data: Data,
    folder: str,
    ended: Callable[[Trial], None] = lambda trial: None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Trial]:
    """Go on with the search that `config.tuning` describes and return all its trials, the best first.

    Trials are kept in `folder`; those of an earlier call on the same data, space and other values count. The trial
    that was under way when an earlier call was killed is tried again. The first trial is the config as it is, where
    its values lie in the space. Call it only once at a time for a folder.
    """
    check_space(config)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Path(folder).mkdir(parents=True, exist_ok=True)
    tuning = config.tuning
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/{STUDIES_FILE}",
        study_name=digest(config.model, config.training, space_of(config), tuning.seed, data.transformed),
        direction="maximize",
        load_if_exists=True,
    )
    # A sampler begins its draws anew in each process: one that goes on must not draw what was drawn already.
    study.sampler = optuna.samplers.TPESampler(seed=tuning.seed + len(study.trials))
    for killed in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(killed.number, state=TrialState.FAIL)
        if killed.params:
            study.enqueue_trial(killed.params)
    if not study.trials and (own := _own_values(config)) is not None:
        study.enqueue_trial(own)
    while len(finished := study.get_trials(states=[TrialState.COMPLETE])) < tuning.trials:
        if len(study.trials) > 3 * tuning.trials + 10:
            raise RuntimeError(f"{len(study.trials) - len(finished)} trials ended without an AUC; see the log")
        trial = study.ask()
        values = {key: _suggest(trial, key, range_) for key, range_ in space_of(config).items()}
        report(describe(values))
        tried = with_values(config, values)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            task = training_task(tried, tried.model, tried.training, tried.training.seed)
            history = fit(task, data, temporary, report)
        trial.set_user_attr("eval_logloss", history["eval_logloss"])
        trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
        if math.isnan(history["eval_auc"]):
            study.tell(trial, state=TrialState.FAIL)
            continue
        ended(_trial(study.tell(trial, history["eval_auc"])))
    return sorted(map(_trial, finished), key=lambda t: (-t.eval_auc, t.number))


def space_of(config: Config) -> Mapping[str, Range]:
    """Return `tuning.space`; where it is empty, that of the keys that the config's model has of DEFAULT_SPACE."""
    if config.tuning.space:
        return config.tuning.space
    if not isinstance(config.model, Regularized):
        return {}
    known = type(config.model).model_fields
    return {key: r for key, r in DEFAULT_SPACE.items() if not key.startswith("model.") or key[6:] in known}


def check_space(config: Config) -> None:
    """Raise ConfigError where there is nothing to search, or a key or value of the space is none of the config's."""
    if not space_of(config):
        raise ConfigError(
            f"{config.path}: model {config.model.type} has nothing to tune by default: name a type such as deepfm, "
            "or what may change, as `tuning: {space: {training.learning_rate: {from: 0.0005, to: 0.02, log: true}}}`"
        )
    for key, range_ in space_of(config).items():
        for value in range_.choices if range_.choices is not None else range_.bounds:
            try:
                with_values(config, {key: int(value) if range_.whole else value})
            except ConfigError as error:
                raise ConfigError(f"tuning.space.{key}: {error}") from None


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the config with other values at some keys, such as `training.learning_rate`. Raises ConfigError."""
    tree = copy.deepcopy(config.model_dump(mode="json", by_alias=True, exclude_unset=True))
    tree.setdefault("model", {"type": config.model.type})
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return config_from_tree(tree, config.path)


def describe(values: Mapping[str, Any]) -> str:
    """Return values in a line: `dropout 0.4, learning_rate 0.003`."""
    words = {key: f"{v:.4g}" if isinstance(v, float) else "default" if v is None else v for key, v in values.items()}
    return ", ".join(f"{key.partition('.')[2]} {word}" for key, word in words.items())


def _suggest(trial: optuna.Trial, key: str, range_: Range) -> Any:
    if range_.choices is not None:
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in range_.choices]))
    low, high = range_.bounds
    if range_.whole:
        return trial.suggest_int(key, int(low), int(high), log=range_.log)
    return trial.suggest_float(key, low, high, log=range_.log)


def _own_values(config: Config) -> dict[str, Any] | None:
    """Return the config's values at the keys of the space, as Optuna takes them; None where one lies outside."""
    tree = config.model_dump(mode="json", by_alias=True)
    own: dict[str, Any] = {}
    for key, range_ in space_of(config).items():
        node: Any = tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if range_.choices is not None:
            if node not in range_.choices:
                return None
            own[key] = json.dumps(node)
        else:
            low, high = range_.bounds
            if not isinstance(node, int | float) or not low <= node <= high:
                return None
            own[key] = int(node) if range_.whole else float(node)
    return own


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    values = {key: json.loads(v) if isinstance(v, str) else v for key, v in frozen.params.items()}
    assert frozen.value is not None
    return Trial(frozen.number, values, frozen.value, frozen.user_attrs["eval_logloss"], frozen.user_attrs["seconds"])
