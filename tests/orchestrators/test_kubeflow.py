"""The compiled pipeline: it loads in Kubeflow's SDK, has the graph's edges, and its containers' commands work in order.

No cluster is at hand. The walker stands for one: it runs each container's command on this machine when all that the
task depends on has ended.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml
from kfp import components

from tests.orchestrators.conftest import DAYS, TODAY, Project

pytestmark = pytest.mark.slow

SETTINGS = """orchestration={{
  schedule: "30 3 * * *", start: 2026-02-01, catch_up: true, runs_at_once: 1, retries: 1, retry_after: 7, timeout: 900,
  image: "registry.example/recsys:1", config: {config},
  volumes: [{{claim: recsys-work, mount: /home/recsys/work}}],
  secrets: {{DB_PASSWORD: {{secret: recsys-db, key: password}}}},
  resources: {{cpu: 500m, memory: 2Gi}}, nodes: {{Trainer: {{cpu: 4, memory: 16Gi, gpus: 1}}}}
}}"""


@pytest.fixture(scope="module")
def compiled(project: Project, tmp_path_factory) -> Path:
    """The pipeline of the films."""
    path = tmp_path_factory.mktemp("kubeflow") / "films.yaml"
    settings = SETTINGS.format(config=project.config).replace("\n", " ")
    done = project.call("compile", "kubeflow", project.config, "--output", path, "--set", settings)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def pipeline(compiled) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its specification, and what Kubernetes is told."""
    specification, platform = yaml.safe_load_all(compiled.read_text())
    return specification, platform


@pytest.fixture(scope="module")
def plan(project) -> dict[str, Any]:
    return json.loads(project.call("graph", project.config, "--json").stdout)


def node_of(task: dict[str, Any]) -> str:
    return task["taskInfo"]["name"]


def test_it_loads_in_the_sdk_and_takes_what_a_run_is_given(compiled):
    loaded = components.load_component_from_file(str(compiled))
    assert set(loaded.component_spec.inputs) == {"span", "before", "overrides"}
    assert all(i.optional for i in loaded.component_spec.inputs.values())


def test_its_edges_are_the_graphs(pipeline, plan):
    tasks = pipeline[0]["root"]["dag"]["tasks"]
    edges = {(node_of(tasks[up]), node_of(task)) for task in tasks.values() for up in task.get("dependentTasks", ())}
    assert edges == {(up, node["id"]) for node in plan["nodes"] for up in node["needs"]}
    assert {node_of(task) for task in tasks.values()} == {node["id"] for node in plan["nodes"]}


def test_each_container_has_resources_volume_secret_and_timeout(pipeline):
    deployment, platform = pipeline[0]["deploymentSpec"]["executors"], pipeline[1]
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(told) == set(deployment)
    for name, executor in deployment.items():
        container = executor["container"]
        assert container["image"] == "registry.example/recsys:1"
        trainer = name == "exec-trainer"
        assert container["resources"]["resourceMemoryLimit"] == ("16Gi" if trainer else "2Gi")
        assert container["resources"]["resourceCpuRequest"] == ("4" if trainer else "500m")
        assert container["resources"].get("accelerator", {}).get("resourceCount") == ("1" if trainer else None)
        assert [v["mountPath"] for v in told[name]["pvcMount"]] == ["/home/recsys/work"]
        (secret,) = told[name]["secretAsEnv"]
        assert secret["secretName"] == "recsys-db"
        assert secret["keyToEnv"] == [{"envVar": "DB_PASSWORD", "secretKey": "password"}]
        assert told[name]["activeDeadlineSeconds"] == "900"
    for task in pipeline[0]["root"]["dag"]["tasks"].values():
        assert not task["cachingOptions"], "the metadata store caches, not Kubeflow"
        assert task["retryPolicy"]["maxRetryCount"] == 1


def test_the_recurring_run_is_what_the_client_takes(compiled):
    settings = json.loads(compiled.with_suffix(".recurring.json").read_text())
    inspect.signature(kfp.Client.create_recurring_run).bind(None, experiment_id="e", **settings)
    assert settings["cron_expression"] == "0 30 3 * * *"
    assert settings["max_concurrency"] == 1
    assert settings["no_catchup"] is False
    assert settings["params"] == {"before": "[[ScheduledTime.20060102]]"}


def test_a_walk_over_its_containers_ends_in_a_pushed_version(pipeline, project, days, recsys):
    if not list((project.folder / "logs").glob(f"{DAYS[5]:%Y%m%d}.*")):
        project.write_day(5, days[5])
    served = project.folder / "served-by-kubeflow"
    given = {"span": "", "before": f"{TODAY:%Y%m%d}", "overrides": f"serving.folder={served}"}
    made = walk(pipeline[0], given, "job-1", recsys)
    assert {state["state"] for state in made.values()} <= {"done", "cached"}
    assert {state["run"] for state in made.values()} == {"job-1"}
    (version,) = (served / "films").glob("[0-9]*")
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text())
    assert (manifest["run"], manifest["span"]) == ("job-1", int(f"{DAYS[5]:%Y%m%d}"))


def walk(specification: dict[str, Any], given: dict[str, str], job: str, recsys: Path) -> dict[str, dict[str, Any]]:
    """Run every container's command once all before it have ended well; return what each printed, by node."""
    tasks = dict(specification["root"]["dag"]["tasks"])
    made: dict[str, dict[str, Any]] = {}
    ended: set[str] = set()
    while tasks:
        name = next(n for n, task in tasks.items() if set(task.get("dependentTasks", ())) <= ended)
        task = tasks.pop(name)
        executor = specification["components"][task["componentRef"]["name"]]["executorLabel"]
        container = specification["deploymentSpec"]["executors"][executor]["container"]
        inputs = {key: value_of(value, given, job) for key, value in task["inputs"]["parameters"].items()}
        filled = [
            re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", lambda m, i=inputs: i[m[1]], word)
            for word in container["command"] + container["args"]
        ]
        assert not [word for word in filled if "{{" in word]
        environment = os.environ | {"PATH": f"{recsys.parent}:{os.environ['PATH']}"}
        done = subprocess.run(filled, capture_output=True, text=True, env=environment, timeout=600)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        made[node_of(task)] = json.loads(done.stdout)
        ended.add(name)
    return made


def value_of(value: dict[str, Any], given: dict[str, str], job: str) -> str:
    """Return what Kubeflow fills a parameter with."""
    if "componentInputParameter" in value:
        return given[value["componentInputParameter"]]
    constant = value["runtimeValue"]["constant"]
    return job if constant == "{{$.pipeline_job_uuid}}" else constant


def test_what_vertex_takes_is_compiled_on_request_and_labelled(project, tmp_path):
    path = tmp_path / "vertex.yaml"
    done = project.call("compile", "kubeflow", project.config, "--output", path, "--vertex")
    assert done.returncode == 0, done.stderr
    assert path.read_text().startswith("# For Vertex AI Pipelines")
    assert "Trainer" in yaml.safe_load(path.read_text())["root"]["dag"]["tasks"]
    assert [p.name for p in tmp_path.iterdir()] == ["vertex.yaml"]


def test_a_node_that_is_not_there_and_a_name_without_yaml_are_wrong_calls(project, tmp_path):
    unknown = ["--set", "orchestration.nodes={Tranier: {cpu: 4}}"]
    done = project.call("compile", "kubeflow", project.config, "--output", tmp_path / "a.yaml", *unknown)
    assert done.returncode == 2
    assert "orchestration.nodes: no node 'Tranier'; choose from Ingest" in done.stderr
    assert project.call("compile", "kubeflow", project.config, "--output", tmp_path / "a.json").returncode == 2
    assert list(tmp_path.iterdir()) == []
