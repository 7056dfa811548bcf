"""The config reference, written from the types: `make docs` keeps docs/config.md up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import TypeAdapter

from configs.base import ColumnName
from configs.config import Config
from configs.features import DERIVED_COLUMNS, KINDS
from configs.gates import DEFAULT_GATES

EXAMPLE = """\
name: shop
data:
  source: ../data/shop/*.csv.gz
  user: customer
  item: product
  time: clicked_at
  time_unit: ms
  label: {column: bought, positive: "== yes"}
  split: {by: time, eval: 0.1, test: 0.1}
features:
  customer: {kind: vocabulary, of: user, min_count: 2}
  product:  {kind: vocabulary, of: item}
  price:    {kind: numeric, of: item, scale: log}
evaluation:
  slices: [[cold_user]]
  gates:
    - {metric: auc, beats: item_mean, by: 0.01}
    - {metric: auc, not_below: blessed, by: 0.01, each: [cold_user], min_examples: 500}
"""

FEATURE_EXAMPLES = {get_args(kind.model_fields["kind"].annotation)[0]: kind.EXAMPLE for kind in KINDS}

_HEAD = f"""\
<!-- Written by `make docs` from the types in configs/; changes made here are lost. -->
# Config reference

One YAML file describes one recommender. What is not written takes its default; an unknown key is an error that names
file, key path and what was expected. Paths are relative to the config file. `--set a.b=value` on the command line
changes one value, which is read as YAML: `--set training.epochs=3 --set evaluation.gates.0.at_least=0.7`.

The whole of a small one:

```yaml
{EXAMPLE}```
"""

_NAMED_PATTERNS = {TypeAdapter(ColumnName).json_schema()["pattern"]: "column name"}


def reference() -> str:
    """Return the reference as Markdown: every section, key, type, default and description."""
    schema = Config.model_json_schema(by_alias=True)
    for key in ("model", "baselines"):  # only what the default sets itself
        set_keys = TypeAdapter(Any).dump_python(Config.model_fields[key].default, exclude_unset=True)
        schema["properties"][key]["default"] = set_keys
    gates = TypeAdapter(Any).dump_python(list(DEFAULT_GATES), exclude_unset=True)
    schema["$defs"]["Evaluation"]["properties"]["gates"]["default"] = gates
    return "\n".join([_HEAD, *_Page(schema["$defs"]).section("", schema, level=2)]).rstrip() + "\n"


class _Page:
    """Sections are told where the file first has them; later uses link there."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._places: dict[str, str] = {}

    def section(self, path: str, schema: Mapping[str, Any], level: int, tag: str = "") -> Iterator[str]:
        """Yield the table of one section and, below it, the sections inside it. `tag` is the key that chose it."""
        properties = {key: value for key, value in schema["properties"].items() if key != tag}
        required = set(schema.get("required", ()))
        places = {key: f"{path}.{key}" if path else key for key in properties}
        for key, value in properties.items():
            for name in _definitions_in(value):
                self._places.setdefault(name, places[key])
        yield from self._table(properties, required)
        for key, value in properties.items():
            names = [name for name in _definitions_in(value) if self._places[name] == places[key]]
            if not names:
                continue
            yield f"{'#' * level} {places[key]}\n"
            discriminator = _discriminator(value)
            if discriminator is None:
                definition = self._definitions[names[0]]
                yield f"{definition['description']}\n"
                yield from self.section(places[key], definition, level + 1)
            else:
                yield from self._choices(places[key], value, discriminator, names, level + 1)

    def _choices(self, path: str, schema: Mapping[str, Any], tag: str, names: list[str], level: int) -> Iterator[str]:
        yield f"{schema['description']} The key `{tag}` chooses what goes with it.\n"
        for name in names:
            definition = self._definitions[name]
            choice = definition["properties"][tag]["const"]
            yield f"{'#' * level} {tag}: {choice}\n"
            yield f"{definition['description']}\n"
            if path == "features":
                yield f"```yaml\n{FEATURE_EXAMPLES[choice]}\n```\n"
            yield from self.section(path, definition, level + 1, tag)
        if path == "features":
            yield f"{'#' * level} Columns that ingest adds\n"
            yield "From the training split alone. Slices may name them; models never see them.\n"
            yield "| column | meaning |\n|---|---|"
            yield from (f"| `{column}` | {_cell(meaning)} |" for column, meaning in DERIVED_COLUMNS.items())
            yield ""

    def _table(self, properties: Mapping[str, Any], required: set[str]) -> Iterator[str]:
        if not properties:
            yield "No further keys.\n"
            return
        yield "| key | type | default | description |\n|---|---|---|---|"
        for key in sorted(properties, key=lambda key: key not in required):
            value = properties[key]
            default = "**required**" if key in required else _default(value)
            description = value.get("description") or self._summary(value)
            yield f"| `{key}` | {_cell(self._type(value))} | {default} | {_cell(description)} |"
        yield ""

    def _summary(self, schema: Mapping[str, Any]) -> str:
        return next((self._definitions[n]["description"].split("\n\n")[0] for n in _definitions_in(schema)), "")

    def _type(self, schema: Mapping[str, Any]) -> str:
        names = _definitions_in(schema)
        if schema is True or not schema.keys() - {"title", "description"}:
            return "any value"
        match schema:
            case {"anyOf": [first, {"type": "null"}]}:
                return self._type(first)
            case {"const": value}:
                return f"`{value}`"
            case {"enum": values}:
                return "one of " + ", ".join(f"`{value}`" for value in values)
            case {"type": "array", "prefixItems": items}:
                return f"list of {len(items)}: {self._type(items[0])}"
            case {"type": "array", "items": items}:
                return f"list of {self._type(items)}"
            case {"type": "object", "patternProperties": values}:
                return f"names, each with {self._type(next(iter(values.values())))}"
            case {"type": "object", "additionalProperties": values}:
                return f"names, each with {self._type(values)}"
            case {"type": "integer" | "number" as kind}:
                return ("whole number" if kind == "integer" else "number") + _range(schema)
            case {"type": "boolean"}:
                return "`true` or `false`"
            case {"type": "string", "format": "date-time"}:
                return "time"
            case {"type": "string", "format": "date"}:
                return "day"
            case {"type": "string", "pattern": pattern}:
                return _NAMED_PATTERNS.get(pattern, f"text matching `{pattern}`")
            case {"type": "string"}:
                return "text"
            case _ if names:
                place = self._places[names[0]]
                return f"[{place}](#{re.sub('[^a-z0-9_ -]', '', place.lower())})"
        raise TypeError(f"no words for {schema}")


def _definitions_in(schema: Any) -> list[str]:
    """Return the names of the definitions that a property's schema refers to, at any depth, in their order."""
    if isinstance(schema, list):
        return [name for part in schema for name in _definitions_in(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    return own + [
        n for key, part in schema.items() if key not in ("discriminator", "default") for n in _definitions_in(part)
    ]


def _discriminator(schema: Any) -> str | None:
    if not isinstance(schema, dict):
        return None
    if "discriminator" in schema:
        return str(schema["discriminator"]["propertyName"])
    return next((found for part in schema.values() if (found := _discriminator(part))), None)


def _default(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "its keys' own"
    return "" if schema.get("default") is None else f"`{_cell(json.dumps(schema['default'], ensure_ascii=False))}`"


def _range(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:g} to {schema['maximum']:g}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " " + " and ".join(bounds) if bounds else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
