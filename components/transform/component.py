"""The TFX component: TFX's Transform, whose executor needs no Beam where one machine does the work."""

from __future__ import annotations

import logging
import os
import tempfile
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from tensorflow_transform.output_wrapper import TFTransformOutput
from tensorflow_transform.tf_metadata import metadata_io
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
from tfx import components, types
from tfx.components.transform import executor, executor_utils, labels
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.beam import runs_in_process
from components.examples import split_files
from components.transform.analysis import Analysis, NotOnOneMachineError
from components.transform.records import Columns, Rereadable, TransformGraph, write

_FILE = "transformed_examples"


class TransformExecutor(executor.Executor):
    """Analyzes and transforms in this process where Beam would, and as TFX's own executor does where it would not.

    Both give the same graph, vocabularies and examples; the order of rows and how files are cut may differ.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the transform graph and the transformed examples."""
        if runs_in_process(self._beam_pipeline_args):
            files = PipelineOptions(self._beam_pipeline_args).view_as(DirectOptions).direct_num_workers
            try:
                self._run(input_dict, output_dict, exec_properties, files)
            except NotOnOneMachineError as unknown:
                logging.getLogger(__name__).warning("analyzed on Beam: %s", unknown)
            else:
                return
        super().Do(input_dict, output_dict, exec_properties)

    def _run(
        self,
        inputs: dict[str, list[types.Artifact]],
        outputs: dict[str, list[types.Artifact]],
        properties: dict[str, Any],
        files: int,
    ) -> None:
        """Do it in this process; each split is written to at least `files` files."""
        examples = artifact_utils.get_single_instance(inputs[standard_component_specs.EXAMPLES_KEY])
        splits = executor_utils.ResolveSplitsConfig(
            properties.get(standard_component_specs.SPLITS_CONFIG_KEY), [examples]
        )
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(inputs[standard_component_specs.SCHEMA_KEY]))
        )
        folder = artifact_utils.get_single_uri(outputs[standard_component_specs.TRANSFORM_GRAPH_KEY])
        transformed = outputs[standard_component_specs.TRANSFORMED_EXAMPLES_KEY]
        executor_utils.SetSplitNames(splits.transform, transformed)
        named = (labels.MODULE_FILE, labels.MODULE_PATH, labels.PREPROCESSING_FN, labels.CUSTOM_CONFIG)
        preprocessing_fn = self._GetPreprocessingFn({label: properties.get(label) for label in named}, {})
        with tempfile.TemporaryDirectory() as temporary:
            analysis = Analysis(preprocessing_fn, Columns(schema).specs, temporary)
            needed = analysis.columns
            columns = Columns(schema, needed)
            rows = {
                split: Rereadable(columns, split_files(examples, split))
                for split in {*splits.analyze, *splits.transform}
            }
            analysis.run(lambda: (columns.tensors(batch) for split in splits.analyze for batch in rows[split]), folder)
        metadata_io.write_metadata(DatasetMetadata(schema), os.path.join(folder, TFTransformOutput.RAW_METADATA_DIR))
        output = TFTransformOutput(folder)
        graph = TransformGraph(output.transform_savedmodel_dir, needed)
        for split in splits.transform:
            uri = artifact_utils.get_split_uri(transformed, split)
            batches = (graph.apply(columns.tensors(batch)) for batch in rows.pop(split))
            write(batches, output.transformed_metadata.schema, os.path.join(uri, _FILE), max(files, 1))


class Transform(components.Transform):
    """TFX's Transform with the executor above: the same inputs, outputs and parameters."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(TransformExecutor)
