"""Real ratings cut into days, and a `recsys` that starts at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.interactions.conftest import movielens_logs  # noqa: F401
from tests.orchestrators.warm import write_client

ROOT = Path(__file__).parents[2]
ROWS_A_DAY = 1500
TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=n) for n in (6, 5, 4, 3, 2, 1)]  # a schedule's last finished day is yesterday

CONFIG = """
name: films
data:
  source: ../logs/{SPAN}.tsv
  user: user_id
  item: item_id
  time: timestamp
  label: {column: rating, positive: ">= 4"}
  window: 4
  split: {by: span, eval: 0.2, test: 0.5}
features:
  user_id: {kind: vocabulary, of: user, oov: 4}
  item_id: {kind: vocabulary, of: item, oov: 4}
  gender: {kind: vocabulary, of: user}
  genres: {kind: vocabulary, of: item, separator: "|"}
model: {type: deepfm, embedding_dim: 4, hidden: [8]}
baselines: {}
training: {epochs: 1, batch: 256, learning_rate: 0.01}
validation: {min_examples: 50, skew: 0.9, drift: 0.9}
evaluation:
  slices: [[gender]]
  gates:
    - {metric: auc, at_least: 0.5}
    - {metric: auc, not_below: blessed, by: 0.3}
serving: {folder: ../served}
orchestration:
  schedule: 0 0 * * *
  catch_up: true
  retries: 2
  retry_after: 1
  report_url: "http://127.0.0.1:1/{run}/{node}"
"""


@dataclass(frozen=True)
class Project:
    """A folder with days of logs and a config; `recsys` is the command that runs nodes."""

    folder: Path
    recsys: Path

    @property
    def config(self) -> Path:
        return self.folder / "configs" / "films.yaml"

    @property
    def versions(self) -> list[Path]:
        return sorted((self.folder / "served" / "films").glob("[0-9]*"))

    def write_day(self, number: int, rows: pd.DataFrame) -> None:
        rows.to_csv(self.folder / "logs" / f"{DAYS[number]:%Y%m%d}.tsv", sep="\t", index=False)

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess:
        """Run `recsys` and return how it ended."""
        return subprocess.run([self.recsys, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def recsys(tmp_path_factory) -> Iterator[Path]:
    """`recsys` as a program, forked from a warm process; with COLD=1 the installed one."""
    if os.environ.get("COLD"):
        yield Path(sys.executable).with_name("recsys")
        return
    folder = tmp_path_factory.mktemp("warm")
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.orchestrators.warm", str(folder / "socket")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", (folder / "log").read_text()
            yield write_client(folder, str(folder / "socket"))
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def days(movielens_logs) -> list[pd.DataFrame]:  # noqa: F811
    """The first ratings of MovieLens-100K in order of time, cut into as many parts as there are days."""
    ratings = pd.read_csv(movielens_logs, sep="\t", dtype=str, keep_default_na=False)
    ratings = ratings.sort_values("timestamp", kind="stable")
    return [ratings[n * ROWS_A_DAY : (n + 1) * ROWS_A_DAY] for n in range(len(DAYS))]


@pytest.fixture(scope="session")
def project(tmp_path_factory, recsys, days) -> Project:
    """Days 0 to 4 are in, the last one is yet to come. The tests of this folder use it one after the other."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("configs", "logs"):
        (folder / name).mkdir()
    project = Project(folder, recsys)
    project.config.write_text(CONFIG, encoding="utf-8")
    for number in range(5):
        project.write_day(number, days[number])
    return project
