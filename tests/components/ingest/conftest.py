from pathlib import Path

import pytest

from components.ingest.files import LogFile, find_files
from configs.data import Data


def data(**changes) -> Data:
    """The meaning of a small log: who, what, when, rating."""
    plain = {
        "source": "logs",
        "user": "user",
        "item": "item",
        "time": "time",
        "label": {"column": "rating", "positive": ">= 4"},
        "split": {"by": "user_time", "eval": 0.2, "test": 0.2},
        "max_field_bytes": 65536,
    }
    return Data.model_validate(plain | changes)


@pytest.fixture
def write(tmp_path):
    """Write bytes under a name and return them as the log file that ingest sees."""

    def write(name: str, content: bytes, meaning: Data | None = None) -> LogFile:
        path: Path = tmp_path / name
        path.write_bytes(content)
        (file,) = find_files(meaning or data(), str(path))
        return file

    return write
