"""The TFX component: the page of a run, made of whatever the run has left, refused and broken ones too."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_driver, base_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import profiles
from components.artifacts import DataBlessing, IngestReport, RunReport
from components.evaluator.gates import CANDIDATE, OVERALL
from components.report import change, data, lineage, order, page, slices, training, verdict
from components.verdict import read_verdict
from configs import Config, canonical_json

REPORT_HTML = "report.html"
_INPUTS = {
    "examples": standard_artifacts.Examples,
    "report": IngestReport,
    "statistics": standard_artifacts.ExampleStatistics,
    "data_blessing": DataBlessing,
    "baseline": DataBlessing,
    "transform_graph": standard_artifacts.TransformGraph,
    "transformed_examples": standard_artifacts.Examples,
    "model_run": standard_artifacts.ModelRun,
    "evaluation": standard_artifacts.ModelEvaluation,
    "model_blessing": standard_artifacts.ModelBlessing,
    "infra_blessing": standard_artifacts.InfraBlessing,
    "pushed_model": standard_artifacts.PushedModel,
}


class ReportSpec(ComponentSpec):
    """`config` and `nodes` are JSON; the driver fills in `history`, what the metadata store knows of the run."""

    PARAMETERS = {
        "config": ExecutionParameter(type=str),
        "model_folder": ExecutionParameter(type=str),
        "nodes": ExecutionParameter(type=str),
        "history": ExecutionParameter(type=str, optional=True),
    }
    # All optional: of a refused run there is only what came before the refusal.
    INPUTS = {name: ChannelParameter(type=type_, optional=True) for name, type_ in _INPUTS.items()}
    OUTPUTS = {"run_report": ChannelParameter(type=RunReport)}


class ReportDriver(base_driver.BaseDriver):
    """Asks the metadata store how the run went, which also keeps the report out of the cache."""

    def run(self, execution_info) -> driver_output_pb2.DriverOutput:
        """Resolve `history`. Raises RuntimeError where nothing was ingested."""
        run, given = execution_info.pipeline_run_id, execution_info.exec_properties
        if not execution_info.input_dict.get("report"):
            raise RuntimeError(f"no report: run {run} has ingested nothing, so there is nothing to report on")
        nodes = json.loads(given["nodes"])
        with self._metadata_handle as handle:
            history = {
                "run": run,
                "at": time.time(),
                "nodes": lineage.node_history(handle.store, execution_info.pipeline_info.id, run, nodes),
                "files": lineage.log_files(handle.store, execution_info.input_dict["examples"][0].uri),
                "previous": lineage.previous_report(handle.store, run),
                "chain": lineage.chain(handle.store, lineage.served(given["model_folder"])),
            }
        result = driver_output_pb2.DriverOutput()
        data_types_utils.set_metadata_value(result.exec_properties["history"], json.dumps(history))
        return result


class ReportExecutor(base_executor.BaseExecutor):
    """Writes the page and its facts."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write `report.html` and `report.json`."""
        inputs = {name: artifacts[0] for name, artifacts in input_dict.items() if artifacts}
        output = output_dict["run_report"][0]
        facts, curves = gather(inputs, exec_properties)
        with open(os.path.join(output.uri, lineage.REPORT_JSON), "w", encoding="utf-8") as stream:
            json.dump(facts, stream, ensure_ascii=False)
        with open(os.path.join(output.uri, REPORT_HTML), "w", encoding="utf-8") as stream:
            stream.write(page.render(facts, curves))
        output.set_string_custom_property("run", facts["run"])
        output.set_string_custom_property("state", facts["outcome"]["state"])
        output.set_string_custom_property("summary", os.path.join(output.uri, REPORT_HTML))


class Report(base_component.BaseComponent):
    """Makes the page of every run."""

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ReportExecutor)
    DRIVER_CLASS = ReportDriver

    def __init__(self, config: Config, nodes: Sequence[str], **inputs: types.BaseChannel):
        super().__init__(
            spec=ReportSpec(
                config=canonical_json(config),
                model_folder=config.model_folder,
                nodes=json.dumps(list(nodes)),
                run_report=types.Channel(type=RunReport),
                **inputs,
            )
        )


def gather(inputs: dict[str, types.Artifact], properties: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the page's facts, JSON values, and the curves by slice and model. `inputs` holds what the run has made."""
    config, history = json.loads(properties["config"]), json.loads(properties["history"])
    gate = verdict.data_gate(inputs["data_blessing"].uri) if "data_blessing" in inputs else None
    judged = verdict.model_gate(inputs["model_blessing"].uri) if "model_blessing" in inputs else None
    checked = verdict.serving_check(inputs["infra_blessing"].uri) if "infra_blessing" in inputs else None
    gates = ("data_blessing", "model_blessing", "infra_blessing")
    verdicts = [read_verdict(inputs[name].uri) for name in gates if name in inputs]
    judgements = judged["judgements"] if judged else []
    pushed = inputs["pushed_model"].get_string_custom_property("pushed_version") if "pushed_model" in inputs else None
    counted = data.counts(inputs["report"].uri) if "report" in inputs else None
    facts: dict[str, Any] = {
        "name": config["name"],
        "run": history["run"],
        "at": history["at"],
        "outcome": verdict.outcome(history["nodes"], verdicts, sum(j.get("judged", True) for j in judgements), pushed),
        "pushed": pushed,
        "serving_check": checked,
        "data_gate": gate,
        "counts": counted,
        "models": list(judged["metrics"]) if judged else [],
        "gates": [],
        "slices": [],
        "metric": next((j["metric"] for j in judgements if j["metric"] != "example_count"), "auc"),
        "training": None,
        "features": [],
        "nodes": history["nodes"],
        "files": history["files"],
        "chain": history["chain"],
        "libraries": lineage.libraries(),
        "config": change.config_text(properties["config"]),
        "previous": _previous(history["previous"]),
    }
    rows = {split: n["rows"] for split, n in counted["splits"].items()} if counted else {}
    for entry in facts["nodes"]:
        if entry.get(profiles.PROPERTY):
            entry[profiles.PROPERTY] = profiles.with_rows(entry[profiles.PROPERTY], entry["node"], rows)
    if facts["previous"]:
        facts["config_change"] = change.config_change(facts["previous"].pop("config"), facts["config"])
    curves: dict[str, Any] = {}
    if judged is not None and "evaluation" in inputs:
        by_name = slices.read_slices(inputs["evaluation"].uri, facts["models"])
        names = order.worst_first(by_name, judgements, facts["metric"])
        curves = order.kept_curves(by_name, names)
        facts["gates"] = [verdict.as_shown(j) for j in judgements]
        facts["slices"] = [{k: v for k, v in by_name[n].items() if k != "curves"} for n in [OVERALL, *names]]
    if "model_run" in inputs:
        facts["training"] = training.history(
            inputs["model_run"].uri, counted["splits"]["train"]["rows"] if counted else None
        )
    if "statistics" in inputs:
        baseline = inputs["baseline"].uri if "baseline" in inputs else None
        facts["features"] = data.features(inputs["statistics"], baseline, gate)
    if "transformed_examples" in inputs:
        facts["unknown"] = _unknown_shares(inputs, config)
    return facts, curves


def _unknown_shares(inputs: Mapping[str, types.Artifact], config: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return data.unknown_shares(
        inputs["transformed_examples"],
        inputs["transform_graph"].uri,
        json.dumps(config["features"]),
        (config["data"]["user"], config["data"]["item"]),
    )


def _previous(folder: str | None) -> dict[str, Any] | None:
    """Return of the last run's report what this one compares with."""
    if folder is None:
        return None
    with open(os.path.join(folder, lineage.REPORT_JSON), encoding="utf-8") as stream:
        facts = json.load(stream)
    overall = next((s for s in facts["slices"] if s["name"] == OVERALL), None)
    return {
        "run": facts["run"],
        "at": facts["at"],
        "state": facts["outcome"]["state"],
        "metrics": overall["metrics"][CANDIDATE] if overall else None,
        "config": facts["config"],
        "profiles": profiles.by_node(facts["nodes"]),
    }
