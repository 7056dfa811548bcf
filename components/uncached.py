"""Nodes whose answer depends on more than their inputs: they are asked each time."""

from __future__ import annotations

import time

from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types_utils
from tfx.proto.orchestration import driver_output_pb2


class UncachedDriver(base_driver.BaseDriver):
    """Keeps a node out of the cache: its parameter `asked_at` is never the same twice."""

    def run(self, execution_info) -> driver_output_pb2.DriverOutput:
        """Resolve `asked_at`."""
        result = driver_output_pb2.DriverOutput()
        data_types_utils.set_metadata_value(result.exec_properties["asked_at"], str(time.time_ns()))
        return result
