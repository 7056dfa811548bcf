"""Which engine runs a node's pass over data."""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

IN_PROCESS = "FnApiRunner"  # the config's default: Beam's engine inside this process


def runs_in_process(arguments: Sequence[str]) -> bool:
    """Whether these Beam arguments keep a pass in this process, where it can be done without Beam as well."""
    return PipelineOptions(list(arguments)).view_as(StandardOptions).runner == IN_PROCESS
