"""The graph for Kubeflow Pipelines 2: a container a node, each calling `recsys run-node`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from kfp import compiler, dsl, kubernetes

# Kubeflow's own words for the time a recurring run was scheduled at, in Go's notation for year, month and day.
SCHEDULED_DAY = "[[ScheduledTime.20060102]]"


def compile_pipeline(plan: Mapping[str, Any], path: str) -> None:
    """Write the pipeline of a plan to `path`, which ends in .yaml."""
    compiler.Compiler().compile(_pipeline(plan), path)


def recurring_run(plan: Mapping[str, Any], package: str) -> dict[str, Any]:
    """Return the arguments of kfp.Client.create_recurring_run but the experiment; empty without a schedule.

    Kubeflow knows the time a run was scheduled at and no interval: with spans, the run is for the span before that day.
    """
    how = plan["orchestration"]
    if how["schedule"] is None:
        return {}
    return {
        "job_name": plan["name"],
        "cron_expression": f"0 {how['schedule']}",  # seconds come first in Kubeflow's cron
        "start_time": f"{how['start']}T00:00:00Z",
        "max_concurrency": how["runs_at_once"],
        "no_catchup": not how["catch_up"],
        "enable_caching": False,
        "pipeline_package_path": package,
        "params": {"before": SCHEDULED_DAY} if plan["spans"] else {},
    }


def _pipeline(plan: Mapping[str, Any]) -> Any:
    how = plan["orchestration"]

    @dsl.pipeline(name=re.sub(r"[^a-z0-9-]+", "-", plan["name"]), description="Recommender: logs to a pushed version")
    def recommender(span: str = "", before: str = "", overrides: str = "") -> None:
        """Run every node. `overrides` are KEY.PATH=VALUE, one a line."""
        tasks: dict[str, Any] = {}
        for node in plan["nodes"]:
            task = _component(node["id"], how)(
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, span=span, before=before, overrides=overrides
            )
            tasks[node["id"]] = task.after(*(tasks[up] for up in node["needs"]))
            _set_up(task, node, how)

    return recommender


# No `from __future__ import annotations` in this file: kfp reads the parameters' types as they are.


def _component(node: str, how: Mapping[str, Any]) -> Callable[..., Any]:
    def component(run_id: str, span: str, before: str, overrides: str):
        return dsl.ContainerSpec(
            image=how["image"],
            command=["recsys", "run-node", how["config"]],
            args=["--node", node, "--run-id", run_id, "--span", span, "--before", before, "--set", overrides,
                  "--skip-code", "0", "--json"],
        )  # fmt: skip

    component.__name__ = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node).lower())
    return dsl.container_component(component)


def _set_up(task: Any, node: Mapping[str, Any], how: Mapping[str, Any]) -> None:
    wanted = how["nodes"].get(node["id"], how["resources"])
    task.set_display_name(node["id"])
    task.set_caching_options(False)  # the metadata store knows what was done already, and for which inputs
    task.set_cpu_request(wanted["cpu"]).set_cpu_limit(wanted["cpu"])
    task.set_memory_request(wanted["memory"]).set_memory_limit(wanted["memory"])
    if wanted["gpus"]:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(wanted["gpus"])
    if how["retries"]:
        task.set_retry(how["retries"], backoff_duration=f"{how['retry_after']}s")
    if node["always"]:
        task.ignore_upstream_failure()
    kubernetes.set_timeout(task, how["timeout"])
    for volume in how["volumes"]:
        kubernetes.mount_pvc(task, volume["claim"], volume["mount"])
    for variable, key in how["secrets"].items():
        kubernetes.use_secret_as_env(task, key["secret"], {key["key"]: variable})
