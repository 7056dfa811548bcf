from __future__ import annotations

import pytest

from serving.check import Budget, serving_check
from tests.serving import saved_models

ROWS = [{"age": 50, "item": "zzz"}, {"age": 10, "item": "a"}]


@pytest.mark.slow
def test_a_candidate_is_compared_with_its_offline_scores(tmp_path):
    path = saved_models.ranking(tmp_path)
    result = serving_check(path, "m", ROWS, [3.5, 99.0], budget=Budget(resident_mib=1, latency_requests=5))
    found = "\n".join(result.problems)
    assert not result.ok
    assert found.count("row 1 scores") == 2  # on gRPC and on REST
    assert "row 0" not in found
    assert "101.0" in found
    assert "1 MiB are allowed" in found
    assert result.requests == 7
    assert 0 < result.p50_ms < 60_000


@pytest.mark.slow
def test_a_broken_candidate_says_why(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff")
    result = serving_check(tmp_path, "m", ROWS, [0, 0])
    assert not result.ok
    assert "before it served the candidate" in result.problems[0]
    assert "1 model(s) did not become available" in result.problems[0]
