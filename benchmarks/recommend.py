"""What a request for recommendations costs: two towers find 200 candidates, DeepFM orders them, on MovieLens-100K.

`make bench-recommend` trains both a little, puts them into one SavedModel as a run does, and ends in one line of JSON:
milliseconds of the processor a request of one user, on one thread, without a server's own cost.
"""

from __future__ import annotations

import json
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.topk import milliseconds_of, one_thread
from components.catalogue import Catalogue, candidates
from components.contest import fit, training_task
from configs import load_config
from configs.model import DeepFM, Model, TwoTower
from configs.retrieval import Retrieval
from models.recommend.assemble import assemble
from pipeline.prepare import prepare

CONFIG = "configs/movielens.yaml"
USERS = 100
RANKER, TOWERS = DeepFM(type="deepfm"), TwoTower(type="two_tower")


def write_model(folder: str) -> dict[str, list[Any]]:
    """Write the SavedModel to `folder`/served; return columns of users to ask it about."""
    config = load_config(CONFIG, ["training.epochs=1"])
    data = prepare(config)

    def train(model: Model, name: str) -> str:
        fit(training_task(config, model, config.training, seed=1), data, f"{folder}/{name}")
        return f"{folder}/{name}/model"

    stages = Retrieval(model=TOWERS, candidates=200)
    columns = config.raw_columns
    items = candidates(data.catalogue, config.data.item, columns)
    assemble(train(RANKER, "ranker"), train(TOWERS, "towers"), columns, items, stages, f"{folder}/served")
    catalogue = Catalogue(data.catalogue, config)
    users = [{config.data.user: str(u), **(catalogue.user(str(u)) or {})} for u in range(1, USERS + 1)]
    asked = {name: c for name, c in columns.items() if c.of != "item"}
    return {name: [user.get(name, c.default) for user in users] for name, c in asked.items()}


def recommend_ms(requests: int = 500, k: int = 10) -> np.ndarray:
    """Return the milliseconds of each request, the first ones, which warm up, left out."""
    with tempfile.TemporaryDirectory() as folder:
        columns = write_model(folder)
        signature = tf.saved_model.load(f"{folder}/served").signatures["recommend"]

        def ask(number: int) -> tf.Tensor:
            asked = {name: tf.constant([column[number % USERS]]) for name, column in columns.items()}
            return signature(**asked, k=tf.constant([k], tf.int64), exclude=tf.constant([[""]]))["items"]

        return milliseconds_of(ask, requests)


def recommend_p99_ms() -> float:
    """Return the 99th percentile of `recommend_ms`."""
    return float(np.quantile(recommend_ms(), 0.99))


def main() -> None:
    """Measure and print."""
    one_thread()
    taken = recommend_ms()
    print(json.dumps({f"recommend_p{q}_ms": round(float(np.quantile(taken, q / 100)), 2) for q in (50, 99)}))


if __name__ == "__main__":
    main()
