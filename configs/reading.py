"""A config's file, with overrides, read and checked; what is wrong is told by file and key."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from configs.base import ConfigError
from configs.config import Config

# A config is written by hand, or by a tool that writes as a hand would; what is larger is something else.
MAX_YAML_CHARACTERS = 256 << 10
MAX_YAML_VALUES = 100_000


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read and check the config in `path`, with `a.b=value` overrides applied (values are YAML).

    Raises ConfigError naming file, key path and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. `recsys init --data FILE` makes one.") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a null byte
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    tree = _parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__ if tree else 'nothing'}")
    for override in overrides:
        # One a line: orchestrators hand all of them over as one text, which may be empty.
        for line in filter(str.strip, override.splitlines()):
            _apply_override(tree, line)
    return config_from_tree(tree, path)


def config_from_tree(tree: Mapping[str, Any], path: str | Path) -> Config:
    """Check plain values as the config that lies, or will lie, in `path`. Raises ConfigError."""
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail, str(path)) for detail in error.errors())) from None
    config._path = Path(path)
    return config


def _parse_yaml(text: str, where: str) -> Any:
    if len(text) > MAX_YAML_CHARACTERS:
        raise ConfigError(f"{where}: has {len(text):,} characters, and a config has at most {MAX_YAML_CHARACTERS:,}")
    try:
        if "*" in text:  # perhaps an alias, which may stand for more aliases
            _check_expansion(YAML(typ="safe", pure=True).compose(StringIO(text)), where)
        return YAML(typ="safe", pure=True).load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: not valid YAML: {str(error.problem or error).splitlines()[0]}") from None
    except (
        YAMLError,
        ValueError,
    ) as error:  # ValueError: a value that is not what it looks like, as the date 2026-13-01
        raise ConfigError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: nested too deeply") from None


def _check_expansion(root: Any, where: str) -> None:
    """ConfigError where the nodes under `root`, aliases written out, are more than any config has, or endless."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known == 0:
            raise ConfigError(f"{where}:{node.start_mark.line + 1}: not valid YAML: an anchor that holds itself")
        if known is None:
            sizes[id(node)] = 0
            value = node.value if isinstance(node.value, list) else []
            inner = [each for pair in value for each in (pair if isinstance(pair, tuple) else (pair,))]
            known = sizes[id(node)] = 1 + sum(map(size, inner))
        if known > MAX_YAML_VALUES:
            raise ConfigError(
                f"{where}:{node.start_mark.line + 1}: its aliases stand for more than {MAX_YAML_VALUES:,} values"
            )
        return known

    if root is not None:
        size(root)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected KEY.PATH=VALUE, as in training.epochs=3")
    node: Any = tree
    for depth, part in enumerate(keys[:-1]):
        at: Any = _index(node, part, override) if isinstance(node, list) else part
        # A copy: what an anchor shares with another place in the file must not change there.
        node[at] = copy.copy(node[at]) if isinstance(node, list) else copy.copy(node.get(at, {}))
        node = node[at]
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {override}: {'.'.join(keys[: depth + 1])} is a single value, it has no keys")
    value = _parse_yaml(text, f"--set {override}")
    if isinstance(node, list):
        node[_index(node, keys[-1], override)] = value
    else:
        node[keys[-1]] = value


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"--set {override}: {part!r} is not an index of a list of {len(node)}")
    return int(part)


# Where pydantic puts the chosen kind or type into a location, which is no key of the file: features.u.vocabulary.oov.
_TAG_DEPTH = {"features": 2, "baselines": 2, "model": 1, "models": 3}


def _explain(detail: Any, path: str) -> str:
    location = list(detail["loc"])
    depth = _TAG_DEPTH.get(str(location[0]), 0) if location else 0
    if depth and len(location) > depth and location[depth] != "[key]":
        del location[depth]
    message, context = detail["msg"].removeprefix("Value error, "), detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            message = f"unknown key {location[-1]!r}"
        case "missing" if isinstance(location[-1], int):
            message = "a value is missing"
        case "missing":
            message = f"required key {location[-1]!r} is missing"
        case "union_tag_not_found":
            message = f"required key {context['discriminator']} is missing"
        case "union_tag_invalid":
            location.append(context["discriminator"].strip("'"))
            message = f"expected one of {context['expected_tags']}, got {context['tag']!r}"
        case "model_type" | "dict_type" | "model_attributes_type":
            message = f"expected keys and values, got {detail['input']!r}"
        case "value_error":
            pass
        case "string_pattern_mismatch":
            message = f"expected text that matches {context['pattern']}, got {detail['input']!r}"
        case "too_short" | "string_too_short":
            message = f"expected a length of at least {context['min_length']}, got {detail['input']!r}"
        case "invalid_key":
            message = "expected text"
        case _:
            message = f"{message.replace('Input should be', 'expected', 1)}, got {detail['input']!r}"
    if location and location[-1] == "[key]":
        location.pop()
        message = f"as a name, {message}"
    return f"{path}: {'.'.join(map(str, location)) + ': ' if location else ''}{message}"
