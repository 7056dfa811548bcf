"""The graph as TFX's own runner compiles it, for Vertex AI Pipelines.

Untried there. That runner knows two ways to look back only, so the data gate's baseline is the newest verdict, accepted
or not; and it leaves out drivers, with which Ingest, CuratedSchema and Pusher look at the world outside the store.
"""

from __future__ import annotations

from pathlib import Path

from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

from configs import Config
from pipeline.graph.build import create_pipeline

LABEL = """\
# For Vertex AI Pipelines, compiled by TFX and never run there; open-source Kubeflow does not run it. Give the pipeline
# root (gs://) when you submit it.
"""


def compile_for_vertex(config: Config, path: Path) -> None:
    """Write the pipeline spec to `path`, which ends in .yaml. Raises what TFX raises for what Vertex cannot run."""
    settings = KubeflowV2DagRunnerConfig(
        display_name=config.name, default_image=config.orchestration.image, use_pipeline_spec_2_1=True
    )
    runner = KubeflowV2DagRunner(settings, output_dir=str(path.parent), output_filename=path.name)
    pipeline = create_pipeline(config, accepted=LatestArtifactStrategy, blessed=LatestBlessedModelStrategy)
    runner.run(pipeline, write_out=True)
