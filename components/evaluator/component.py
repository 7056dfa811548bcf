"""The TFX component: metrics of every model on every slice with TFMA, judged by the config's gates."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
import yaml
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils
from tfx_bsl.public import tfxio

from components.artifacts import Catalogue, IngestReport, publish
from components.evaluator import gates
from components.evaluator.comparable import Split, comparable
from components.evaluator.metrics import COMPARED, METRICS, BinaryMetrics, of_one_label
from components.evaluator.ranking.by import RankedBy
from components.evaluator.ranking.metrics import COUNTS, metric_title
from components.evaluator.ranking.ranked import RankingMetrics
from components.evaluator.shown import shown_metrics
from components.evaluator.slices import slice_batches
from components.examples import split_files
from components.outcomes import NodeId
from components.verdict import Ruling, Verdict
from configs import Config, canonical_json
from configs.features import LABEL
from configs.gates import BLESSED, MOST_BASELINES, Evaluation, at_k
from configs.model import Model

JUDGED_SPLIT = "test"
PREDICTION = "outputs"
_BATCH = 8192
_MOST_FIGURES = 5  # in a line


def eval_config(
    models: list[str], user: str, slices: list[list[str]], ranked: RankingMetrics | None = None
) -> config_pb2.EvalConfig:
    """Return TFMA's config: every metric, for every model, on all examples and on every slice.

    `ranked` holds the metrics of lists, where they were made.
    """
    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=name, signature_name="serve_examples", label_key=LABEL, prediction_key=PREDICTION)
            for name in models
        ],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=columns) for columns in slices)],
        metrics_specs=tfma.metrics.specs_from_metrics(
            [BinaryMetrics(user), *([ranked] if ranked is not None else [])],
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
    root: beam.Pipeline,
    files: list[str],
    models: Mapping[str, str],
    user: str,
    slices: list[list[str]],
    output: str,
    ranked: RankingMetrics | None = None,
) -> None:
    """Add to a Beam pipeline: evaluate the SavedModels at `models` on examples and write TFMA's results to `output`."""
    config = eval_config(list(models), user, slices, ranked)
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
                slice_batches(config, [user, *([ranked.item] if ranked is not None else [])]),
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
            shown = [m for m in values if m in METRICS or m in COUNTS or at_k(m)]
            slices[name] = {metric: _number(values[metric]) for metric in shown}
        if of_one_label(slices.get(gates.OVERALL, {})):  # what tells positives from negatives says nothing here
            slices = {name: {m: np.nan if m in COMPARED else v for m, v in of.items()} for name, of in slices.items()}
        by_model[model] = slices
    return by_model, columns


def read_intervals(folder: str, models: list[str]) -> dict[str, dict[str, dict[str, gates.Interval]]]:
    """Return 95 % intervals by model, slice and metric: the first model's own, the others' of its differences."""
    found: dict[str, dict[str, dict[str, gates.Interval]]] = {}
    for model in models:
        of_slices = found.setdefault(model, {})
        ending = "" if model == models[0] else "_diff"
        for key, outputs in load_result(folder, model, models).slicing_metrics:
            name = gates.slice_name([c for c, _ in key], [_text(v) for _, v in key])
            values = next(iter(next(iter(outputs.values())).values()))
            of_slices[name] = {
                metric.removesuffix(ending): (bounds.get("lowerBound", 0.0), bounds.get("upperBound", 0.0))
                for metric, value in values.items()
                if metric.endswith(ending) and (bounds := value.get("boundedValue"))
            }
    return found


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: Mapping[str, Any]) -> float:
    return float(value["boundedValue"]["value"] if "boundedValue" in value else value.get("doubleValue", np.nan))


class EvaluatorSpec(ComponentSpec):
    """`evaluation` and `split` are JSON; `baselines` too: the models in inputs `baseline_0`, ... by name.

    `ranked` is JSON as well, given where lists of the best items are judged: `RankedBy`.
    """

    PARAMETERS = {
        "evaluation": ExecutionParameter(type=str),
        "user": ExecutionParameter(type=str),
        "baselines": ExecutionParameter(type=str),
        "split": ExecutionParameter(type=str),
        "ranked": ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "report": ChannelParameter(type=IngestReport),
        "blessed_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "blessed": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "catalogue": ChannelParameter(type=Catalogue, optional=True),
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
        baselines: Mapping[str, Any] = json.loads(exec_properties["baselines"])
        split = Split.read(exec_properties["split"], artifact_utils.get_single_uri(input_dict["report"]))
        artifacts = {gates.CANDIDATE: artifact_utils.get_single_instance(input_dict["model"])}
        for index, name in enumerate(baselines):
            artifacts[name] = artifact_utils.get_single_instance(input_dict[f"baseline_{index}"])
        blessed, not_comparable = comparable(split, input_dict.get("blessed_model", []), input_dict.get("blessed", []))
        artifacts |= dict(zip((BLESSED, gates.BEST), blessed, strict=False))
        output = artifact_utils.get_single_instance(output_dict["evaluation_result"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        paths = {name: path_utils.serving_model_path(artifact.uri) for name, artifact in artifacts.items()}
        ranked = None
        if exec_properties.get("ranked"):
            by = RankedBy.from_json(exec_properties["ranked"])
            catalogue = artifact_utils.get_single_uri(input_dict["catalogue"])
            ranked = by.rank(paths, partial(split_files, examples), catalogue, output.uri)
        with self._make_beam_pipeline() as root:
            evaluate(
                root,
                split_files(examples, JUDGED_SPLIT),
                paths,
                exec_properties["user"],
                evaluation.slices,
                output.uri,
                ranked,
            )
        models, columns = read_metrics(output.uri, list(artifacts))
        intervals = read_intervals(output.uri, list(artifacts))
        evidence = gates.Evidence(models, columns, intervals, list(baselines), not_comparable)
        judgements = gates.judge(evaluation.gates, evidence)
        verdict = verdict_of(judgements, evidence, baselines)
        details = {
            "blessed": verdict.accepted,
            "split": JUDGED_SPLIT,
            "judgements": [j.as_dict() for j in judgements],
            "metrics": {m: s.get(gates.OVERALL, {}) for m, s in models.items()},
        }
        against = input_dict["blessed"][0].id if blessed and input_dict.get("blessed") else None
        _bless(output_dict, input_dict, verdict, details)
        split.mark(artifact_utils.get_single_instance(output_dict["blessing"]), against)


def verdict_of(
    judgements: Sequence[gates.Judgement], evidence: gates.Evidence, baselines: Mapping[str, Any]
) -> Verdict:
    """Return what the judgements come to. `baselines` are the declarations of the baselines' models, by name."""
    overall = evidence.models[gates.CANDIDATE].get(gates.OVERALL, {})
    failed = sorted((j for j in judgements if not j.passed), key=lambda j: np.nan_to_num(j.margin, nan=-np.inf))
    titles = {"auc": "AUC", "logloss": "LogLoss", "gauc": "GAUC"} | {m: metric_title(m) for m in overall if at_k(m)}
    shown = [m for m in titles if m in overall and not np.isnan(overall[m])]  # of positives alone there is no AUC
    figures = ", ".join(f"{titles[metric]} {overall[metric]:.4f}" for metric in shown[:_MOST_FIGURES])
    count, skipped = sum(j.judged for j in judgements), sum(not j.judged for j in judgements)
    held = f"{count} condition{'s hold' if count != 1 else ' holds'}" + (f", {skipped} not judged" if skipped else "")
    notes = better_baseline(judgements, evidence, baselines)
    if not failed:
        return Verdict(
            by=NodeId.EVALUATOR, ruling=Ruling.ACCEPTED, summary=f"blessed: {held}; {figures}", notes=tuple(notes)
        )
    return Verdict(
        by=NodeId.EVALUATOR,
        ruling=Ruling.REFUSED,
        summary=f"refused: {len(failed)} of {count} conditions fail; {figures}",
        sentence=f"The model gate refused the model: {len(failed)} of {count} condition{'s' * (count > 1)} "
        f"fail{'s' * (len(failed) == 1)}. It was not pushed; the version now served stays.",
        reasons=tuple(j.as_reason() for j in failed),
        notes=tuple(notes),
        next="Fix the model, or the data behind the slice; where the limit is wrong, change `evaluation.gates`. "
        "The version now served stays.",
    )


def better_baseline(
    judgements: Sequence[gates.Judgement], evidence: gates.Evidence, baselines: Mapping[str, Any]
) -> list[str]:
    """Return that a baseline is better than the candidate, and how to serve it; nothing where none is.

    Better is one that a gate was lost to, or whose AUC is higher by more than noise; NDCG where there is no AUC.
    """
    of_all = {name: by_slice.get(gates.OVERALL, {}) for name, by_slice in evidence.models.items()}
    metric, title = next(iter(shown_metrics(of_all[gates.CANDIDATE]).items()))
    values = {name: metrics.get(metric, np.nan) for name, metrics in of_all.items()}
    lost = {j.against for j in judgements if not j.passed}
    better = []
    for name in baselines:
        interval = evidence.interval(name, gates.OVERALL, metric)
        if name in lost or (interval is not None and interval[1] < 0):
            better.append(name)
    if not better:
        return []
    best = max(better, key=lambda name: np.nan_to_num(values[name], nan=-np.inf))
    model = yaml.safe_dump(baselines[best], default_flow_style=True, sort_keys=False, width=10_000).strip()
    return [
        f"The baseline {best} is better on the test split: {title} {values[best]:.4f} against "
        f"{values[gates.CANDIDATE]:.4f}. To train, judge and serve that one: "
        f"`recsys run CONFIG --set 'model={model}'`, or that `model` in the config."
    ]


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
        examples: types.BaseChannel,
        model: types.BaseChannel,
        report: types.BaseChannel,
        blessed_model: types.BaseChannel,
        blessed: types.BaseChannel,
        baselines: Mapping[str, types.BaseChannel],
        catalogue: types.BaseChannel,
    ):
        ranked = RankedBy.of(config)
        super().__init__(
            spec=EvaluatorSpec(
                evaluation=canonical_json(config.judged_by),
                user=config.data.user,
                baselines=json.dumps({name: declared(config.baselines[name]) for name in baselines}),
                split=json.dumps({"digest": config.split_digest, "by": config.data.split.by}),
                **({"ranked": ranked.to_json(), "catalogue": catalogue} if ranked is not None else {}),
                examples=examples,
                model=model,
                report=report,
                blessed_model=blessed_model,
                blessed=blessed,
                evaluation_result=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
                **{f"baseline_{index}": channel for index, channel in enumerate(baselines.values())},
            )
        )


def declared(model: Model) -> dict[str, Any]:
    """Return a model's declaration as one writes it: what is set, without defaults."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)
