"""Small real logs, and the command line in this process: TFX takes long to import, so all of it is imported once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import cli

CONFIG = """
name: shop
data:
  source: {source}
  user: cliente
  item: producto
  time: momento
  label: {{column: compra, positive: "== sí"}}
  split: {{by: user_time, eval: 0.15, test: 0.15}}
  display: titulo
features:
  cliente: {{kind: vocabulary, of: user, oov: 4}}
  producto: {{kind: vocabulary, of: item, oov: 4}}
  edad: {{kind: numeric, of: user}}
  ciudad: {{kind: vocabulary, of: user}}
  temas: {{kind: vocabulary, of: item, separator: ";"}}
  precio: {{kind: bucketized, of: item, buckets: 5}}
  hora: {{kind: time, part: hour}}
  recientes: {{kind: sequence, feature: producto, length: 5, events: positive}}
  ciudad_y_hora: {{kind: crossed, cross: [ciudad, hora], buckets: 100}}
model: {{type: deepfm, embedding_dim: 4, hidden: [8]}}
baselines: {{item_mean: {{type: item_mean}}}}
models: {{dos_torres: {{model: {{type: two_tower, hidden: [8], output_dim: 4}}, training: {{epochs: 1}}}}}}
tuning:
  space: {{training.learning_rate: {{from: 0.001, to: 0.1, log: true}}, model.hidden: {{choices: [[4], [8]]}}}}
training: {{epochs: 2, batch: 256, learning_rate: 0.01}}
validation: {{min_examples: 50, skew: 0.6}}
evaluation:
  slices: [[ciudad]]
  gates:
    - {{metric: auc, at_least: 0.5}}
    - {{metric: auc, not_below: blessed, by: 0.2}}
serving: {{folder: ../served}}
"""


def interactions(rows: int = 4000, seed: int = 7) -> pd.DataFrame:
    """Return purchases that depend on the customer, the product and the city."""
    random = np.random.default_rng(seed)
    users, items = random.integers(0, 120, rows), random.integers(0, 40, rows)
    cities = np.array(["Málaga", "Köln", "東京", ""])
    liking = np.sin(users * 1.3)[:, None] * np.ones(1) + np.cos(items)[:, None]
    chance = 1 / (1 + np.exp(-2.0 * liking[:, 0]))
    topics = np.array(["hogar", "música;cine", "deporte", "cine"])
    return pd.DataFrame(
        {
            "cliente": [f"00{u}" for u in users],
            "producto": [f"p-ñ{i}" for i in items],
            "momento": 1_700_000_000 + np.sort(random.integers(0, 5_000_000, rows)),
            "compra": np.where(random.random(rows) < chance, "sí", "no"),
            "edad": np.where(users % 7 == 0, "", (18 + users % 50).astype(str)),
            "ciudad": cities[users % 4],
            "temas": topics[items % 4],
            "precio": np.round(3.0 ** (items % 9), 2),
            "titulo": [f'El "{i}", tomo {i}' for i in items],
        }
    )


@dataclass
class Project:
    """A folder with logs, a config and the command line."""

    folder: Path
    recsys: Callable[..., int]

    @property
    def config(self) -> Path:
        return self.folder / "configs" / "shop.yaml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs.csv"

    @property
    def versions(self) -> list[Path]:
        return sorted((self.folder / "served" / "shop").glob("[0-9]*"))

    def write(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self.logs, index=False)

    @contextmanager
    def other_logs(self, frame: pd.DataFrame) -> Iterator[None]:
        """Put other logs in the place of the project's, which come back as they were, their time included."""
        kept = self.logs.rename(self.folder / "kept.csv")
        self.write(frame)
        try:
            yield
        finally:
            kept.rename(self.logs)


def command_line(*arguments: str | Path) -> int:
    """Run `recsys` in this process and return its exit code."""
    return cli.recsys([str(argument) for argument in arguments])


def make_project(folder: Path) -> Project:
    project = Project(folder, command_line)
    project.config.parent.mkdir(parents=True)
    project.config.write_text(CONFIG.format(source="../logs.csv"), encoding="utf-8")
    project.write(interactions())
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def ran(tmp_path_factory) -> Project:
    """A project whose logs have been run once, from end to end; the tests of several files run on in it."""
    project = make_project(tmp_path_factory.mktemp("ran"))
    assert project.recsys("run", project.config) == 0
    return project


def in_process_of_its_own(*arguments: str) -> subprocess.Popen:
    """Start `recsys` as a person does."""
    return subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
