"""The graph: which node feeds which. A pure function of the config; no file is read but our own source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorflow_data_validation import StatsOptions
from tfx.components import ExampleValidator
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.orchestration.pipeline import Pipeline
from tfx.types import Channel, standard_artifacts

from components.artifacts import DataBlessing
from components.assembler import Assembler
from components.beam import IN_PROCESS, pipeline_arguments
from components.data_gate import DataGate
from components.evaluator.component import Evaluator
from components.ingest.component import Ingest
from components.outcomes import NodeId, baseline_node
from components.pusher import Pusher
from components.report.component import Report
from components.resolvers import LatestAcceptedData, LatestBlessedModel
from components.schema import CuratedSchema, column_types
from components.serving_check import ServingCheck
from components.statistics import StatisticsGen
from components.trainer import feature_table, trainer
from components.transform.component import Transform
from configs import Config
from configs.data import span_number
from configs.features import columns_to_json
from pipeline.running.store import connection

_TRANSFORMED_FILES = 4  # at least


def create_pipeline(
    config: Config,
    accepted: type[ResolverStrategy] = LatestAcceptedData,
    blessed: type[ResolverStrategy] = LatestBlessedModel,
) -> Pipeline:
    """Return the TFX pipeline of a config: logs to pushed model.

    `accepted` and `blessed` find what earlier runs left.
    """
    columns = columns_to_json(config.raw_columns.values())
    # Only our own strategies look at spans.
    before = {"before": span_number(config.data.span)} if config.data.span and accepted is LatestAcceptedData else {}
    data = _data_nodes(config, accepted, before)
    models = _model_nodes(config, columns, data)
    judges = _judging_nodes(config, columns, blessed, before, data, models)
    judged = [*data.all(), *models.all(), *judges.all()]
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=f"{config.runs_folder}/artifacts",
        components=[*judged, _report(config, judged, data, models, judges)],
        enable_cache=True,
        metadata_connection_config=connection(config),
        beam_pipeline_args=pipeline_arguments(config.beam.runner, config.beam.args),
    )


@dataclass(frozen=True)
class _DataNodes:
    ingest: BaseNode
    statistics: BaseNode
    schema: BaseNode
    validator: BaseNode
    accepted: BaseNode
    gate: BaseNode
    transform: BaseNode

    def all(self) -> list[BaseNode]:
        return [
            self.ingest, self.statistics, self.schema, self.validator, self.accepted, self.gate, self.transform,
        ]  # fmt: skip


@dataclass(frozen=True)
class _ModelNodes:
    candidate: BaseNode
    retrieval: list[BaseNode]
    assembler: BaseNode
    baselines: Mapping[str, BaseNode]

    def all(self) -> list[BaseNode]:
        return [self.candidate, *self.retrieval, self.assembler, *self.baselines.values()]


@dataclass(frozen=True)
class _JudgingNodes:
    blessed: BaseNode
    evaluator: BaseNode
    serving_check: BaseNode
    pusher: BaseNode

    def all(self) -> list[BaseNode]:
        return [self.blessed, self.evaluator, self.serving_check, self.pusher]


def _data_nodes(config: Config, accepted: type[ResolverStrategy], before: dict[str, int]) -> _DataNodes:
    """From logs to transformed examples."""
    ingest = Ingest(config, evidence=f"{config.runs_folder}/refused")
    statistics = StatisticsGen(examples=ingest.outputs["examples"], stats_options=_statistics_options(config))
    schema = CuratedSchema(config, statistics.outputs["statistics"])
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    accepted_data = Resolver(strategy_class=accepted, config=before, blessing=Channel(type=DataBlessing)).with_id(
        NodeId.ACCEPTED_DATA
    )
    gate = DataGate(
        config,
        examples=ingest.outputs["examples"],
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        baseline=accepted_data.outputs["blessing"],
    )
    transform = Transform(
        examples=ingest.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="transforms.preprocessing.preprocessing_fn",
        custom_config={
            "features": feature_table(config),
            "time": config.data.time,
            **({"weight": config.data.weight} if config.data.weight else {}),
        },
        disable_statistics=True,
        disable_analyzer_cache=True,  # nothing reads it
    )
    if config.beam.runner == IN_PROCESS:
        # The default is one file, and training deals out files to workers.
        bundles = max(_TRANSFORMED_FILES, config.training.workers)
        transform.with_beam_pipeline_args([f"--direct_num_workers={bundles}", "--direct_running_mode=in_memory"])
    # No channel leads from the verdict to the transform, but nothing may be learnt from data that was refused.
    transform.add_upstream_node(gate)
    return _DataNodes(ingest, statistics, schema, validator, accepted_data, gate, transform)


def _model_nodes(config: Config, columns: str, data: _DataNodes) -> _ModelNodes:
    """From transformed examples to trained models."""

    def train(model, name: str, training=config.training):
        return trainer(
            config,
            model,
            training,
            data.transform.outputs["transformed_examples"],
            data.transform.outputs["transform_graph"],
        ).with_id(name)

    candidate = train(config.model, NodeId.TRAINER)
    stages = {"ranker": candidate.outputs["model"]}
    retrieval: list[BaseNode] = []
    if config.retrieval.model is not None:
        retrieval = [train(config.retrieval.model, NodeId.RETRIEVAL, config.training_of(config.retrieval))]
        stages["retrieval_model"] = retrieval[0].outputs["model"]
    assembler = Assembler(
        config,
        columns,
        catalogue=data.ingest.outputs["catalogue"],
        **stages,
    )
    baselines: Mapping[str, BaseNode] = {name: train(m, baseline_node(name)) for name, m in config.baselines.items()}
    return _ModelNodes(candidate, retrieval, assembler, baselines)


def _judging_nodes(
    config: Config,
    columns: str,
    blessed: type[ResolverStrategy],
    before: dict[str, int],
    data: _DataNodes,
    models: _ModelNodes,
) -> _JudgingNodes:
    """From trained models to the pushed one."""
    blessed_model = Resolver(
        strategy_class=blessed,
        config={**before, "split": config.split_digest} if blessed is LatestBlessedModel else {},
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id(NodeId.BLESSED_MODEL)
    evaluator = Evaluator(
        config,
        examples=data.ingest.outputs["examples"],
        catalogue=data.ingest.outputs["catalogue"],
        model=models.assembler.outputs["model"],
        report=data.ingest.outputs["report"],
        blessed_model=blessed_model.outputs["model"],
        blessed=blessed_model.outputs["model_blessing"],
        baselines={name: node.outputs["model"] for name, node in models.baselines.items()},
    )
    serving_check = ServingCheck(
        config,
        columns,
        model=models.assembler.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        examples=data.ingest.outputs["examples"],
    )
    pusher = Pusher(
        config,
        columns,
        model=models.assembler.outputs["model"],
        blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        examples=data.ingest.outputs["examples"],
        report=data.ingest.outputs["report"],
        catalogue=data.ingest.outputs["catalogue"],
    )
    return _JudgingNodes(blessed_model, evaluator, serving_check, pusher)


def _report(
    config: Config, judged: list[BaseNode], data: _DataNodes, models: _ModelNodes, judges: _JudgingNodes
) -> Report:
    """Whatever became of the others."""
    return Report(
        config,
        nodes=[node.id for node in judged],
        examples=data.ingest.outputs["examples"],
        report=data.ingest.outputs["report"],
        statistics=data.statistics.outputs["statistics"],
        data_blessing=data.gate.outputs["blessing"],
        baseline=data.accepted.outputs["blessing"],
        transform_graph=data.transform.outputs["transform_graph"],
        transformed_examples=data.transform.outputs["transformed_examples"],
        model_run=models.candidate.outputs["model_run"],
        evaluation=judges.evaluator.outputs["evaluation_result"],
        model_blessing=judges.evaluator.outputs["blessing"],
        infra_blessing=judges.serving_check.outputs["blessing"],
        pushed_model=judges.pusher.outputs["pushed_model"],
    )


def _statistics_options(config: Config) -> StatsOptions | None:
    """Leave sequences out: they repeat what another column holds, dozens of times a row."""
    sequences = {column.name for column in config.raw_columns.values() if column.length is not None}
    if not sequences:
        return None
    return StatsOptions(feature_allowlist=[name for name in column_types(config) if name not in sequences])
