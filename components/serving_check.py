"""The serving check: a blessed model is served by a fresh server process before it is pushed.

It asks TensorFlow Serving where its binary is installed, the project's own server otherwise, over gRPC and REST, and
holds the answers to what the evaluation's signature says of the same rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.artifacts import VERDICT, publish
from components.evaluator.component import JUDGED_SPLIT, PREDICTION
from components.examples import read_serialized
from components.outcomes import NodeId
from components.refusal import RefusedError
from components.requests import named_columns
from components.uncached import UncachedDriver
from components.verdict import Reason, Ruling, Verdict
from configs import Config, canonical_json
from configs.features import RawColumn, columns_from_json
from configs.serving import ServingCheck as CheckConfig
from serving.check import TENSORFLOW_SERVING, Budget, CheckResult, serving_check

RESULT_FILE = "serving_check.json"


def check(
    model: str, name: str, columns: Mapping[str, RawColumn], examples: list[bytes], limits: CheckConfig
) -> CheckResult:
    """Serve the SavedModel at `model` as `name` and ask for the serialized `examples`, as named columns."""
    loaded = tf.saved_model.load(model)
    expected = loaded.signatures["serve_examples"](inputs=tf.constant(examples))[PREDICTION].numpy()
    features = named_columns(columns, ExamplesToRecordBatchDecoder().DecodeBatch(examples))
    budget = Budget(p50_ms=limits.p50_ms, resident_mib=limits.resident_mib, tolerance=limits.tolerance)
    return serving_check(model, name, features, expected, budget=budget)


class ServingCheckSpec(ComponentSpec):
    """`columns` and `limits` are JSON."""

    PARAMETERS = {
        "model_name": ExecutionParameter(type=str),
        "columns": ExecutionParameter(type=str),
        "limits": ExecutionParameter(type=str),
        "asked_at": ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheckExecutor(base_executor.BaseExecutor):
    """Checks."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write verdict and what was seen. Raises RefusedError for a model that is not blessed."""
        if artifact_utils.get_single_instance(input_dict["model_blessing"]).get_int_custom_property(VERDICT) != 1:
            raise RefusedError("the model is not blessed, so it is not tried; the Evaluator's verdict says why")
        limits = CheckConfig.model_validate_json(exec_properties["limits"])
        columns = columns_from_json(exec_properties["columns"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        rows = next(read_serialized(examples, JUDGED_SPLIT, limits.rows))
        model = artifact_utils.get_single_instance(input_dict["model"])
        result = check(path_utils.serving_model_path(model.uri), exec_properties["model_name"], columns, rows, limits)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        publish(_verdict(result), blessing, examples.span or 0)
        with open(os.path.join(blessing.uri, RESULT_FILE), "w") as stream:
            json.dump(asdict(result), stream, indent=1)


def _verdict(result: CheckResult) -> Verdict:
    if result.ok:
        server = os.path.basename(result.server)
        seen = (
            f"{result.requests:,} requests answered as evaluated by "
            f"{server if server == TENSORFLOW_SERVING else 'our server'}: "
            f"p50 {result.p50_ms:.1f} ms, {result.resident_mib:,.0f} MiB, up in {result.start_seconds:.0f} s"
        )
        return Verdict(by=NodeId.SERVING_CHECK, ruling=Ruling.ACCEPTED, summary=seen, details=RESULT_FILE)
    return Verdict(
        by=NodeId.SERVING_CHECK,
        ruling=Ruling.REFUSED,
        summary=f"refused: {result.problems[0].splitlines()[0]}",
        sentence="The model passed its gates and failed in a real server. It was not pushed; the version now served "
        "stays.",
        reasons=tuple(Reason(text=problem) for problem in result.problems),
        next="Limits of latency, memory and tolerance are in `serving.check`. The version now served stays.",
        details=RESULT_FILE,
    )


class ServingCheck(base_component.BaseComponent):
    """Blesses a model that serves as it was evaluated."""

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ServingCheckExecutor)
    DRIVER_CLASS = UncachedDriver  # what answers is a server of this machine: which one, and how it fares, changes

    def __init__(self, config: Config, columns: str, **inputs: types.BaseChannel):
        super().__init__(
            spec=ServingCheckSpec(
                model_name=config.model_name,
                columns=columns,
                limits=canonical_json(config.serving.check),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
                **inputs,
            )
        )
