"""The TFX component: TFX's StatisticsGen, whose executor needs no Beam where one machine does the work."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation import types as tfdv_types
from tensorflow_data_validation.arrow import arrow_util
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.generators import basic_stats_generator, stats_generator
from tensorflow_data_validation.utils import stats_util, top_k_uniques_stats_util
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import components, types
from tfx.components.statistics_gen import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import json_utils
from tfx_bsl.arrow import array_util

from components.beam import runs_in_process
from components.counts import COUNT, VALUE, ValueCounts, most_frequent_first
from components.examples import read_batches

_BATCH = 1 << 15  # rows
_TEXT = statistics_pb2.FeatureNameStatistics.STRING
_Counts = dict[tfdv_types.FeaturePath, ValueCounts]


class ExactTopValues(stats_generator.CombinerStatsGenerator):
    """Text's most frequent values and how many differ, exact as on Beam: TFDV's own for use in memory is a sketch."""

    def __init__(self, options: tfdv.StatsOptions):
        super().__init__("ExactTopValues", options.schema)
        self._options = options

    def create_accumulator(self) -> _Counts:
        """Return counts of nothing."""
        return {}

    def add_input(self, accumulator: _Counts, input_record_batch: pa.RecordBatch) -> _Counts:
        """Count a batch's values."""
        for path, array, _ in arrow_util.enumerate_arrays(
            input_record_batch, example_weight_map=None, enumerate_leaves_only=True
        ):
            if stats_util.get_feature_type_from_arrow_type(path, array.type) == _TEXT:
                values, _ = array_util.flatten_nested(array)
                accumulator.setdefault(path, ValueCounts()).add(values)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Counts]) -> _Counts:
        """Add up counts."""
        merged, *others = accumulators
        for other in others:
            for path, counts in other.items():
                merged.setdefault(path, ValueCounts()).merge(counts)
        return merged

    def extract_output(self, accumulator: _Counts) -> statistics_pb2.DatasetFeatureStatistics:
        """Return each feature's most frequent values, their histogram by rank, and how many values differ."""
        options, result = self._options, statistics_pb2.DatasetFeatureStatistics()
        for path, counts in accumulator.items():
            table = counts.table()
            top = most_frequent_first(table).slice(0, max(options.num_top_values, options.num_rank_histogram_buckets))
            values = map(
                top_k_uniques_stats_util.FeatureValueCount,
                top.column(VALUE).to_pylist(),
                top.column(COUNT).to_pylist(),
            )
            result.features.add().CopyFrom(
                top_k_uniques_stats_util.make_feature_stats_proto_topk_uniques(
                    feature_path=path,
                    num_top_values=options.num_top_values,
                    num_rank_histogram_buckets=options.num_rank_histogram_buckets,
                    num_unique=table.num_rows,
                    value_count_list=list(values),
                    frequency_threshold=options.frequency_threshold,
                )
            )
        return result


def statistics_of(
    batches: Iterable[pa.RecordBatch], options: tfdv.StatsOptions
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return TFDV's default statistics of batches of lists, in one pass; of `options`
    only the columns to look at and how fine histograms are."""
    generators = [
        basic_stats_generator.BasicStatsGenerator(
            num_values_histogram_buckets=options.num_values_histogram_buckets,
            num_histogram_buckets=options.num_histogram_buckets,
            num_quantiles_histogram_buckets=options.num_quantiles_histogram_buckets,
            epsilon=options.epsilon,
        ),
        ExactTopValues(options),
    ]
    accumulators = [generator.create_accumulator() for generator in generators]
    for batch in batches:
        if options.feature_allowlist:
            batch = batch.select([name for name in options.feature_allowlist if name in batch.schema.names])
        accumulators = [g.add_input(a, batch) for g, a in zip(generators, accumulators, strict=True)]
    return stats_impl.extract_statistics_output(accumulators, generators)


class StatisticsExecutor(executor.Executor):
    """Computes statistics in this process where Beam would, and as TFX's own executor does where it would not.

    Both give the same counts and most frequent values; quantiles are sketches in both, within the same error.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the statistics of each split."""
        given = exec_properties.get(standard_component_specs.STATS_OPTIONS_JSON_KEY)
        options = tfdv.StatsOptions.from_json(given) if given else tfdv.StatsOptions()
        if not runs_in_process(self._beam_pipeline_args) or not _supported(options, input_dict, exec_properties):
            super().Do(input_dict, output_dict, exec_properties)
            return
        examples = artifact_utils.get_single_instance(input_dict[standard_component_specs.EXAMPLES_KEY])
        statistics = artifact_utils.get_single_instance(output_dict[standard_component_specs.STATISTICS_KEY])
        excluded = json_utils.loads(exec_properties.get(standard_component_specs.EXCLUDE_SPLITS_KEY) or "null") or []
        splits = [s for s in artifact_utils.decode_split_names(examples.split_names) if s not in excluded]
        statistics.split_names = artifact_utils.encode_split_names(splits)
        statistics.span = examples.span
        statistics.set_json_value_custom_property(
            executor.SAMPLE_RATE_BY_SPLIT_PROPERTY_NAME, json_utils.dumps(dict.fromkeys(splits, 1.0))
        )
        for split in splits:
            found = statistics_of(read_batches(examples, split, _BATCH), options)
            folder = artifact_utils.get_split_uri([statistics], split)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, executor.DEFAULT_FILE_NAME), "wb") as stream:
                stream.write(found.SerializeToString())


def _supported(options: tfdv.StatsOptions, inputs: dict[str, list[types.Artifact]], properties: dict[str, Any]) -> bool:
    """Whether TFDV's default statistics are asked for, of all columns or of some."""
    plain = copy.copy(options)
    plain.feature_allowlist = None
    return (
        not inputs.get(standard_component_specs.SCHEMA_KEY)
        and not properties.get(standard_component_specs.SHARDED_STATS_OUTPUT_KEY)
        and not json_utils.loads(properties.get(standard_component_specs.SAMPLE_RATE_BY_SPLIT_KEY) or "null")
        and plain.to_json() == tfdv.StatsOptions().to_json()
    )


class StatisticsGen(components.StatisticsGen):
    """TFX's StatisticsGen with the executor above: the same inputs, outputs and parameters."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(StatisticsExecutor)
