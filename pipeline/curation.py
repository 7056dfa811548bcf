"""The curated schema and the newest data: how they differ, and making the one follow the other."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.orchestration import metadata
from tfx.types import artifact_utils

from components.schema import column_types, infer_schema, load_statistics, read_schema
from configs import Config, ConfigError
from pipeline.running.store import connection, store_exists


@dataclass(frozen=True)
class SchemaChange:
    """The curated schema's file, its text now, and the text that the newest data suggest."""

    path: str
    old: str
    new: str

    @property
    def lines(self) -> list[str]:
        """The change as a unified diff; empty where there is none."""
        name = os.path.basename(self.path)
        return list(
            difflib.unified_diff(
                self.old.splitlines(), self.new.splitlines(), f"{name} (curated)", f"{name} (newest data)", lineterm=""
            )
        )

    def text(self) -> str:
        """The change as a person reads it."""
        return "\n".join(self.lines) or "the curated schema fits the newest data"

    def accept(self) -> None:
        """Write the new text, whole or not at all."""
        temporary = f"{self.path}.partial"
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(self.new)
        os.replace(temporary, self.path)


def schema_change(config: Config) -> SchemaChange:
    """Compare the curated schema with one inferred from the newest statistics, accepted or refused.

    What a person added to the curated schema for columns that are still there stays: only types, presence, domains
    and columns follow the data. Raises ConfigError where no run has made statistics yet.
    """
    statistics = _newest_statistics(config)
    inferred = infer_schema(statistics, column_types(config), config.required_columns)
    path = config.schema_path
    old = schema_pb2.Schema()
    if os.path.exists(path):
        old = read_schema(path)
    merged = _merged(old, inferred)
    return SchemaChange(
        path, text_format.MessageToString(old) if old.feature else "", text_format.MessageToString(merged)
    )


def _merged(old: schema_pb2.Schema, new: schema_pb2.Schema) -> schema_pb2.Schema:
    merged = schema_pb2.Schema()
    merged.CopyFrom(new)
    known = {feature.name: feature for feature in old.feature}
    domains = {domain.name: domain for domain in old.string_domain}
    for feature in merged.feature:
        before = known.get(feature.name)
        if before is None:
            continue
        for field in ("drift_comparator", "skew_comparator", "annotation", "lifecycle_stage", "not_in_environment"):
            feature.ClearField(field)
            if field == "not_in_environment":
                feature.not_in_environment.extend(before.not_in_environment)
            elif before.HasField(field):
                value = getattr(before, field)
                setattr(feature, field, value) if isinstance(value, int) else getattr(feature, field).CopyFrom(value)
        if before.presence.min_fraction and before.presence.min_fraction < feature.presence.min_fraction:
            feature.presence.min_fraction = before.presence.min_fraction
        # A value seen before and not today is still a value; the domain only grows.
        if feature.WhichOneof("domain_info") == "domain" and before.domain in domains:
            domain = next(d for d in merged.string_domain if d.name == feature.domain)
            values = sorted({*domain.value, *domains[before.domain].value})
            del domain.value[:]
            domain.value.extend(values)
            feature.distribution_constraints.min_domain_mass = before.distribution_constraints.min_domain_mass
    return merged


def _newest_statistics(config: Config):
    if store_exists(config):
        with metadata.Metadata(connection(config)) as handle:
            found = handle.store.get_artifacts_by_type("ExampleStatistics")
            types = {t.id: t for t in handle.store.get_artifact_types()}
            for artifact in sorted(found, key=lambda a: a.id, reverse=True):
                if os.path.exists(artifact.uri):
                    return load_statistics(
                        artifact_utils.deserialize_artifact(types[artifact.type_id], artifact), "train"
                    )
    raise ConfigError(f"no run of {config.name} has made statistics yet; `recsys run {config.path}` first")
