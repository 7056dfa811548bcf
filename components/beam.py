"""Which engine runs a node's pass over data."""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

IN_PROCESS = "FnApiRunner"  # the config's default: Beam's engine inside this process


def pipeline_arguments(runner: str, given: Sequence[str]) -> list[str]:
    """Return the Beam arguments of a pipeline's nodes.

    The runner is named: Beam's default would pick another engine where it can download one. For workers elsewhere TFX
    packs itself anew for each node, unless an image is named that has it: 2.4 s of CPU and 50 MB of temporary files,
    which the engine in this process has no use for.
    """
    in_process = [f"--sdk_container_image={IN_PROCESS}"] if runner == IN_PROCESS else []
    return [f"--runner={runner}", *in_process, *given]


def runs_in_process(arguments: Sequence[str]) -> bool:
    """Whether these Beam arguments keep a pass in this process, where it can be done without Beam as well."""
    return PipelineOptions(list(arguments)).view_as(StandardOptions).runner == IN_PROCESS
