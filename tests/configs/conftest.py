from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from configs import Config, load_config

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SMALLEST = """\
name: demo
data:
  source: logs.csv
  user: u
  item: i
  time: t
  label: {column: y}
  split: {by: time}
features:
  u: {kind: vocabulary, of: user}
  i: {kind: vocabulary, of: item}
"""


@pytest.fixture
def smallest(tmp_path) -> Path:
    """The file of the smallest config there can be."""
    path = tmp_path / "demo.yaml"
    path.write_text(SMALLEST, encoding="utf-8")
    return path


@pytest.fixture
def load(smallest) -> Callable[..., Config]:
    """Read the smallest config with the overrides given."""
    return lambda *overrides: load_config(smallest, overrides)
