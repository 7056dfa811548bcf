"""The curated schema: read from beside the config, held against it, and inferred while there is none yet."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_driver, base_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.refusal import RefusedError
from configs import Config
from configs.features import DERIVED_COLUMNS, LABEL

SCHEMA_FILE = "schema.pbtxt"
_TYPES = {"string": schema_pb2.BYTES, "float": schema_pb2.FLOAT, "int64": schema_pb2.INT}
_MAX_DOMAIN = 100
_NEW_VALUES_ALLOWED = 0.95  # share of a text column's values that must lie in its domain
_MOSTLY_THERE = 0.5
_PRESENCE_SLACK = 0.9  # a column may be missing a little more often than when the schema was made


def column_types(config: Config) -> dict[str, str]:
    """Return the type of every column of the examples that ingest writes."""
    return {
        config.data.user: "string",
        config.data.item: "string",
        **({config.data.time: "int64"} if config.data.time else {}),
        **({config.data.weight: "float"} if config.data.weight else {}),
        **{c.name: c.type for c in config.raw_columns.values()},
        **({config.data.display: "string"} if config.data.display else {}),
        **dict.fromkeys(DERIVED_COLUMNS, "string"),
        LABEL: "float",
    }


def infer_schema(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, columns: Mapping[str, str], required: list[str]
) -> schema_pb2.Schema:
    """Return a schema for the examples that `statistics` describe, with some room for what comes next.

    Columns that no row had yet are in it, as optional. `required` ones must always be there.
    """
    schema = tfdv.infer_schema(statistics, infer_feature_shape=False, max_string_domain_size=_MAX_DOMAIN)
    known = {feature.name: feature for feature in schema.feature}
    for name, type_ in columns.items():
        feature = known.get(name) or schema.feature.add(name=name)
        feature.type = _TYPES[type_]
        if name in required:
            feature.presence.min_fraction, feature.presence.min_count = 1.0, 1
        elif feature.HasField("presence") and feature.presence.min_fraction:
            fraction = feature.presence.min_fraction
            # Of a column that most rows lack, splits and days differ too much to hold them to a share.
            feature.presence.min_fraction = round(fraction * _PRESENCE_SLACK, 2) if fraction >= _MOSTLY_THERE else 0.0
        if feature.WhichOneof("domain_info") == "domain":
            feature.distribution_constraints.min_domain_mass = _NEW_VALUES_ALLOWED
        if name in DERIVED_COLUMNS or name in required:
            _forget_domain(schema, feature)
        if feature.type == schema_pb2.BYTES and feature.WhichOneof("domain_info") == "int_domain":
            feature.ClearField("int_domain")  # ids that have been numbers so far are text all the same
        if name == LABEL:
            feature.float_domain.min, feature.float_domain.max = 0.0, 1.0
    return schema


def free_sequences(schema: schema_pb2.Schema, names: list[str]) -> None:
    """Have the list columns that ingest makes in the schema, free of limits: they are no part of the logs' contract."""
    for feature in [f for f in schema.feature if f.name in names]:
        _forget_domain(schema, feature)
        schema.feature.remove(feature)
    for name in names:
        schema.feature.add(name=name, type=schema_pb2.BYTES)


def read_schema(path: str) -> schema_pb2.Schema:
    """Read a schema's text. Raises RefusedError where it is none."""
    with open(path, encoding="utf-8") as stream:
        try:
            return text_format.Parse(stream.read(), schema_pb2.Schema())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise RefusedError(
                f"{path}: not a TensorFlow Metadata schema: {error}. Mend it or take it from git."
            ) from None


def check_against_config(schema: schema_pb2.Schema, columns: Mapping[str, str], path: str) -> None:
    """Raise RefusedError where the curated schema and the config contradict each other."""
    known = {feature.name: feature for feature in schema.feature}
    problems = []
    for name, type_ in columns.items():
        if name not in known:
            if name not in DERIVED_COLUMNS:
                problems.append(f"column {name!r} of the config is not in the schema")
        elif known[name].type != _TYPES[type_]:
            found = schema_pb2.FeatureType.Name(known[name].type)
            problems.append(f"column {name!r} is {found} in the schema and {type_} in the config")
    if problems:
        raise RefusedError(
            f"{path}: {'; '.join(problems)}. `recsys schema diff` shows more, `recsys schema accept` takes the new one."
        )


def _forget_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> None:
    if feature.WhichOneof("domain_info") == "domain":
        domain = feature.domain
        feature.ClearField("domain")
        for index, known in enumerate(schema.string_domain):
            if known.name == domain:
                del schema.string_domain[index]
                break
    feature.ClearField("distribution_constraints")


class CuratedSchemaSpec(ComponentSpec):
    """`columns` and `required` are JSON; `text_digest` is filled in by the driver and makes the cache key."""

    PARAMETERS = {
        "path": ExecutionParameter(type=str),
        "columns": ExecutionParameter(type=str),
        "required": ExecutionParameter(type=str),
        "sequences": ExecutionParameter(type=str),
        "text_digest": ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {"statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics)}
    OUTPUTS = {"schema": ChannelParameter(type=standard_artifacts.Schema)}


class CuratedSchemaDriver(base_driver.BaseDriver):
    """Puts the file's digest into the parameters before the cache is asked."""

    def run(self, execution_info) -> driver_output_pb2.DriverOutput:
        """Resolve `text_digest`."""
        path = execution_info.exec_properties["path"]
        digest = "none"
        if os.path.exists(path):
            with open(path, "rb") as stream:
                digest = hashlib.sha256(stream.read()).hexdigest()
        result = driver_output_pb2.DriverOutput()
        data_types_utils.set_metadata_value(result.exec_properties["text_digest"], digest)
        return result


class CuratedSchemaExecutor(base_executor.BaseExecutor):
    """Reads the curated schema, or infers one from the training split."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write the schema. Raises RefusedError."""
        path = exec_properties["path"]
        columns, sequences = json.loads(exec_properties["columns"]), json.loads(exec_properties["sequences"])
        output = artifact_utils.get_single_instance(output_dict["schema"])
        if os.path.exists(path):
            schema = read_schema(path)
            free_sequences(schema, sequences)
            check_against_config(schema, columns, path)
            # The examples hold what the config names; what else the schema knows is not looked for in them.
            kept = [feature for feature in schema.feature if feature.name in columns]
            del schema.feature[:]
            schema.feature.extend(kept)
            origin = f"curated, {len(kept)} columns"
        else:
            statistics = load_statistics(artifact_utils.get_single_instance(input_dict["statistics"]), "train")
            schema = infer_schema(statistics, columns, json.loads(exec_properties["required"]))
            free_sequences(schema, sequences)
            origin = f"inferred from this run: no {os.path.basename(path)} yet; `recsys schema accept` keeps it"
        for feature in schema.feature:
            feature.ClearField("shape")  # a missing value must stay a missing value
        tfdv.write_schema_text(schema, os.path.join(output.uri, SCHEMA_FILE))
        output.set_string_custom_property("summary", origin)


class CuratedSchema(base_component.BaseComponent):
    """The schema that examples are held against."""

    SPEC_CLASS = CuratedSchemaSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CuratedSchemaExecutor)
    DRIVER_CLASS = CuratedSchemaDriver

    def __init__(self, config: Config, statistics: types.BaseChannel):
        super().__init__(
            spec=CuratedSchemaSpec(
                path=config.schema_path,
                columns=json.dumps(column_types(config)),
                required=json.dumps(config.required_columns),
                sequences=json.dumps([c.name for c in config.raw_columns.values() if c.length is not None]),
                statistics=statistics,
                schema=types.Channel(type=standard_artifacts.Schema),
            )
        )


def load_statistics(artifact: types.Artifact, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Read the statistics that StatisticsGen wrote for a split."""
    return tfdv.load_stats_binary(os.path.join(artifact_utils.get_split_uri([artifact], split), "FeatureStats.pb"))
