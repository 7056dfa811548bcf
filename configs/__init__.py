"""What to run: typed configs, one YAML a data set beside its curated schema."""

from configs.base import ConfigError, canonical_json, digest
from configs.config import Config
from configs.reading import config_from_tree, load_config

__all__ = ["Config", "ConfigError", "canonical_json", "config_from_tree", "digest", "load_config"]
