"""A short run of `make fuzz-serving`."""

from __future__ import annotations

import pytest

from tests.serving.fuzz import fuzz

pytestmark = pytest.mark.slow


def test_what_no_client_means_harms_nobody():
    seen = fuzz(1000, seed=1)
    assert not seen["faults"], seen["faults"][0]
    assert seen["dead"] == []
    assert seen["requests"] == 1000
    assert seen["second_client"]["failed"] == 0
    assert seen["second_client"]["requests"] > 100
    # Of a server that has just begun, some 750 MiB: 1.25 where it runs alone, up to 1.63 in the whole suite.
    assert max(seen["memory_ratio"].values()) < 2.0, seen["memory_ratio"]
