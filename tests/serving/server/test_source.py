from __future__ import annotations

import pytest
from tensorflow_serving.config import model_server_config_pb2

from serving.server.source import aspired_versions, versions_on_disk
from serving.server.status import ServingError


def policy(kind: str = "", **fields):
    found = model_server_config_pb2.ModelConfig().model_version_policy
    if kind == "latest":
        found.latest.num_versions = fields["count"]
    elif kind == "all":
        found.all.SetInParent()
    elif kind == "specific":
        found.specific.versions.extend(fields["versions"])
    return found


def test_only_numbers_are_versions(tmp_path):
    for name in ("1", "002", "2", "10", "x", "-3", "1.5", "٣", ".4.new", "99999999999999999999"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert sorted(versions_on_disk(str(tmp_path))) == [1, 2, 10]
    with pytest.raises(ServingError, match="Could not find base path"):
        versions_on_disk(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (policy(), [10]),
        (policy("latest", count=2), [2, 10]),
        (policy("all"), [1, 2, 10]),
        (policy("specific", versions=[1, 7]), [1]),
    ],
)
def test_policies(tmp_path, chosen, expected):
    on_disk = {version: tmp_path / str(version) for version in (1, 2, 10)}
    assert list(aspired_versions(chosen, on_disk)) == expected
    assert aspired_versions(chosen, {}) == {}
