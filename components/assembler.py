"""The assembler: the trained model, retrieval's model and the catalogue become the one SavedModel that is served."""

from __future__ import annotations

import logging
import shutil
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.artifacts import Catalogue
from components.catalogue import candidates
from configs import Config, canonical_json
from configs.features import columns_from_json
from configs.retrieval import Retrieval
from models.recommend.assemble import assemble

progress = logging.getLogger("recsys.progress")


class AssemblerSpec(ComponentSpec):
    """`retrieval` and `columns` are JSON; `item` is the column of items' ids."""

    PARAMETERS = {
        "retrieval": ExecutionParameter(type=str),
        "columns": ExecutionParameter(type=str),
        "item": ExecutionParameter(type=str),
    }
    INPUTS = {
        "ranker": ChannelParameter(type=standard_artifacts.Model),
        "retrieval_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "catalogue": ChannelParameter(type=Catalogue),
    }
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class AssemblerExecutor(base_executor.BaseExecutor):
    """Assembles."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write the SavedModel with the signature `recommend`."""
        columns = columns_from_json(exec_properties["columns"])
        items = candidates(artifact_utils.get_single_uri(input_dict["catalogue"]), exec_properties["item"], columns)
        retrieval = input_dict.get("retrieval_model")
        output = artifact_utils.get_single_instance(output_dict["model"])
        folder = path_utils.serving_model_dir(output.uri)
        progress.info(f"recommending of {len(items):,} items")
        shutil.rmtree(folder, ignore_errors=True)
        assemble(
            path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["ranker"])),
            path_utils.serving_model_path(retrieval[0].uri) if retrieval else None,
            columns,
            items,
            Retrieval.model_validate_json(exec_properties["retrieval"]),
            folder,
        )
        output.set_string_custom_property("summary", f"recommends of {len(items):,} items")


class Assembler(base_component.BaseComponent):
    """Puts the signature `recommend` beside those of the trained model."""

    SPEC_CLASS = AssemblerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AssemblerExecutor)

    def __init__(self, config: Config, columns: str, **inputs: types.BaseChannel):
        super().__init__(
            spec=AssemblerSpec(
                retrieval=canonical_json(config.retrieval),
                columns=columns,
                item=config.data.item,
                model=types.Channel(type=standard_artifacts.Model),
                **inputs,
            )
        )
