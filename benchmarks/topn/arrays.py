"""The training split of a prepared config as arrays, for both sides of a comparison of speed: NAME OUT.npz."""

import sys

import numpy as np
import tensorflow_transform as tft

from components.contest import training_task
from configs import load_config
from models.topn.interactions import Interactions, interactions
from models.training.examples import Examples
from models.training.job import Job
from pipeline.prepare import prepare


def known_of(config_file: str, overrides: list[str]) -> tuple[Interactions, list]:
    """Return who met what in the training split of a config, and the features."""
    config = load_config(config_file, overrides)
    data = prepare(config)
    task = training_task(config, config.model, config.training, 1)
    job = Job(task, data.graph, [f"{data.transformed}/Split-train/*.gz"], [], "", "")
    assert isinstance(job.transform_output, tft.TFTransformOutput)
    examples = Examples(job.train_files, job.features)
    batches = examples.batches(4096, examples.steps(4096)).as_numpy_iterator()
    return interactions(batches, job.features, "past"), job.features


def save(path: str, known: Interactions) -> None:
    """Write the events and the sequences."""
    lengths = [len(s) for s in known.sequences]
    np.savez(
        path,
        users=known.users,
        items=known.items,
        user_count=known.user_count,
        item_count=known.item_count,
        events=np.concatenate(known.sequences),
        lengths=lengths,
        owners=known.owners,
    )


def load(path: str) -> Interactions:
    """Read them again."""
    z = np.load(path)
    sequences = np.split(z["events"], np.cumsum(z["lengths"])[:-1])
    users, items = z["users"], z["items"]
    return Interactions(
        users, items, np.ones(len(users)), int(z["user_count"]), int(z["item_count"]), sequences, z["owners"]
    )


if __name__ == "__main__":
    config_file, out, *overrides = sys.argv[1:]
    save(out, known_of(config_file, overrides)[0])
