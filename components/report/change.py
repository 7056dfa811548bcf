"""Configs as people read them, and how two of them differ."""

from __future__ import annotations

import difflib
import json

import yaml


def config_text(config: str) -> str:
    """Return a config's canonical JSON as YAML that people read."""
    return yaml.safe_dump(json.loads(config), sort_keys=True, allow_unicode=True, width=100)


def config_change(before: str, now: str, names: tuple[str, str] = ("last run", "this run")) -> list[str]:
    """Return how two configs differ, as lines of a unified diff; empty where they are equal."""
    return list(difflib.unified_diff(before.splitlines(), now.splitlines(), *names, lineterm="", n=2))
