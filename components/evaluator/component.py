"""The TFX component: metrics of every model on every slice with TFMA, judged by the config's gates."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils
from tfx_bsl.public import tfxio

from components.artifacts import publish
from components.evaluator import gates
from components.evaluator.metrics import METRICS, BinaryMetrics
from components.evaluator.slices import slice_batches
from components.examples import split_files
from components.outcomes import NodeId
from components.verdict import Ruling, Verdict
from configs import Config, canonical_json
from configs.features import LABEL
from configs.gates import BLESSED, MOST_BASELINES, Evaluation

JUDGED_SPLIT = "test"
PREDICTION = "outputs"
_BATCH = 8192


def eval_config(models: list[str], user: str, slices: list[list[str]]) -> config_pb2.EvalConfig:
    """Return TFMA's config: every metric, for every model, on all examples and on every slice."""
    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=name, signature_name="serve_examples", label_key=LABEL, prediction_key=PREDICTION)
            for name in models
        ],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=columns) for columns in slices)],
        metrics_specs=tfma.metrics.specs_from_metrics(
            [BinaryMetrics(user)],
            model_names=models,
            include_example_count=False,
            include_weighted_example_count=False,
        ),
    )
    # TFMA's own counts and resampling go by extracts, which are batches here; our metric brings its own intervals.
    config.options.include_default_metrics.value = False
    config.options.compute_confidence_intervals.value = False
    return config


def evaluate(
    root: beam.Pipeline, files: list[str], models: Mapping[str, str], user: str, slices: list[list[str]], output: str
) -> None:
    """Add to a Beam pipeline: evaluate the SavedModels at `models` on examples and write TFMA's results to `output`."""
    config = eval_config(list(models), user, slices)
    shared = [
        tfma.default_eval_shared_model(path, model_name=name, eval_config=config) for name, path in models.items()
    ]
    source = tfxio.TFExampleRecord(files, raw_record_column_name=tfma.ARROW_INPUT_COLUMN)
    _ = (
        root
        | "Read" >> source.BeamSource(batch_size=_BATCH)
        | "Evaluate"
        >> tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=shared,
            eval_config=config,
            extractors=[
                tfma.extractors.FeaturesExtractor(config),
                tfma.extractors.LabelsExtractor(config),
                tfma.extractors.PredictionsExtractor(config, shared),
                slice_batches(config, [user]),
            ],
            output_path=output,
        )
    )


def load_result(folder: str, model: str, models: Sequence[str]) -> tfma.EvalResult:
    """Return what TFMA wrote of `model`, which it evaluated beside the other `models`."""
    # TFMA drops the name of a model that was evaluated alone.
    return tfma.load_eval_result(folder, model_name=model if len(models) > 1 else "")


def read_metrics(folder: str, models: list[str]) -> tuple[dict[str, gates.Slices], dict[str, list[str]]]:
    """Return metrics by model and slice, and the columns of each slice, from what TFMA wrote."""
    by_model: dict[str, gates.Slices] = {}
    columns: dict[str, list[str]] = {}
    for model in models:
        result = load_result(folder, model, models)
        slices: dict[str, dict[str, float]] = {}
        for key, outputs in result.slicing_metrics:
            name = gates.slice_name([c for c, _ in key], [_text(v) for _, v in key])
            columns[name] = [c for c, _ in key]
            values = next(iter(next(iter(outputs.values())).values()))
            slices[name] = {metric: _number(values[metric]) for metric in METRICS if metric in values}
        by_model[model] = slices
    return by_model, columns


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: Mapping[str, Any]) -> float:
    return float(value["boundedValue"]["value"] if "boundedValue" in value else value.get("doubleValue", np.nan))


class EvaluatorSpec(ComponentSpec):
    """`evaluation` is JSON; `baselines` are the names of the models in inputs `baseline_0`, `baseline_1`, ..."""

    PARAMETERS = {
        "evaluation": ExecutionParameter(type=str),
        "user": ExecutionParameter(type=str),
        "baselines": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "blessed_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        **{
            f"baseline_{i}": ChannelParameter(type=standard_artifacts.Model, optional=True)
            for i in range(MOST_BASELINES)
        },
    }
    OUTPUTS = {
        "evaluation_result": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class EvaluatorExecutor(base_beam_executor.BaseBeamExecutor):
    """Evaluates and judges."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write TFMA's results and the verdict."""
        evaluation = Evaluation.model_validate_json(exec_properties["evaluation"])
        artifacts = {gates.CANDIDATE: artifact_utils.get_single_instance(input_dict["model"])}
        for index, name in enumerate(json.loads(exec_properties["baselines"])):
            artifacts[name] = artifact_utils.get_single_instance(input_dict[f"baseline_{index}"])
        if input_dict.get("blessed_model"):
            artifacts[BLESSED] = input_dict["blessed_model"][0]
        output = artifact_utils.get_single_instance(output_dict["evaluation_result"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        with self._make_beam_pipeline() as root:
            evaluate(
                root,
                split_files(examples, JUDGED_SPLIT),
                {name: path_utils.serving_model_path(artifact.uri) for name, artifact in artifacts.items()},
                exec_properties["user"],
                evaluation.slices,
                output.uri,
            )
        models, columns = read_metrics(output.uri, list(artifacts))
        judgements = gates.judge(evaluation.gates, models, columns)
        verdict = verdict_of(judgements, models)
        details = {
            "blessed": verdict.accepted,
            "split": JUDGED_SPLIT,
            "judgements": [j.as_dict() for j in judgements],
            "metrics": {m: s.get(gates.OVERALL, {}) for m, s in models.items()},
        }
        _bless(output_dict, input_dict, verdict, details)


def verdict_of(judgements: Sequence[gates.Judgement], models: Mapping[str, gates.Slices]) -> Verdict:
    """Return what the judgements come to; `models` are their metrics by slice."""
    overall = models[gates.CANDIDATE].get(gates.OVERALL, {})
    failed = sorted((j for j in judgements if not j.passed), key=lambda j: np.nan_to_num(j.margin, nan=-np.inf))
    shown = (("auc", "AUC"), ("logloss", "LogLoss"), ("gauc", "GAUC"))
    figures = ", ".join(f"{title} {overall.get(metric, np.nan):.4f}" for metric, title in shown)
    count = len(judgements)
    if not failed:
        return Verdict(
            by=NodeId.EVALUATOR, ruling=Ruling.ACCEPTED, summary=f"blessed: {count} conditions hold; {figures}"
        )
    return Verdict(
        by=NodeId.EVALUATOR,
        ruling=Ruling.REFUSED,
        summary=f"refused: {len(failed)} of {count} conditions fail; {figures}",
        sentence=f"The model gate refused the model: {len(failed)} of {count} condition{'s' * (count > 1)} "
        f"fail{'s' * (len(failed) == 1)}. It was not pushed; the version now served stays.",
        reasons=tuple(j.as_reason() for j in failed),
        next="Fix the model, or the data behind the slice; where the limit is wrong, change `evaluation.gates`. "
        "The version now served stays.",
    )


def _bless(output_dict, input_dict, verdict: Verdict, details: Mapping[str, Any]) -> None:
    """Publish the verdict, marked as TFX's Evaluator does, so that its resolver finds the latest blessed model."""
    blessing = artifact_utils.get_single_instance(output_dict["blessing"])
    model = artifact_utils.get_single_instance(input_dict["model"])
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)
    examples = artifact_utils.get_single_instance(input_dict["examples"])
    publish(verdict, blessing, examples.span or 0, details)
    with open(os.path.join(blessing.uri, "BLESSED" if verdict.accepted else "NOT_BLESSED"), "w"):
        pass


class Evaluator(base_beam_component.BaseBeamComponent):
    """Blesses the candidate or refuses it."""

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)

    def __init__(
        self,
        config: Config,
        code: str,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        blessed_model: types.BaseChannel,
        baselines: Mapping[str, types.BaseChannel],
    ):
        super().__init__(
            spec=EvaluatorSpec(
                evaluation=canonical_json(config.evaluation),
                user=config.data.user,
                baselines=json.dumps(list(baselines)),
                code=code,
                examples=examples,
                model=model,
                blessed_model=blessed_model,
                evaluation_result=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
                **{f"baseline_{index}": channel for index, channel in enumerate(baselines.values())},
            )
        )
