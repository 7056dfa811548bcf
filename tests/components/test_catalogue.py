import pyarrow as pa
import pyarrow.parquet
import pytest

from components.catalogue import Catalogue
from configs import load_config

CONFIG = """\
name: shop
data: {source: logs.csv, user: u, item: i, split: {by: hash}}
features: {u: {kind: vocabulary, of: user}, i: {kind: vocabulary, of: item}}
"""


@pytest.fixture
def catalogue(tmp_path):
    (tmp_path / "shop.yaml").write_text(CONFIG)
    for owner, column, ids in (("users", "u", ["10", "11"]), ("items", "i", ["a", "b"])):
        (tmp_path / owner).mkdir()
        pyarrow.parquet.write_table(pa.table({column: ids}), tmp_path / owner / "part-0.parquet")
    return Catalogue(str(tmp_path), load_config(tmp_path / "shop.yaml"))


def test_a_user_of_the_logs_is_known_where_users_have_no_other_columns(catalogue):
    assert catalogue.user("10") == {}
    assert catalogue.user("12") is None
    assert catalogue.items().ids == ["a", "b"]
