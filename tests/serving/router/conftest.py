from __future__ import annotations

import pytest

from serving.release import Release


@pytest.fixture
def release(tmp_path):
    for version in (1, 2, 3):
        (tmp_path / "m" / str(version)).mkdir(parents=True)
    release = Release(tmp_path / "models.config", "m", base_path=str(tmp_path / "m"))
    release.promote(1)
    return release
