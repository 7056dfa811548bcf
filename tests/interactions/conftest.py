from pathlib import Path

import pytest

from interactions import movielens


@pytest.fixture(scope="session")
def movielens_logs() -> Path:
    """The real logs, downloaded once into the checkout's ignored data folder."""
    return movielens.fetch(Path(__file__).parents[2] / "data" / "movielens")
