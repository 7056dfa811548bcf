from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from configs import config_from_tree
from configs.config import Config
from configs.features import Feature
from configs.reference import EXAMPLE, FEATURE_EXAMPLES, reference

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
KINDS = [get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(Feature)[0])]


def test_the_committed_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make docs` and commit docs/config.md"


def test_every_key_stands_in_a_table_with_a_description():
    def sections(schema):
        yield from (schema, *schema["$defs"].values())

    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    for section in sections(Config.model_json_schema(by_alias=True)):
        for key, value in section["properties"].items():
            if "const" not in value:
                assert any(row.startswith(f"| `{key}` |") for row in rows), key
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_link_leads_to_a_heading():
    page = reference()
    headings = {line.lstrip("#").strip() for line in page.splitlines() if line.startswith("#")}
    links = {part.split("](#")[0].rpartition("[")[2] for part in page.split(")") if "](#" in part}
    assert links
    assert links <= headings


def test_the_example_loads():
    assert config_from_tree(YAML(typ="safe").load(EXAMPLE), "shop.yaml").name == "shop"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_feature_has_an_example_that_loads(kind):
    tree = YAML(typ="safe").load(EXAMPLE)
    others = {"age": {"kind": "bucketized", "of": "user", "buckets": 4}, "hour": {"kind": "time", "part": "hour"}}
    example = YAML(typ="safe").load(FEATURE_EXAMPLES[kind])
    (name,) = example
    config = config_from_tree(tree | {"features": tree["features"] | others | example}, "shop.yaml")
    assert config.features[name].kind == kind
